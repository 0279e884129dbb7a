"""Does LocoProp train the deep autoencoder faster than first-order methods? Cross-entropy by epoch and by seconds."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lpc
from lpc.runtime.data import batches

LAYERS = "schedule: {warmup: WARM, then: linear, unit: epoch}"
# Each baseline is tried at every rate of its grid, for the same epochs; the best last cross-entropy is kept.
BASELINES: dict[str, tuple[str, tuple[float, ...]]] = {
    "sgd": ("sgd(lr=RATE)", (0.01, 0.03, 0.1)),
    "momentum": ("sgd(lr=RATE, momentum=0.9)", (0.001, 0.003, 0.01)),
    "adagrad": ("adagrad(lr=RATE)", (0.003, 0.01, 0.03)),
    "rmsprop": ("rmsprop(lr=RATE, decay=0.9, momentum=0.9)", (1e-5, 3e-5, 1e-4)),
    "adam": ("adam(lr=RATE)", (3e-4, 1e-3, 3e-3)),
    "shampoo": ('module("pytorch_optimizer:ScalableShampoo", lr=RATE)', (1e-3, 1e-2)),
    "soap": ('module("pytorch_optimizer:SOAP", lr=RATE)', (1e-3, 3e-3)),
}
PROXIMAL: dict[str, tuple[str, tuple[float, ...]]] = {"foof": ("foof(prox=0.01, outer=sgd(lr=RATE))", (0.3, 1.0))}
TARGETS: dict[str, str] = {"locoprop_m": "locoprop(variant=m)", "locoprop_s": "locoprop(variant=s)"}


def specs(method: str, data: str, epochs: int, warm: int, size: float) -> list[tuple[str, str]]:
    """Return the specs of a method, one for each rate of its grid, by what sets them apart."""
    schedule = LAYERS.replace("WARM", str(warm))
    inner = schedule.replace("unit: epoch}", "unit: epoch, inner: linear(floor=0.25)}")
    common = f"""\
network: {{zoo: autoencoder, args: {{size: {size}}}}}
data: {{{data}, batch: 1000}}
loss: binary_cross_entropy(target=image, reduction=batchmean)
run: {{epochs: {epochs}, log: none, checkpoint: none, validate: none}}
"""
    if method in TARGETS:
        return [("published", f'{common}recipe: {TARGETS[method]}\nlearn: [{{blocks: "*", {inner}}}]\n')]
    if method in PROXIMAL:
        recipe, rates = PROXIMAL[method]
        return [(f"{r:g}", f"{common}recipe: {recipe.replace('RATE', repr(r))}\n") for r in rates]
    term, rates = BASELINES[method]
    tail = "decompose: {{blocks: per_layer, links: gradient}}\nlearn: [{{blocks: '*', optimizer: {}, {}}}]\n"
    return [(f"{r:g}", common + tail.format(json.dumps(term.replace("RATE", repr(r))), schedule)) for r in rates]


def trained(text: str, epochs: int) -> list[tuple[float, float]]:
    """Return (seconds of training, cross-entropy on the training data) after each epoch."""
    trainer = lpc.Trainer(lpc.build(text), device="auto")
    found, spent = [], 0.0
    for epoch in range(epochs):
        start = time.perf_counter()
        for batch in epoch_batches(trainer, epoch):
            trainer.step(batch)
        spent += time.perf_counter() - start
        found.append((spent, next(iter(trainer.evaluate("train").values()))))
    return found


def epoch_batches(trainer: lpc.Trainer, epoch: int) -> Iterable[Any]:
    """The batches of one epoch, as a run takes them."""
    spec = trainer.spec
    return batches(
        trainer.splits.train, spec.batch_size, seed=spec.run.seed, epoch=epoch, shuffle=True, device=trainer.device
    )


def main() -> None:
    """Train every method and write what it reached, a line each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    every = [*TARGETS, *PROXIMAL, *BASELINES]
    arguments.add_argument("--methods", default=",".join(every))
    arguments.add_argument("--data", default='source: mnist, root: "${LPC_DATA}"')
    arguments.add_argument("--epochs", type=int, default=12)
    arguments.add_argument("--of", type=int, default=99, help="epochs of the whole schedule, as published")
    arguments.add_argument("--warmup", type=int, default=5)
    arguments.add_argument("--size", type=float, default=1.0, help="factor on the inner widths")
    arguments.add_argument("--out", type=Path, default=Path("locoprop.jsonl"))
    given = arguments.parse_args()
    for method in given.methods.split(","):
        for setting, text in specs(method, given.data, given.of, given.warmup, given.size):
            curve = trained(text, given.epochs)
            with given.out.open("a") as file:
                file.write(json.dumps({"method": method, "setting": setting, "curve": curve}) + "\n")
            shown = " ".join(f"{loss:.2f}" for _, loss in curve)
            print(f"{method:12} {setting:10} {shown}  {curve[-1][0]:.0f} s")


if __name__ == "__main__":
    main()
