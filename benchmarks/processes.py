"""What do two processes gain? The speed-up of a forward-only pipeline over that of two independent copies.

    OMP_NUM_THREADS=1 python benchmarks/processes.py [--workers 2] [--width 512] [--batch 256] [--steps 40]

The same processes take turns: the plan on all of them, an independent copy of the whole plan on each side by side, and
one copy alone; of copies the slowest counts. What copies reach together is what the machine has to give; a
round's figure is the share of it that the pipeline reaches. The weights must have the bits of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lpc
from lpc.runtime.trainer import Trainer
from lpc.runtime.workers.join import join
from lpc.runtime.workers.supervisor import Supervisor

BLOCKS = 8
WARM = 2  # steps before the clock starts
ROUNDS = 9
LINKS = ("stop", "gradient")


def spec(width: int, batch: int, link: str) -> dict[str, Any]:
    """Equal blocks with heads of their own; over `gradient` links only the last one has a loss."""
    layers: list[Any] = []
    for index in range(1, BLOCKS + 1):
        layers += [{f"fc{index}": f"linear({width})"}, "tanh"]
    learn: dict[str, Any] = {"blocks": "*", "optimizer": "sgd(lr=0.01)"}
    learn |= {"head": "linear(out=10)", "loss": "cross_entropy"} if link == "stop" else {}
    return {
        "network": {"inputs": {"x": [width]}, "layers": layers},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        **({"loss": "cross_entropy"} if link == "gradient" else {}),
        "decompose": {"blocks": {f"b{i}": f"fc{i}" for i in range(1, BLOCKS + 1)}, "links": link},
        "learn": [learn],
        "run": {"target": "cpu", "metrics": []},
    }


def batches(width: int, batch: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"x": torch.randn(batch, width, generator=generator), "label": torch.arange(batch) % 10} for _ in range(4)
    ]


def timed(trainer: Trainer, data: list[dict[str, Tensor]], steps: int) -> float:
    """Return the seconds of a step, from when all ranks are warm to when the last one is done."""
    for index in range(WARM):
        trainer.step(data[index % len(data)])
    trainer.transport.exchange(None)
    start = time.perf_counter()
    for index in range(steps):
        trainer.step(data[index % len(data)])
    trainer.transport.exchange(None)
    return (time.perf_counter() - start) / steps


def work(plan: lpc.Plan, folder: Path, width: int, batch: int, steps: int) -> None:
    """What each process does, by turns: its part of the plan, a copy of the whole, and rank 0 one more alone."""
    worker, copy, data = join(plan.data, "cpu"), Trainer(plan.data, "cpu"), batches(width, batch)
    one, exchange = Trainer(plan.data, "cpu"), worker.transport.exchange
    found: dict[str, Any] = {"pipeline": [], "copies": [], "one": []}
    for _ in range(ROUNDS):
        exchange(None)
        found["pipeline"].append(timed(worker, data, steps))
        found["copies"].append(max(exchange(timed(copy, data, steps))))
        if worker.transport.rank == 0:
            found["one"].append(timed(one, data, steps))
    state, own = copy.state_dict(), worker.state_dict()
    found["same"] = all(exchange(all(torch.equal(state[name], own[name]) for name in own)))
    worker.transport.close()
    (folder / f"{worker.transport.rank}.json").write_text(json.dumps(found))


def measure(plan: Path, workers: int, options: list[str]) -> dict[str, Any]:
    """Return the seconds of a step by way and round, and whether the weights were the same."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, str(Path(__file__).resolve()), *options, "--plan", str(plan), "--folder", name]
        ended = Supervisor(command, workers, Path(name) / "logs", restarts=0).run()
        if ended.code:
            raise SystemExit(ended.code)
        found: dict[str, Any] = json.loads((Path(name) / "0.json").read_text())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in {"workers": 2, "width": 512, "batch": 256, "steps": 40}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.plan is not None:
        work(lpc.load(given.plan), given.folder, given.width, given.batch, given.steps)
        return
    options = [f"--{name}={getattr(given, name)}" for name in ("width", "batch", "steps")]
    print(f"{BLOCKS} blocks of width {given.width}, batch {given.batch}, {given.workers} workers")
    print(f"load of the machine at the start {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        for link in LINKS:
            plan = Path(folder) / f"{link}.plan"
            lpc.build(spec(given.width, given.batch, link)).save(plan)
            print(describe(link, measure(plan, given.workers, options), given.workers))


def describe(link: str, found: dict[str, Any], workers: int) -> str:
    """Return the medians over rounds: milliseconds, speed-ups over one process, the share; and if bits are the same."""
    rounds = list(zip(found["one"], found["copies"], found["pipeline"], strict=True))
    middle = statistics.median
    times = "  ".join(f"{way} {1e3 * middle(found[way]):.2f} ms" for way in ("one", "copies", "pipeline"))
    ceiling = middle(workers * one / copies for one, copies, _ in rounds)
    gained = middle(one / pipeline for one, _, pipeline in rounds)
    low, share, high = statistics.quantiles((copies / pipeline / workers for _, copies, pipeline in rounds), n=4)
    speeds = f"ceiling {ceiling:.2f}  gained {gained:.2f}  share {share:.3f} (quartiles {low:.3f} {high:.3f})"
    return f"{link}: {times}  {speeds}  same bits {found['same']}"


if __name__ == "__main__":
    main()
