"""How well do nets with auxiliary variables learn? Accuracy by mini-batch on MNIST and CIFAR-10, a row for each method.

    LPC_DATA=DATA python benchmarks/variables.py [--only WORD ...] [--rows variables.jsonl]
    python benchmarks/variables.py --table --rows variables.jsonl

Each row is a line of JSON, and one that is there is not run again. `--table` prints what is there, in Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from alternating import FC, LENET
from torch import Tensor

import lpc
from lpc.runtime.data import batches

MNIST = "source: mnist, root: '${LPC_DATA}', transforms: ['normalize(0.1307, 0.3081)']"
CIFAR = (
    "source: parquet, root: '${LPC_DATA}/cifar10',"
    " transforms: ['normalize([0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616])']"
)
TENTH, TWENTIETH = f"{MNIST}, validation: 0.9", f"{CIFAR}, validation: 0.95"
BINARY = (
    "[flatten, c1: linear(500, bias=false), batch_norm, dropout(0.2), tanh, sign,"
    " c2: linear(500, bias=false), batch_norm, dropout(0.2), tanh, out: linear(10)]"
)
# Lee et al.'s discrete net; each `sign` belongs to the layer that reads it. Their step is 0.28 for each of 200 samples.
TALKING = "[flatten, c1: linear(500), t1: tanh, s1: sign, c2: linear(500), t2: tanh, out: linear(10)]"
DTP = "recipe: dtp(blocks={b1: [c1, t1], b2: [s1, c2, t2], out: out}, step=55.94, inverse=back_map(sign=true))"
ONE_HIDDEN = "[flatten, b1: linear(100), relu, b2: linear(10)]"
_CODE = "penalty=squared(weight=0.01, reduction=mean), optimizer=sgd(lr=1.0), steps=1, anchor=false, buffers=every"
LENET_CODES = (  # the experiments' own code multiplies what lower codes are solved for by 1 / mu once more
    "recipe: altmin(penalty=squared(weight=0.01, reduction=mean), codes=sgd(lr=1.0), steps=1,"
    " optimizer=adam(lr=0.002))\n"
    f"decompose: {{links: {{'c4->out': 'variable({_CODE}, divide_by_weight=true)',"
    " '*': {variable: {scale: 100.0}}}}"
)
_GROWN = _CODE.replace("weight=0.01", "weight=grow(0.01, add=1e-7, factor=1.1, unit=epoch)")
GROWING_CODES = (  # mu times 1.1 after each epoch
    "recipe: altmin(codes=sgd(lr=1.0), steps=1, optimizer=adam(lr=0.002))\n"
    f"decompose: {{links: {{'c4->out': 'variable({_GROWN}, divide_by_weight=true)',"
    f" '*': 'variable({_GROWN}, divide_by_weight=true, scale=grow(100.0, factor=0.9090909, unit=epoch))'}}}}"
)
ADMM_PLAIN = (
    "loss: hinge(reduction=sum)\nlearn: []\n"
    "decompose: {blocks: per_layer, links: split(beta=1.0, gamma=1.0, multiplier=false, init=forward)}"
)
FIRST = (10, 50, 100, 200, 300, 1500)  # batches after which the test set is judged; 1500 of 200 are 5 epochs
STEPS = 28  # parts of an image that a recurrent net reads one after another; published: its 784 pixels
WIDTH = 16  # channels of ResNet-18's first stage; published: 64


@dataclass(frozen=True)
class Row:
    """A method on a network: layers or a `zoo` mapping, data, the text that says how it learns, and when it is judged.

    `judged` is how much of the test set an accuracy is of.
    """

    network: str
    method: str
    text: str
    batch: int = 200
    data: str = MNIST
    inputs: str = "{image: [1, 28, 28]}"
    marks: Sequence[int] = FIRST
    judged: int = 10_000
    layers: str = ""

    @property
    def name(self) -> str:
        return f"{self.network}: {self.method}"

    def spec(self) -> str:
        """Return the text of the spec; the seed is 0."""
        network = self.layers if "zoo" in self.layers else f"{{inputs: {self.inputs}, layers: {self.layers}}}"
        return (
            f"network: {network}\ndata: {{{self.data}, batch: {self.batch}}}\n{self.text}\n"
            "run: {epochs: 1, target: cpu, log: none, checkpoint: none, validate: none}\n"
        )


def mnist_rows() -> Iterator[Row]:
    """Fully connected nets and LeNet-5 by the published methods' settings (section 1.7 of the poster's code)."""
    learners = {
        "AM-Adam": "recipe: altmin",
        "AM-mem": "recipe: altmin_mem",
        "Adam": "recipe: backprop(optimizer=adam(lr=0.003))",
        "SGD": "recipe: backprop(optimizer=sgd(lr=0.02))",
    }
    for width in (100, 500):
        for method, text in learners.items():
            yield Row(f"MNIST 2x{width}", method, text, layers=FC.format(w=width))
    convolutional = {
        "AM-Adam": LENET_CODES,
        "AM-Adam, without 1 / mu below": LENET_CODES.partition("decompose")[0],
        "Adam": "recipe: backprop(optimizer=adam(lr=0.002))",
        "SGD": "recipe: backprop(optimizer=sgd(lr=0.02))",
    }
    for method, text in convolutional.items():
        yield Row("MNIST LeNet-5", method, text, batch=128, layers=LENET, marks=(*FIRST[:-1], 469))
    yield Row("MNIST binary 2x500", "AM-Adam", "recipe: altmin_binary", layers=BINARY)
    yield Row("MNIST binary 2x500", "straight-through", "recipe: straight_through", layers=BINARY)
    yield Row("MNIST binary 2x500", "DTP, no batch norm", DTP, layers=TALKING)
    yield Row("MNIST binary 2x500", "straight-through, no batch norm", "recipe: straight_through", layers=TALKING)


def long_rows() -> Iterator[Row]:
    """The published numbers of epochs: 50 of the smaller fully connected net, 10 of LeNet-5; rates fall as theirs."""
    halved = '\nlearn: [{blocks: "*", schedule: {then: step(period=8, gamma=0.5), unit: epoch}}]'
    learners = {
        "AM-Adam": f"recipe: altmin{halved}",
        "SGD": "recipe: backprop(optimizer=sgd(lr=0.02))",
        "Adam": "recipe: backprop(optimizer=adam(lr=0.003))",
        "AM-mem": f"recipe: altmin_mem{halved}",
    }
    marks = (300, 1500, 3000, 7500, 15000)  # 1, 5, 10, 25 and 50 epochs
    for method, text in learners.items():
        yield Row("MNIST 2x100, long", method, text, layers=FC.format(w=100), marks=marks)
    convolutional = {
        "AM-Adam": GROWING_CODES,
        "Adam": "recipe: backprop(optimizer=adam(lr=0.002))",
        "SGD": "recipe: backprop(optimizer=sgd(lr=0.02))\nlearn: "
        '[{blocks: "*", schedule: {then: exponential(gamma=0.9), unit: epoch}}]',
    }
    marks = (469, 938, 2345, 4690)  # 1, 2, 5 and 10 epochs
    for method, text in convolutional.items():
        yield Row("MNIST LeNet-5, long", method, text, batch=128, layers=LENET, marks=marks)


def sequential_rows() -> Iterator[Row]:
    """A recurrent net over rows of an image, one after another: a code for each, or backpropagation through time."""
    net = f"{{zoo: elman, args: {{steps: {STEPS}, hidden: 15, readout: sequence}}}}"
    learners = {
        "AM-Adam": "recipe: altmin",
        "Adam": "recipe: backprop(optimizer=adam(lr=0.003))",
        "SGD": "recipe: backprop(optimizer=sgd(lr=0.02))",
    }
    for method, text in learners.items():
        unrolled = f'{text}\ndecompose: {{blocks: unroll("cell"), shared: sum}}'
        yield Row(f"MNIST in {STEPS} steps, elman 15", method, unrolled, layers=net, marks=(*FIRST[:-1], 600))


def offline_rows() -> Iterator[Row]:
    """Methods that keep the variables of all samples, a tenth of MNIST, which are one batch: marks are iterations."""
    learners = {
        "offline AM": "recipe: altmin_offline",
        "ADMM": "recipe: admm",
        "ADMM, gamma 1, no multiplier": ADMM_PLAIN,
        "BCD": "recipe: bcd",
        "MAC": "recipe: mac",
    }
    for method, text in learners.items():
        marks = (1, 5, 10) if method == "MAC" else (1, 5, 10, 20)
        net = FC.format(w=100)
        yield Row("MNIST 2x100, all samples", method, text, batch=6_000, layers=net, marks=marks, data=TENTH)


def blockprop_rows() -> Iterator[Row]:
    """BlockProp on a net with one hidden layer, by its steps and the weight of its penalty, beside SGD."""
    for steps in (1, 2, 4):
        text = f"recipe: blockprop(steps={steps}, variables=sgd(lr=0.1), optimizer=sgd(lr=0.1))"
        yield Row("MNIST 1x100", f"BlockProp, {steps} steps, weight 1", text, layers=ONE_HIDDEN)
    for weight in (0.3, 3.0):
        penalty = f"penalty=squared(weight={weight}), variables=sgd(lr=0.1), optimizer=sgd(lr=0.1)"
        text = f"recipe: blockprop(steps=4, {penalty})"
        yield Row("MNIST 1x100", f"BlockProp, 4 steps, weight {weight}", text, layers=ONE_HIDDEN)
    yield Row("MNIST 1x100", "SGD", "recipe: backprop(optimizer=sgd(lr=0.1))", layers=ONE_HIDDEN)


def residual_rows() -> Iterator[Row]:
    """ResNet-18 in two blocks of 9 layers, narrow, on 2,500 images: solved at every visit or every fifth, and SGD."""
    net = f"{{zoo: resnet18, args: {{width: {WIDTH}}}}}"
    marks, sized = (39, 78, 117), {"batch": 64, "judged": 1000, "data": TWENTIETH, "layers": net}
    blocks = "blocks={b1: [conv1, bn1, layer1, layer2], b2: [layer3, layer4, fc]}"
    learn = "variables=sgd(lr=0.5), optimizer=sgd(lr=0.1)"
    name = f"CIFAR-10 ResNet-18/{WIDTH}"
    yield Row(name, "BlockProp, 1 step", f"recipe: blockprop({blocks}, {learn})", marks=marks, **sized)
    cached = f"recipe: blockprop_cached({blocks}, {learn}, refresh=5)"
    yield Row(name, "BlockProp, cached, every 5th visit", cached, marks=marks, **sized)
    yield Row(name, "SGD", f"recipe: backprop({blocks}, optimizer=sgd(lr=0.1))", marks=marks, **sized)


def rows() -> list[Row]:
    """Return all rows, in the order in which they are run."""
    return [*mnist_rows(), *long_rows(), *sequential_rows(), *offline_rows(), *blockprop_rows(), *residual_rows()]


def run(row: Row, steps: int | None = None) -> dict[str, Any]:
    """Train by a row and return its accuracies by mark, the median time of a step and the bytes between blocks."""
    plan = lpc.build(row.spec())
    trainer, cost = lpc.Trainer(plan, device="cpu"), plan.cost(row.batch)
    marks = [mark for mark in row.marks if steps is None or mark <= steps] or [steps or 1]
    found: dict[str, float] = {}
    times: list[float] = []
    for batch in stream(trainer):
        start = time.process_time()
        trainer.step(batch)
        times.append(time.process_time() - start)
        if len(times) in marks:
            found[str(len(times))] = judged(trainer, row.judged)
        if len(times) == marks[-1]:
            break
    step = 1e3 * statistics.median(times)
    return {"row": row.name, "accuracy": found, "step_ms": step, "flops": cost.flops, "traffic": cost.traffic}


def stream(trainer: lpc.Trainer) -> Iterator[dict[str, Tensor]]:
    """Batches of one epoch after another, as a run takes them."""
    for epoch in count():
        yield from batches(
            trainer.splits.train, trainer.batch_size, seed=trainer.spec.run.seed, epoch=epoch, shuffle=True,
            device=trainer.device,
        )  # fmt: skip


def judged(trainer: lpc.Trainer, samples: int) -> float:
    """Return the accuracy on the first samples of the test set."""
    split = trainer.splits.test
    assert split is not None
    chosen = torch.arange(min(samples, len(split))).split(1000)
    found = trainer.evaluate(split[part] for part in chosen)
    return next(value for name, value in found.items() if name.endswith("accuracy"))


def known(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows that are there, by name."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {found["row"]: found for found in map(json.loads, lines)}


def tables(path: Path) -> str:
    """Return a table for each network of what is there."""
    there, text = known(path), []
    for network in dict.fromkeys(row.network for row in rows()):
        own = [row for row in rows() if row.network == network and row.name in there]
        if not own:
            continue
        marks = list(dict.fromkeys(m for row in own for m in there[row.name]["accuracy"]))
        text.append(f"| {network} | {' | '.join(marks)} | step ms | MFLOP | sent kB |")
        text.append(f"|---|{'---:|' * (len(marks) + 3)}")
        for row in own:
            got = there[row.name]
            cells = [f"{got['accuracy'][m]:.3f}".lstrip("0") if m in got["accuracy"] else "" for m in marks]
            cells += [f"{got['step_ms']:.1f}", f"{got['flops'] / 1e6:.0f}", f"{got['traffic'] / 1e3:.0f}"]
            text.append(f"| {row.method} | {' | '.join(cells)} |")
        text.append("")
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows that are not there yet, or print what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], help="rows whose names hold one of these")
    parser.add_argument("--rows", type=Path, default=Path("variables.jsonl"))
    parser.add_argument("--steps", type=int, help="at most so many batches")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(arguments)
    if not given.table:
        torch.set_num_threads(1)
        for row in rows():
            if any(word in row.name for word in given.only) and row.name not in known(given.rows):
                found = run(row, given.steps)
                with given.rows.open("a") as file:
                    file.write(json.dumps(found) + "\n")
    print(tables(given.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
