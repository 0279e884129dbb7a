"""Do several processes end with the bits of one, whatever was killed, and go on from each other's checkpoints?"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import lpc
from lpc.runtime import pieces
from lpc.runtime.checkpoint import LAST
from lpc.runtime.workers.supervisor import Supervisor

SPEC = """\
name: workers
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(16), norm1: batch_norm, relu, dropout(0.2), fc2: linear(16), relu, out: linear(10)]
data: {source: digits, batch: 64, validation: 0.1, transforms: [crop(8, padding=1)]}
loss: cross_entropy
decompose: {blocks: {b1: [fc1, norm1], b2: fc2, head: out}, links: {"*": stop, "b2->head": gradient}}
learn:
  - {blocks: "*", head: linear, loss: cross_entropy, optimizer: "sgd(lr=0.2, momentum=0.9)", schedule: cosine}
  - {blocks: head, optimizer: adam(lr=3e-3)}
run: {steps: 120, seed: 3, target: cpu, log: every(1), checkpoint: every(4), validate: every(30)}
"""
torch.set_num_threads(1)  # as each of several processes has
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def interruptible() -> None:
    """Take interrupts, which a shell has what runs behind it ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plan, and in `one` what one process makes of it, with one thread as workers have."""
    found = tmp_path_factory.mktemp("workers")
    plan = lpc.build(SPEC)
    plan.save(found / "w.plan")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    lpc.Trainer(plan, "cpu").fit(found / "one")
    torch.set_num_threads(threads)
    return found


def command(folder: Path, out: str, *more: str, plan: str = "w.plan") -> list[str]:
    return [sys.executable, "-m", "lpc", "run", str(folder / plan), "--out", str(folder / out), *more]


def run(folder: Path, out: str, *more: str) -> str:
    line = command(folder, out, *more)
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[Any]]:
    """Return the last checkpoint's tensors and numbers, and the rows of the journal without times."""
    last = pieces.read(folder / LAST)
    tensors = {name: tensor for name, tensor in last.tensors.items() if not name.startswith("meter.")}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tensors, dict(last.numbers), [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same(folder: Path, out: str, wanted_in: Path | None = None) -> None:
    wanted, wanted_numbers, wanted_rows = outcome((wanted_in or folder) / "one")
    tensors, numbers, rows = outcome(folder / out)
    assert tensors.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(tensors[name], wanted[name])] == []
    assert numbers == wanted_numbers
    assert rows == wanted_rows


def workers_of(process: subprocess.Popen[bytes]) -> dict[int, psutil.Process]:
    """Return the workers by rank, which their logs tell: forks of a process that the launcher has started."""
    found = {}
    for below in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if below.ppid() != process.pid:
                logs = [re.search(r"rank-(\d+)\.log$", file.path) for file in below.open_files()]
                found[next((int(log[1]) for log in logs if log), 0)] = below
    return found


def step_of(folder: Path) -> int:
    manifest = pieces.manifest_of(folder / LAST)
    return int(json.loads(manifest.read_text())["progress"]["step"]) if manifest.exists() else 0


def until_step(process: subprocess.Popen[bytes], folder: Path, step: int) -> None:
    until(process, lambda: step_of(folder) >= step)


def until(process: subprocess.Popen[bytes], there: Callable[[], bool]) -> None:
    """Wait for what a process brings about."""
    while not there():
        assert process.poll() is None
        time.sleep(0.002)


def until_told(process: subprocess.Popen[bytes], log: Path, pattern: str, since: int = 0) -> None:
    """Wait for words in a log, behind so many that are not looked at."""
    until(process, lambda: re.search(pattern, log.read_text()[since:]) is not None)


@pytest.fixture
def started(folder: Path) -> Iterator[Any]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(out: str, *more: str, plan: str = "w.plan") -> subprocess.Popen[bytes]:
        with (folder / f"{out}.log").open("ab") as log:
            processes.append(
                subprocess.Popen(
                    command(folder, out, *more, plan=plan), env=ENVIRONMENT, stdout=log, stderr=log,
                    start_new_session=True, preexec_fn=interruptible,
                )
            )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_nothing_is_lost_whatever_ends_a_run(folder: Path, started: Any) -> None:
    """One run, ended in every way: Ctrl-C, kills of one or two of three processes, of their server, of all."""
    out = folder / "many"
    process = started("many", "--workers", "3")
    until_step(process, out, 8)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the launcher and to the workers
    assert process.wait(60) == 130
    assert_told_once(folder / "many.log", "interrupted; to continue from the last checkpoint:", "--workers 3 --resume")
    assert sorted(path.name for path in (out / "logs").iterdir()) == ["rank-1.log", "rank-2.log"]

    process = started("many", "--workers", "3", "--resume")
    for victims, step in (([1], 20), ([0], 40), ([2, 0], 60)):  # one alone, or two at once: the others stay
        until_step(process, out, step)
        until(process, lambda: len(workers_of(process)) == 3)
        before, said = workers_of(process), len((folder / "many.log").read_text())
        for victim in victims:
            before[victim].kill()
        for victim, words in product(victims, ("recovered in", "had caught up after")):
            pattern = rf"rank {victim} was killed by SIGKILL\n(.*\n)*starting rank {victim} again(.*\n)*"
            until_told(process, folder / "many.log", rf"{pattern}rank {victim} {words} [\d.e-]+ s\n", said)
        stayed = {rank for rank, worker in workers_of(process).items() if worker.pid == before[rank].pid}
        assert stayed == {0, 1, 2} - {*victims}
    until_step(process, out, 80)
    forks_of = psutil.Process(workers_of(process)[0].ppid())
    forks_of.kill()  # and with it all workers
    until_told(process, folder / "many.log", r"starting the workers again, restart 5(.*\n)*recovered in [\d.]+ s\n")
    until_step(process, out, 88)
    orphans = [*workers_of(process).values()]
    process.send_signal(signal.SIGKILL)
    psutil.wait_procs(orphans, timeout=20)
    assert not any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans)
    assert "test accuracy" in run(folder, "many", "--resume")
    assert_same(folder, "many")
    assert not (out / "last.blocks").exists()


def test_processes_die_while_they_write(folder: Path, tmp_path: Path) -> None:
    """Each rank dies three times at some operation on files, also while it goes over its steps again."""
    (tmp_path / "w.plan").symlink_to(folder / "w.plan")
    out = StringIO()
    command = [str(Path(__file__).with_name("dying.py")), str(tmp_path)]
    assert Supervisor(command, 3, tmp_path, 30, ["--resume"], out, patience=60).run().code == 0, out.getvalue()
    assert_same(tmp_path, "run", folder)
    assert len(re.findall("starting rank [0-2] again", out.getvalue())) >= 5, out.getvalue()
    for name in ("last", "best"):
        blocks = json.loads((tmp_path / "run" / f"{name}.json").read_text())["blocks"].values()
        left = {path.name for path in (tmp_path / "run" / f"{name}.blocks").iterdir()}
        assert left == {entry["file"] for entry in blocks}


def assert_told_once(log: Path, *words: str) -> None:
    printed = log.read_text()
    assert "Traceback" not in printed
    assert [printed.count(word) for word in words] == [1] * len(words), printed


def test_a_mistake_is_told_once(folder: Path) -> None:
    line = [*command(folder, "wrong", "--workers", "9")]
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, timeout=280, check=False)
    assert done.returncode == 2
    assert "LPC0580" in done.stderr
    environment = {**ENVIRONMENT, "RANK": "0", "WORLD_SIZE": "3"}
    line = command(folder, "wrong", "--workers", "2")
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert done.returncode == 2
    assert "LPC0684" in done.stderr


def test_a_stopped_worker_is_given_up(folder: Path, started: Any) -> None:
    """It neither ends nor says anything: the other one tells edge or act, step and rank, and all begin again."""
    process = started("stopped", "--workers", "2", "--patience", "3")
    for victim, step in ((0, 8), (1, 40)):
        until_step(process, folder / "stopped", step)
        until(process, lambda: len(workers_of(process)) == 2)
        workers_of(process)[victim].send_signal(signal.SIGSTOP)
        pattern = rf"LPC0681.*rank {victim}.*for 3 s, at `.*` of step \d+(.*\n)*starting.*restart {victim + 1}"
        until_told(process, folder / "stopped.log", pattern)
    assert process.wait(120) == 0
    assert_same(folder, "stopped")


def test_a_killed_part_is_taken_up(folder: Path, started: Any) -> None:
    """Two processes hold a part of each block; one is killed, and comes back to the parts that it had saved."""
    wide = SPEC.replace("linear(16)", "linear(32)").replace("steps: 120", "steps: 40, replicas: 2, shard: true")
    plan, alone = lpc.build(wide), folder / "sharded"
    plan.save(alone / "w.plan")
    lpc.Trainer(plan, "cpu").fit(alone / "one")
    process = started("parts", "--workers", "2", plan="sharded/w.plan")
    until_step(process, folder / "parts", 12)
    until(process, lambda: len(workers_of(process)) == 2)
    workers_of(process)[1].kill()
    assert process.wait(120) == 0
    assert "rank 1 was killed by SIGKILL" in (folder / "parts.log").read_text()
    manifest = json.loads(pieces.manifest_of(folder / "parts" / LAST).read_text())
    assert [len(entry["parts"]) for entry in manifest["blocks"].values()] == [2, 2, 2]
    assert_same(folder, "parts", alone)
