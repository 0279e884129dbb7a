"""Does a command that is killed, interrupted or out of space leave what was there, and a run that goes on bitwise?"""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import lpc
from lpc.runtime import checkpoint
from lpc.runtime.checkpoint import BEST, LAST
from lpc.runtime.journal import FILE, rows
from lpc.specs.files import leftovers

BUILD_KILLS, RUN_KILLS = 8, 6
CHECKPOINTS = 4  # steps from one to the next

# All that a run can depend on: masks, running statistics, shuffled and augmented data, momentum, schedules,
# gradients summed over batches, open metrics, the best validation and when to stop.
SPEC = """\
name: killed
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(16), norm1: batch_norm, relu, dropout(0.2), out: linear(10)]
data: {source: digits, batch: 64, validation: 0.1, transforms: [crop(8, padding=1), flip(0.1)]}
loss: cross_entropy
decompose: {blocks: {b1: [fc1, norm1], head: out}, links: stop}
learn:
  - blocks: "*"
    head: linear
    loss: cross_entropy
    optimizer: sgd(lr=0.2, momentum=0.9)
    schedule: {warmup: 10, then: cosine}
  - {blocks: head, optimizer: adam(lr=3e-3)}
run:
  epochs: 20
  seed: 3
  target: cpu
  accumulate: 2
  log: every(1)
  checkpoint: every(4)
  validate: every(7)
  early_stop: patience(3, metric=loss, min_delta=0.1)
"""

# Imports and builds once (what a build learns of torch's operators is kept by its process), then runs each
# command in a fork of itself. A fork can be told to kill itself at its n-th operation on files under a folder, or
# to find no room for files beyond a size; how many such operations it did is reported.
SERVER = """
import json, os, resource, signal, sys
import sklearn.datasets
import lpc.building, lpc.trainer, lpc.views.building, lpc.views.partition, lpc.views.running
from lpc.cli import main

def command(arguments, log, folder, die_at, by, room):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind it without
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1), os.dup2(handle, 2)
    count = 0
    def watch(event, args):
        nonlocal count
        if event in EVENTS and isinstance(args[0], (str, os.PathLike)) and os.fspath(args[0]).startswith(folder):
            count += 1
            if count == die_at:
                os.kill(os.getpid(), by)
    sys.addaudithook(watch)
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        main(arguments)
    except SystemExit as left:
        sys.stdout.flush(), sys.stderr.flush()
        os.write(report[1], str(count).encode())
        os._exit(left.code or 0)

lpc.build(sys.argv[1])
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.scandir", "os.listdir"}
print("ready", flush=True)
for line in sys.stdin:
    report = os.pipe()
    pid = os.fork()
    if not pid:
        command(**json.loads(line))
    os.close(report[1])
    print(pid, flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(code, int(os.read(report[0], 20) or 0), flush=True)
    os.close(report[0])
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal), its operations on files, and what it printed."""

    code: int
    operations: int
    printed: str


class Server:
    """Starts commands in forks of a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        line = [sys.executable, "-c", SERVER, SPEC]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=folder)
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(
        self,
        *arguments: str | Path,
        watched: Path | None = None,
        die_at: int | None = None,
        by: signal.Signals = signal.SIGKILL,
        room: int | None = None,
        meanwhile: Callable[[int], None] = lambda pid: None,
    ) -> Ended:
        """Run a command to its end; `meanwhile` is called with its process id."""
        request = {
            "arguments": [str(argument) for argument in arguments],
            "log": str(self.log),
            "folder": str(watched or self.log.parent),
            "die_at": die_at,
            "by": by,
            "room": room,
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        meanwhile(int(self._read()))
        code, operations = map(int, self._read().split())
        return Ended(code, operations, self.log.read_text())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    server = Server(place)
    yield server
    server.close()


@pytest.fixture(scope="module")
def plan(server: Server, place: Path) -> Path:
    """The plan of SPEC, built by the command."""
    (place / "spec.yaml").write_text(SPEC)
    built = server.run("build", place / "spec.yaml", "-o", place / "good.plan")
    assert built.code == 0, built.printed
    return place / "good.plan"


@pytest.fixture(scope="module")
def whole(server: Server, plan: Path, place: Path) -> Path:
    """The folder of an undisturbed run."""
    ran = server.run("run", plan, "--out", place / "whole")
    assert ran.code == 0, ran.printed
    summary = json.loads((place / "whole" / "summary.json").read_text())
    assert summary["stopped_early"]
    assert summary["steps"] > 60
    return place / "whole"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kill_after(seconds: float) -> Callable[[int], None]:
    def kill(pid: int) -> None:
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    return kill


def test_killed_builds_leave_the_old_plan_or_the_new_one(server: Server, plan: Path, place: Path) -> None:
    draw, target = random.Random(0), place / "target.plan"
    wanted, hashes, operations, duration = [], {}, 0, 0.0
    for seed in (3, 4):
        start = time.monotonic()
        built = server.run(*build(place, target, seed), watched=target)
        assert built.code == 0, built.printed
        operations, duration = built.operations, time.monotonic() - start  # those of replacing a plan
        hashes[lpc.load(target).hash] = len(wanted)
        wanted.append(contents(target))
    found, litter = 1, 0
    kills = 0
    while kills < BUILD_KILLS:
        line = build(place, target, (4, 3)[found])
        if kills % 4:  # at an operation on files: between any two of them something is half done
            ended = server.run(*line, watched=target, die_at=draw.randrange(1, operations + 1))
        else:  # at any time
            ended = server.run(*line, meanwhile=kill_after(draw.random() * duration))
        assert ended.code in (0, -signal.SIGKILL), ended.printed
        kills += ended.code == -signal.SIGKILL
        if not ended.code:  # it ended first: fewer files were left to write, or the machine was quicker
            duration *= 0.8
        found = hashes[lpc.load(target).hash]  # old or new: never a third thing, never an error
        litter += len(contents(target).keys() - wanted[found].keys())
    assert litter, "no kill came in the middle of writing: the test proves nothing"
    for index, seed in enumerate((3, 4)):
        assert server.run(*build(place, target, seed)).code == 0
        assert contents(target) == wanted[index]


def build(place: Path, target: Path, seed: int) -> list[str | Path]:
    return ["build", place / "spec.yaml", "-o", target, "--set", f"run.seed={seed}"]


def tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    found = checkpoint.read(path)
    return dict(found.tensors), {**vars(found.progress), "seconds": 0, **found.numbers}


def journal(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder / FILE)]


def same_run(one: Path, other: Path) -> None:
    """Assert that two runs left bitwise the same weights, optimizer states, metrics and nothing else."""
    assert contents(one).keys() == contents(other).keys() == {LAST, BEST, FILE, "summary.json"}
    for name in (LAST, BEST):
        (mine, my_progress), (theirs, their_progress) = tensors(one / name), tensors(other / name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), name
        assert my_progress == their_progress
    assert journal(one) == journal(other)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (one, other)]
    assert {**summaries[0], "seconds": 0} == {**summaries[1], "seconds": 0}


def test_killed_runs_go_on_bitwise(server: Server, plan: Path, whole: Path, place: Path) -> None:
    draw, folder = random.Random(1), place / "killed"
    line = ["run", plan, "--out", folder, "--resume"]
    before = 0
    for kill in range(RUN_KILLS):
        if kill % 3 == 2:  # at any time, once steps are being done
            ended = server.run(*line, meanwhile=lambda pid: _kill_at_work(pid, folder, draw.random() * 0.03))
        else:  # at any operation on files: between any two of them a file is half done
            ended = server.run(*line, watched=folder, die_at=draw.randrange(1, 50))
        assert ended.code == -signal.SIGKILL, ended.printed
        if (folder / LAST).exists():
            step = checkpoint.read(folder / LAST).progress.step
            assert step % CHECKPOINTS == 0
            assert step >= before
            before = step
    assert before > 0
    done = server.run(*line)
    assert done.code == 0, done.printed
    same_run(folder, whole)


def _kill_at_work(pid: int, folder: Path, seconds: float) -> None:
    seen, deadline = _size(folder), time.monotonic() + 60
    while _size(folder) == seen and time.monotonic() < deadline:
        time.sleep(0.001)
    kill_after(seconds)(pid)


def _size(folder: Path) -> int:
    return (folder / FILE).stat().st_size if (folder / FILE).exists() else 0


def test_an_interrupted_run_says_how_to_go_on(server: Server, plan: Path, whole: Path, place: Path) -> None:
    folder = place / "inter rupted"
    ended = server.run("run", plan, "--out", folder, watched=folder, die_at=40, by=signal.SIGINT)
    assert (folder / LAST).exists()
    assert ended.code == 130
    assert "Traceback" not in ended.printed
    advice = ended.printed.splitlines()[-1]
    program, *arguments = shlex.split(advice)
    assert (program, arguments[-1]) == ("lpc", "--resume")
    assert server.run(*arguments).code == 0
    same_run(folder, whole)


def test_a_full_disk_leaves_the_old_plan(server: Server, plan: Path, place: Path) -> None:
    target = place / "full.plan"
    assert server.run("build", place / "spec.yaml", "-o", target).code == 0
    before = contents(target)
    largest = max(len(data) for data in before.values())
    for room in (2000, largest - 1):
        line = ["build", place / "spec.yaml", "-o", target, "--set", "network.layers[1].fc1=linear(17)"]
        refused = server.run(*line, room=room)
        assert refused.code == 2, refused.printed
        assert "error[LPC0510]" in refused.printed
        assert f"--> {target}" in refused.printed
        assert lpc.load(target).hash
        assert not list(target.rglob("*.tmp"))
    assert server.run("build", place / "spec.yaml", "-o", target).code == 0
    assert contents(target) == before


def test_a_full_disk_leaves_the_last_checkpoint(server: Server, plan: Path, whole: Path, place: Path) -> None:
    folder = place / "full"
    server.run("run", plan, "--out", folder, watched=folder, die_at=40)
    before = checkpoint.read(folder / LAST).progress.step
    refused = server.run("run", plan, "--out", folder, "--resume", room=(folder / LAST).stat().st_size // 2)
    assert refused.code == 2, refused.printed
    assert "error[LPC0701]" in refused.printed
    assert f"--> {folder / LAST}" in refused.printed
    assert checkpoint.read(folder / LAST).progress.step == before
    assert before > 0
    assert not leftovers(folder / LAST)
    assert server.run("run", plan, "--out", folder, "--resume").code == 0
    same_run(folder, whole)
