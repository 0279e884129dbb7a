"""Is anything lost when workers are killed at random? A run under kills against the same run undisturbed.

    python benchmarks/worker_kills.py [--kills 200] [--workers 2] [--seed 0]

Once a run steps, some moment later one worker gets SIGKILL, or all workers, or the launcher, after which the command
is started again with `--resume`. When all kills are done the run goes on to its end. Its weights, its optimizers'
state and the rows of its journal must be those of one process that nobody disturbed. Seconds to recover are those
that `lpc run` prints: from when the launcher saw the failure to the first step after it.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

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
STEPS_A_KILL = 40
VICTIMS = {"worker": 8, "all": 1, "launcher": 1}  # how often each, of ten


@dataclass
class Campaign:
    """A run that is killed again and again."""

    plan: Path
    folder: Path
    workers: int
    kills: int
    draw: random.Random
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    starts: int = 0

    def run(self) -> None:
        """Kill until it was often enough, and let the run end."""
        process = self.start()
        while (code := process.poll()) is None or code:
            if code is not None:
                process = self.start()
            if sum(self.done.values()) < self.kills and self.steps(process):
                time.sleep(self.draw.uniform(0.0, 0.5))
                self.kill(process)
            time.sleep(0.05)

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
        """Wait until a checkpoint is written after now: the run steps."""
        manifest = pieces.manifest_of(self.folder / LAST)
        before = manifest.stat().st_mtime_ns if manifest.exists() else 0
        while process.poll() is None:
            if manifest.exists() and manifest.stat().st_mtime_ns != before:
                return True
            time.sleep(0.01)
        return False

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        victim = self.draw.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        if len(children) < self.workers:
            return  # just being started again, or at an end
        chosen = {"worker": [self.draw.choice(children)], "all": children, "launcher": [psutil.Process(process.pid)]}
        for one in chosen[victim]:
            one.kill()
        self.done[victim] += 1
        if victim == "launcher":
            process.wait()
            psutil.wait_procs(children, timeout=30)


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[Any]]:
    """Return the last checkpoint's tensors and numbers, and the journal's rows without times."""
    last = pieces.read(folder / LAST)
    tensors = {name: tensor for name, tensor in last.tensors.items() if not name.startswith("meter.")}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tensors, dict(last.numbers), [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in {"kills": 200, "workers": 2, "seed": 0}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, plan = Path(name), lpc.build(SPEC.replace("STEPS", str(STEPS_A_KILL * given.kills)))
        plan.save(folder / "kills.plan")
        lpc.Trainer(plan, "cpu").fit(folder / "one")
        drawn = random.Random(given.seed)
        campaign = Campaign(folder / "kills.plan", folder / "many", given.workers, given.kills, drawn)
        campaign.run()
        (tensors, *rest), (wanted, *wanted_rest) = outcome(campaign.folder), outcome(folder / "one")
        same = tensors.keys() == wanted.keys() and all(torch.equal(tensors[key], wanted[key]) for key in wanted)
        found = sorted(map(float, re.findall(r"recovered in ([\d.]+) s", campaign.log.read_text())))
        print(f"kills {campaign.done}; weights and optimizers the same {same}; numbers and rows {rest == wanted_rest}")
        if found:
            middle = statistics.median(found)
            print(f"{len(found)} recoveries: median {middle:.2f} s, {found[0]:.2f} to {found[-1]:.2f}")


if __name__ == "__main__":
    main()
