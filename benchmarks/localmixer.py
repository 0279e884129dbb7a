"""Which errors do the algorithms of Ren et al. 2023 reach on MNIST and CIFAR-10? Their table 3, first three columns.

    LPC_DATA=... python benchmarks/localmixer.py [--net S/1/1 M/1/16] [--only LG-BP ...] [--epochs 20] [--seed 0]
        [--device cpu] [--rows rows.jsonl] [--samples 2000]

`--samples` takes the first training and test images alone, a short run: each row then tells its curve, the readout's
error on the training batches of each tenth of the run.

With `--rows` every row is written to a file when it is done, and rows that stand there are not run again: a run that
was cut off goes on with the same command.

Errors are those of the readout after the last epoch, no choice among epochs. The released code has no settings for
MNIST; these are its defaults, but for the epochs (200 there): SGD without momentum, rate 0.1 falling linearly to 0,
weight decay 1e-4 but not on biases, batches of 100, a tenth of the rate for the readout.
An algorithm that this version of lpc does not have is skipped. One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import lpc
from lpc.runtime.journal import FILE, rows

OPTIMIZER = "sgd(lr=0.1, weight_decay=1e-4)"
HEAD = "linear(pool=patches, norm=last)"
MNIST: dict[str, Any] = {
    "source": "mnist", "root": "${LPC_DATA}", "batch": 100, "transforms": ["normalize(0.1307, 0.3081)"]
}  # fmt: skip
CIFAR: dict[str, Any] = {
    "source": "parquet", "root": "${LPC_DATA}/cifar10", "batch": 100,
    "transforms": ["flip", "normalize([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])"],
}  # fmt: skip
NOT_YET = frozenset({"0111", "0120"})  # words that this version does not know


@dataclass(frozen=True)
class Algorithm:
    """An algorithm as choices on the axes of a spec, and its test and train errors in percent in the paper, by network.

    `links` are those within the body; `detached`: the readout learns from features without a gradient. `local`: blocks
    have heads and losses of their own. `units`: these are losses of each patch and channel group.
    """

    links: str
    paper: tuple[str, str, str]
    local: bool = False
    detached: bool = False
    estimator: str | None = None
    units: bool = False
    blocks: str | None = None


WEIGHTS = "forward(perturb=weight)"
ACTIVITIES = "forward(perturb=activity, site=after_norm)"
ALGORITHMS = {
    "BP": Algorithm("gradient", ("2.66/0.00", "2.41/0.00", "33.62/0.00")),
    "L-BP": Algorithm("gradient", ("2.38/0.00", "2.16/0.00", "30.75/0.00"), local=True, detached=True),
    "LG-BP": Algorithm("stop", ("2.43/0.00", "2.81/0.00", "33.84/0.05"), local=True, detached=True),
    "FA": Algorithm("gradient", ("2.82/0.00", "2.90/0.00", "39.94/28.44"), estimator="feedback_alignment"),
    "L-FA": Algorithm("gradient", ("3.21/0.00", "2.90/0.00", "39.74/28.98"), True, True, "feedback_alignment"),
    "LG-FA": Algorithm("stop", ("3.11/0.00", "2.50/0.00", "39.73/32.32"), True, True, "feedback_alignment"),
    "DFA": Algorithm("feedback", ("3.31/0.00", "3.17/0.00", "38.80/33.69"), blocks="per_layer"),
    "FG-W": Algorithm("gradient", ("9.25/8.93", "8.56/8.64", "55.95/54.28"), estimator=WEIGHTS),
    "FG-A": Algorithm("gradient", ("3.24/1.53", "3.76/1.75", "59.72/41.29"), estimator=ACTIVITIES),
    "LG-FG-W": Algorithm("stop", ("9.25/8.93", "5.66/4.59", "52.70/51.71"), True, True, WEIGHTS, units=True),
    "LG-FG-A": Algorithm("stop", ("3.24/1.53", "2.55/0.00", "30.68/19.39"), True, True, ACTIVITIES, units=True),
}
# name -> arguments; the order is that of the errors above
NETS: dict[str, dict[str, Any]] = {
    "S/1/1": {"image": [1, 28, 28], "side": 1, "blocks": 1, "channels": 256, "groups": 1},
    "M/1/16": {"image": [1, 28, 28], "side": 1, "blocks": 1, "channels": 512, "groups": 16},
    "M/8/16": {"image": [3, 32, 32], "side": 8, "blocks": 4, "channels": 512, "groups": 16},
}
SHORT = ("S/1/1", "M/1/16")  # without `--net`


def spec(net: str, algorithm: Algorithm, epochs: int, seed: int, target: str = "cpu") -> dict[str, Any]:
    """One network under one algorithm; everything else is the same."""
    last = f"blocks.{NETS[net]['blocks'] - 1}"
    links = {**({f"{last}->readout": "stop"} if algorithm.detached else {}), "*": algorithm.links}
    units = {"units": {"patches": "auto", "groups": NETS[net]["groups"]}} if algorithm.units else {}
    body: dict[str, Any] = {"blocks": "blocks.*"}
    if algorithm.local:
        body |= {"head": HEAD, "loss": "cross_entropy"}
    if algorithm.units:
        body["aggregate"] = "replicated"
    if algorithm.estimator is not None:
        body["estimator"] = algorithm.estimator
    return {
        "network": {"zoo": "localmixer", "args": {"classes": 10, **NETS[net]}},
        "data": CIFAR if NETS[net]["image"][0] == 3 else MNIST,
        "loss": "cross_entropy",
        "decompose": {
            "blocks": algorithm.blocks or {"*": 'each("blocks.*")', "readout": "readout"}, "links": links, **units
        },
        "learn": [
            {"blocks": "*", "loss": "none", "optimizer": OPTIMIZER, "schedule": "linear"},
            *([body] if len(body) > 1 else []),
            {"params": "*.bias", "weight_decay": 0},
            {"params": "readout.*", "lr_factor": 0.1},
        ],
        "run": {"epochs": epochs, "seed": seed, "target": target, "validate": "none", "log": "none"},
    }  # fmt: skip


def available(said: dict[str, Any]) -> bool:
    """Does this version of lpc know all words of a spec? Raises LpcError for any other mistake."""
    try:
        lpc.check(said)
    except lpc.LpcError as error:
        if {d.code for d in error.diagnostics} <= NOT_YET:
            return False
        raise
    return True


@dataclass(frozen=True)
class Errors:
    """The readout's error in percent after training, in training by tenths of the run, and the seconds of training."""

    test: float
    train: float
    curve: list[float]
    seconds: float


def errors(said: dict[str, Any], device: str, samples: int | None) -> Errors:
    """Train, and return how that went."""
    trainer = trainer_of(said, device, samples)
    name = next(m for m in trainer.plan.program.metrics if m.startswith("readout") and m.endswith(".accuracy"))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(folder)
        logged = [row for row in rows(Path(folder, FILE)) if row["kind"] == "train"]
    seconds = time.perf_counter() - start
    test, train = (error(trainer.evaluate(split), name) for split in ("test", "train"))
    return Errors(test, train, curve(logged, name), seconds)


def trainer_of(said: dict[str, Any], device: str, samples: int | None) -> lpc.Trainer:
    """Return a trainer on all data, or on the first samples of each split."""
    plan = lpc.build(said)
    whole = lpc.Trainer(plan, device=device)
    if samples is None:
        return whole
    first = torch.arange(samples)
    train, test = whole.splits.train.subset(first, training=True), whole.splits.test.subset(first, training=False)
    return lpc.Trainer(plan, device=device, data=replace(whole.splits, train=train, test=test))


def error(metrics: Mapping[str, Any], name: str) -> float:
    """Return an accuracy as an error in percent."""
    return 100 * (1 - float(metrics[name]))


def curve(logged: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return the mean error of each tenth of a run."""
    size = math.ceil(len(logged) / 10)
    return [mean(error(row, name) for row in logged[at : at + size]) for at in range(0, len(logged), size)]


def row(net: str, name: str, options: argparse.Namespace) -> str:
    """Return one line of the table."""
    paper = ALGORITHMS[name].paper[list(NETS).index(net)]
    said = spec(net, ALGORITHMS[name], options.epochs, options.seed, options.device)
    if not available(said):
        return f"| {name} | not in this version | {paper} | | |"
    if options.samples is not None:
        said["run"]["log"] = "every(1)"
    found = errors(said, options.device, options.samples)
    told = f"| {name} | {found.test:.2f}/{found.train:.2f} | {paper} | {options.epochs} | {found.seconds:.0f} |"
    return told if options.samples is None else f"{told} {' '.join(f'{e:.0f}' for e in found.curve)} |"


def options_of(options: argparse.Namespace) -> tuple[str, ...]:
    """Return what tells a short run from others."""
    return () if options.samples is None else (str(options.samples),)


def done(path: Path | None) -> dict[tuple[str, ...], str]:
    """Return the rows of a file, by what they are of."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    return {tuple(held["key"]): held["row"] for held in map(json.loads, lines)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--net", nargs="*", default=list(SHORT), choices=NETS)
    parser.add_argument("--only", nargs="*", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--samples", type=int, help="take only so many images of each split")
    parser.add_argument("--rows", type=Path, help="where rows are kept, and taken from")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.machine()}, one thread; seed {options.seed}; test/train error in %")
    held = done(options.rows)
    for net in options.net:
        print(f"\n| {net} | lpc | paper | epochs | s |\n|---|---:|---:|---:|---:|")
        for name in options.only:
            key = (net, name, str(options.epochs), str(options.seed), options.device, *options_of(options))
            if key not in held:
                held[key] = row(net, name, options)
                if options.rows is not None:
                    with options.rows.open("a") as file:
                        file.write(json.dumps({"key": key, "row": held[key]}) + "\n")
            print(held[key], flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
