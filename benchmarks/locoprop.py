"""Does LocoProp train the deep autoencoder faster than other optimizers? Cross-entropy by epoch and by seconds."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from chart import chart

import lpc
from lpc.runtime.data import batches

HERE = Path(__file__).parent
SCHEDULE = "schedule: {warmup: WARM, then: linear, unit: epoch}"
SCREENING = "schedule: {warmup: 10, then: constant, unit: step}"
SOURCES = {
    "mnist": 'source: mnist, root: "${LPC_DATA}"',
    "curves": "source: curves(train=20000, test=1000)",
}
# Optimizers of backpropagation with the options of their grids, written out.
BASELINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "SGD": ("sgd(OPTIONS)", ("lr=0.01", "lr=0.03", "lr=0.1")),
    "momentum": ("sgd(OPTIONS, momentum=0.9)", ("lr=0.003", "lr=0.01", "lr=0.03")),
    "AdaGrad": ("adagrad(OPTIONS)", ("lr=0.003", "lr=0.01", "lr=0.03")),
    "RMSProp": ("rmsprop(OPTIONS, decay=0.9, momentum=0.9)", ("lr=3e-5", "lr=1e-4", "lr=3e-4")),
    "Adam": ("adam(OPTIONS)", ("lr=3e-4", "lr=1e-3", "lr=3e-3")),
    "Shampoo": (
        'module("pytorch_optimizer:ScalableShampoo", OPTIONS, preconditioning_compute_steps=20, graft_type=2)',
        ("lr=1e-3", "lr=3e-3", "lr=1e-2"),
    ),
    "K-FAC": ("kfac(OPTIONS, lr=1, trust=1, interval=5)", ("damping=0.3", "damping=1", "damping=3")),
}
TARGETS: dict[str, str] = {"LocoProp-M": "locoprop(variant=m)", "LocoProp-S": "locoprop(variant=s)"}
PUBLISHED = "published"


def settings(method: str) -> tuple[str, ...]:
    """Return what the runs of a method differ in."""
    return (PUBLISHED,) if method in TARGETS else BASELINES[method][1]


def spec(method: str, setting: str, given: argparse.Namespace, screens: bool = False) -> str:
    """Return a run's spec; that of a short one that `screens` has its full rate from the tenth step on."""
    schedule = SCREENING if screens else SCHEDULE.replace("WARM", str(given.warmup))
    common = f"""\
network: {{zoo: autoencoder, args: {{size: {given.size}}}}}
data: {{{SOURCES[given.data]}, batch: {given.batch}}}
loss: binary_cross_entropy(target=image, reduction=batchmean)
run: {{epochs: {given.of}, log: none, checkpoint: none, validate: none}}
"""
    if method in TARGETS:
        inner = schedule.replace("unit: epoch}", "unit: epoch, inner: linear(floor=0.25)}")
        return f'{common}recipe: {TARGETS[method]}\nlearn: [{{blocks: "*", {inner}}}]\n'
    optimizer = json.dumps(BASELINES[method][0].replace("OPTIONS", setting))
    learn = f"learn: [{{blocks: '*', optimizer: {optimizer}, {schedule}}}]\n"
    return f"{common}decompose: {{blocks: per_layer, links: gradient}}\n{learn}"


def screened(text: str, steps: int) -> float:
    """Return the mean loss of the last ten of some first steps; infinity where there are no numbers any more."""
    trainer = lpc.Trainer(lpc.build(text), device="auto")
    losses: list[float] = []
    try:
        for batch in islice(_batches(trainer, 0), steps):
            losses.append(float(next(iter(trainer.step(batch).values()))))
    except lpc.LpcError:
        return math.inf
    found = sum(losses[-10:]) / len(losses[-10:])
    return found if math.isfinite(found) else math.inf


def trained(text: str, epochs: int) -> Iterator[tuple[float, float, float]]:
    """Yield seconds of training, of processor time, and the cross-entropy on the training data, after each epoch."""
    trainer = lpc.Trainer(lpc.build(text), device="auto")
    wall = processor = 0.0
    for epoch in range(epochs):
        start, began = time.perf_counter(), time.process_time()
        for batch in _batches(trainer, epoch):
            trainer.step(batch)
        wall, processor = wall + time.perf_counter() - start, processor + time.process_time() - began
        yield wall, processor, next(iter(trainer.evaluate("train").values()))


def _batches(trainer: lpc.Trainer, epoch: int) -> Iterator[Any]:
    """The batches of one epoch, as a run takes them."""
    spec, train = trainer.spec, trainer.splits.train
    yield from batches(train, spec.batch_size, seed=spec.run.seed, epoch=epoch, shuffle=True, device=trainer.device)


class Runs:
    """Rows of all runs so far, by what was run; a file has one JSON line for each epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: dict[tuple[str, str, str, int], dict[str, Any]] = {}
        for row in map(json.loads, lines):
            self.rows[row["data"], row["method"], row["setting"], row["epoch"]] = row

    def add(self, row: dict[str, Any]) -> None:
        self.rows[row["data"], row["method"], row["setting"], row["epoch"]] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row["data"], row["method"], row["setting"], row["epoch"], f"{row['loss']:.2f}", flush=True)

    def curve(self, data: str, method: str, setting: str) -> list[dict[str, Any]]:
        """Return a run's rows in order, as far as they go without a gap."""
        found: list[dict[str, Any]] = []
        while (data, method, setting, len(found) + 1) in self.rows:
            found.append(self.rows[data, method, setting, len(found) + 1])
        return found

    def best(self, data: str, method: str) -> str:
        """Return the setting that was best in its first steps; those have the number 0 of an epoch."""
        screened = {s: self.rows.get((data, method, s, 0), {}).get("loss") for s in settings(method)}
        return min(screened, key=lambda s: math.inf if screened[s] is None else screened[s])


def screen(method: str, runs: Runs, given: argparse.Namespace) -> None:
    """Take a few steps with every setting of a grid."""
    for setting in settings(method) if method in BASELINES else ():
        if (given.data, method, setting, 0) not in runs.rows:
            loss = screened(spec(method, setting, given, screens=True), given.screen)
            runs.add({"data": given.data, "method": method, "setting": setting, "epoch": 0, "loss": loss})


def train(method: str, runs: Runs, given: argparse.Namespace) -> None:
    """Train with the best setting; what is known is not run again."""
    best = runs.best(given.data, method)
    if len(runs.curve(given.data, method, best)) >= given.epochs:
        return
    for epoch, (wall, processor, loss) in enumerate(trained(spec(method, best, given), given.epochs), 1):
        row = {"data": given.data, "method": method, "setting": best, "epoch": epoch}
        runs.add({**row, "wall": round(wall, 2), "processor": round(processor, 2), "loss": loss})


def draw(data: str, runs: Runs, into: Path, limits: tuple[float, float]) -> None:
    """Draw the best run of each method by epoch and by processor time."""
    best = {m: runs.curve(data, m, runs.best(data, m)) for m in (*TARGETS, *BASELINES)}
    for unit, across in (("epoch", "epoch"), ("processor", "seconds of processor time in training, one thread")):
        curves: Mapping[str, list[tuple[float, float]]] = {
            method: [(row[unit], row["loss"]) for row in rows] for method, rows in best.items()
        }
        title = f"Deep autoencoder, {data}: cross-entropy on the training data"
        (into / f"locoprop_{data}_{unit}.svg").write_text(chart(curves, title, across, "cross-entropy", limits))


def table(data: str, runs: Runs) -> Iterator[str]:
    """Yield a row for each method: its best setting, losses by epoch, seconds of processor time."""
    for method in (*TARGETS, *BASELINES):
        setting = runs.best(data, method)
        if rows := runs.curve(data, method, setting):
            shown = " | ".join(f"{row['loss']:.2f}" for row in rows)
            yield f"| {method} | {setting} | {shown} | {rows[-1]['processor']:.0f} s |"


def main() -> None:
    """Train every method, draw the curves and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--methods", default=",".join([*TARGETS, *BASELINES]))
    arguments.add_argument("--data", choices=SOURCES, default="mnist")
    arguments.add_argument("--epochs", type=int, default=12)
    arguments.add_argument("--screen", type=int, default=40, help="steps by which the best of a grid is chosen")
    arguments.add_argument("--of", type=int, default=99, help="epochs of the whole schedule, as published")
    arguments.add_argument("--warmup", type=int, default=5)
    arguments.add_argument("--size", type=float, default=1.0, help="factor on the inner widths")
    arguments.add_argument("--batch", type=int, default=1000)
    arguments.add_argument("--out", type=Path, default=HERE / "locoprop.jsonl")
    arguments.add_argument("--draw", type=float, nargs=2, metavar=("LOW", "HIGH"), help="limits of the pictures")
    given = arguments.parse_args()
    runs = Runs(given.out)
    methods = given.methods.split(",")
    for method in methods:
        screen(method, runs, given)
    for method in methods:
        train(method, runs, given)
    if given.draw:
        draw(given.data, runs, given.out.parent, tuple(given.draw))
    print("\n".join(table(given.data, runs)))


if __name__ == "__main__":
    main()
