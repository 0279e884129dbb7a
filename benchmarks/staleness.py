"""What does it bring to let steps overlap, where processes are slow at times, and what do stale values cost?

    OMP_NUM_THREADS=1 python benchmarks/staleness.py [--steps 460] [--rounds 3]

Two processes over gloo train on digits, by BlockProp and by local losses with two replicas. In each step each process
sleeps for 30 ms with a chance of one in five, alike for all settings of `run.staleness`, which take turns. Told are the
seconds of a step without the first 20, the staleness of updates, and the test accuracy, in the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lpc
from lpc.runtime.workers.supervisor import Supervisor

SPEC = """\
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(64), relu, fc2: linear(64), relu, out: linear(10)]}
data: {source: digits, batch: 64}
loss: cross_entropy
"""
RUN = "run: {steps: STEPS, staleness: LATE, workers: 2, target: cpu, log: none, checkpoint: none, validate: noneMORE}\n"
BLOCKS = "decompose: {blocks: {b1: fc1, b2: fc2, head: out}LINKS}\n"
VARIABLES = """\
recipe:
  blockprop: {steps: 5, penalty: squared(weight=1.0), variables: sgd(lr=0.1), optimizer: adam(lr=3e-3)}
"""
LOCAL = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=3e-3)}]\n'
PLANS = {  # name -> spec without `run`, what is added to `run`
    "BlockProp": (SPEC + BLOCKS.replace("LINKS", "") + VARIABLES, ""),
    "local losses, 2 replicas": (SPEC + BLOCKS.replace("LINKS", ", links: stop") + LOCAL, ", replicas: 2"),
}
STALENESS = (0, 1, 2, 4)
CHANCE, SECONDS, FIRST = 0.2, 0.03, 20


def work(folder: Path, seed: int) -> None:
    """What each process does: it trains, and sleeps at times; the first one writes what came of it."""
    worker = lpc.join(lpc.load(folder / "it.plan"), "cpu")
    advance, draw, began = worker.advance, random.Random(2 * seed + worker.transport.rank), [0.0]

    def slowly(parts: Any) -> Any:
        if worker.steps_done == FIRST:
            began[0] = time.perf_counter()
        time.sleep(SECONDS if draw.random() < CHANCE else 0.0)
        readings = advance(parts)
        if worker.steps_done == worker.total_steps:
            readings += worker.settle()
            took.append((time.perf_counter() - began[0]) / (worker.steps_done - FIRST))
        return readings

    took: list[float] = []
    worker.advance = slowly  # type: ignore[method-assign]
    summary = worker.fit()
    found = {**summary.get("staleness", {"mean": 0.0, "largest": 0}), "accuracy": summary["test_accuracy"]}
    seconds = max(worker.transport.exchange(took[0]))
    if worker.transport.rank == 0:
        (folder / "found.json").write_text(json.dumps({**found, "seconds": seconds}))
    worker.transport.close()


def measured(text: str, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lpc.build(text).save(folder / "it.plan")
        ended = Supervisor([__file__, "--work", name, "--seed", str(seed)], 2, folder / "logs", 0).run()
        if ended.code:
            sys.exit((folder / "logs" / "rank-1.log").read_text())
        found: dict[str, float] = json.loads((folder / "found.json").read_text())
        return found


def main(steps: int, rounds: int) -> None:
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in range(rounds):
        for name, (text, more) in PLANS.items():
            for staleness in STALENESS:
                run = RUN.replace("STEPS", str(steps)).replace("LATE", str(staleness)).replace("MORE", more)
                found.setdefault((name, staleness), []).append(measured(f"{text}{run}", seed))
    print("| plan | staleness | ms a step | mean | largest | test accuracy |\n|---|---|---|---|---|---|")
    for (name, staleness), own in found.items():
        columns = ([one[key] for one in own] for key in ("seconds", "mean", "accuracy"))
        seconds, mean, accuracy = map(statistics.median, columns)
        largest = max(one["largest"] for one in own)
        print(f"| {name} | {staleness} | {1000 * seconds:.1f} | {mean:.2f} | {largest:g} | {accuracy:.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=460)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work(given.work, given.seed) if given.work else main(given.steps, given.rounds)
