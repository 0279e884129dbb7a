"""Is anything lost when workers are killed at random? Short runs under kills against the same run undisturbed.

    python benchmarks/worker_kills.py [--kills 200] [--seed 0] [--rows benchmarks/worker_kills.jsonl]

A run of 2 or 3 workers is killed up to ten times: some moment after it has stepped, SIGKILL goes to one worker, to
all of them, to the process they are forks of, to the launcher, or to everything at once; after the last two the
command is started again with `--resume`. Then the run goes on to its end. Its weights, its optimizers' state and the
rows of its journal must be those of one process that nobody disturbed. Each run is a row in a file, to which a later
call adds until there were enough kills. Seconds to recover: what `lpc run` prints, from when the launcher saw the
failure to the first step after it, of a worker that goes on alone (`alone`; `caught up`: to the first thing that its
predecessor had not done) and of all workers (`recovered`); of a killed launcher, from the kill to the first checkpoint
of its successor.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from outcome import outcome

import lpc
from lpc.runtime import pieces
from lpc.runtime.checkpoint import LAST

SPEC = """\
name: kills
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(32), norm1: batch_norm, relu, dropout(0.2), fc2: linear(32), relu, out: linear(10)]
data: {source: digits, batch: 64, transforms: [crop(8, padding=1)]}
loss: cross_entropy
decompose: {blocks: {b1: [fc1, norm1], b2: fc2, head: out}, links: {"*": stop, "b2->head": gradient}}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: "sgd(lr=0.2, momentum=0.9)", schedule: cosine}]
run: {steps: STEPS, target: cpu, log: every(10), checkpoint: every(10)}
"""
A_RUN = 10  # kills
STEPS_A_KILL = 100
VICTIMS = {"worker": 15, "workers": 2, "server": 1, "launcher": 1, "everything": 1}  # how often each, of twenty
LIMIT = 1800.0  # seconds in which a run has to go on, or it hangs
# What a row has -> what `lpc run` prints before the seconds.
TOLD = {"alone": r"rank \d+ recovered in", "caught up": r"rank \d+ had caught up after", "recovered": "recovered in"}
PAUSE = 0.4  # seconds at most from a step to a kill


class HangError(Exception):
    """A run that does not go on."""


@dataclass
class Campaign:
    """One run that is killed again and again."""

    plan: Path
    folder: Path
    workers: int
    kills: int
    draw: random.Random
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    relaunched: list[float] = field(default_factory=list)
    starts: int = 0

    def run(self) -> None:
        """Kill until it was often enough, and let the run end."""
        process, killed = self.start(), 0.0
        try:
            while (code := process.poll()) is None or code:
                if code is not None:
                    process = self.start()
                if not self.steps(process):
                    continue
                if killed:
                    self.relaunched.append(round(time.monotonic() - killed, 3))
                    killed = 0.0
                if sum(self.done.values()) < self.kills:
                    time.sleep(self.draw.uniform(0.0, PAUSE))
                    killed = self.kill(process)
        finally:
            process.kill()

    def start(self) -> subprocess.Popen[bytes]:
        options = ["--workers", str(self.workers), "--restarts", "100000", *(["--resume"] if self.starts else [])]
        command = [sys.executable, "-m", "lpc", "run", str(self.plan), "--out", str(self.folder), *options]
        self.starts += 1
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def steps(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until a checkpoint is written after now: the run steps. False where its launcher ends."""
        manifest, end = pieces.manifest_of(self.folder / LAST), time.monotonic() + LIMIT
        before = manifest.stat().st_mtime_ns if manifest.exists() else 0
        while process.poll() is None:
            if manifest.exists() and manifest.stat().st_mtime_ns != before:
                return True
            if time.monotonic() > end:
                raise HangError(self.log.read_text()[-2000:])
            time.sleep(0.01)
        return False

    def kill(self, process: subprocess.Popen[bytes]) -> float:
        """Kill whoever is drawn; return when, where the launcher is among them, else 0."""
        victim = self.draw.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        if process.poll() is not None:
            return 0.0
        launcher = psutil.Process(process.pid)
        below = launcher.children(recursive=True)
        with suppress(psutil.NoSuchProcess):
            workers = [one for one in below if one.ppid() != process.pid]
            if len(workers) < self.workers:
                return 0.0  # just being started again, or at an end
            servers = {one.ppid() for one in workers}
            chosen = {
                "worker": [self.draw.choice(workers)], "workers": workers, "launcher": [launcher],
                "server": [one for one in below if one.pid in servers], "everything": [launcher, *below],
            }  # fmt: skip
            for one in chosen[victim]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            self.done[victim] += 1
            if launcher in chosen[victim]:
                process.wait()
                psutil.wait_procs(below, timeout=30)
                return time.monotonic()
        return 0.0


def killed(plan: Path, folder: Path, wanted: Any, seed: int) -> dict[str, Any]:
    """Return the row of one run."""
    draw = random.Random(seed)
    campaign = Campaign(plan, folder, draw.choice((2, 3)), A_RUN, draw)
    campaign.run()
    (tensors, *rest), (others, *other_rest) = outcome(folder), wanted
    same = tensors.keys() == others.keys() and all(torch.equal(tensors[key], others[key]) for key in others)
    printed = campaign.log.read_text()
    told = {
        name: [float(seconds) for seconds in re.findall(rf"^{words} ([\d.e-]+) s$", printed, re.MULTILINE)]
        for name, words in TOLD.items()
    }
    return {
        "seed": seed, "workers": campaign.workers, "kills": campaign.done, "same": same, "rows": rest == other_rest,
        **told, "relaunched": campaign.relaunched, "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def told(rows: list[dict[str, Any]]) -> str:
    """Return what all rows come to."""
    kills = {victim: sum(row["kills"][victim] for row in rows) for victim in VICTIMS}
    lines = [f"{len(rows)} runs, {sum(kills.values())} kills: {kills}"]
    lines.append(f"weights and optimizers the same in {sum(r['same'] for r in rows)}, numbers and journal in "
                 f"{sum(r['rows'] for r in rows)}")  # fmt: skip
    for name in (*TOLD, "relaunched"):
        if found := sorted(seconds for row in rows for seconds in row[name]):
            middle = statistics.median(found)
            lines.append(f"{name}: {len(found)} times, median {middle:.2f} s, {found[0]:.2f} to {found[-1]:.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows.exists() else []
    with tempfile.TemporaryDirectory() as name:
        folder, plan = Path(name), lpc.build(SPEC.replace("STEPS", str(STEPS_A_KILL * A_RUN)))
        plan.save(folder / "kills.plan")
        lpc.Trainer(plan, "cpu").fit(folder / "one")
        wanted = outcome(folder / "one")
        while sum(sum(row["kills"].values()) for row in rows) < given.kills:
            seed = given.seed + len(rows)
            rows.append(killed(folder / "kills.plan", folder / str(seed), wanted, seed))
            with given.rows.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    print(told(rows))


if __name__ == "__main__":
    main()
