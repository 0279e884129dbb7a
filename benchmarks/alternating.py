"""How long is a step with auxiliary variables? Against a loop by hand.

    python benchmarks/alternating.py [--repeats 30]

The loop is the same arithmetic in plain PyTorch: `autograd.grad` by each variable, torch.optim for variables (fresh in
each step) and weights (fused). Both sides run in one process, by turns; the figure is the median of the ratios of
neighbours, in processor time. Before timing, both must compute the same weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lpc

FC = "[flatten, c1: linear({w}, bias=false), relu, c2: linear({w}, bias=false), relu, out: linear(10)]"
LENET = (
    "[c1: conv(6, 5), relu, max_pool(2), c2: conv(16, 5), relu, max_pool(2), flatten, c3: linear(120), relu,"
    " c4: linear(84), relu, out: linear(10)]"
)
BATCH = 200


@dataclass(frozen=True)
class Case:
    """A network with its method: blocks by hand, the recipe, and what the loop needs of it."""

    name: str
    layers: str
    recipe: str
    steps: int
    codes: bool  # alternating minimisation; else BlockProp


CASES = (
    Case("altmin 2x100", FC.format(w=100), "altmin", 5, True),
    Case("altmin 2x500", FC.format(w=500), "altmin", 5, True),
    Case("altmin LeNet-5", LENET, "altmin", 5, True),
    Case("blockprop 2x100, 1 step", FC.format(w=100), "blockprop(steps=1)", 1, False),
    Case("blockprop 2x500, 4 steps", FC.format(w=500), "blockprop(steps=4)", 4, False),
    Case("blockprop LeNet-5, 1 step", LENET, "blockprop(steps=1)", 1, False),
)
LIMITS = {"2x": 0.8, "Le": 0.95}


def spec(case: Case) -> str:
    """Return the text of a spec without data."""
    return (
        f"network: {{inputs: {{image: [1, 28, 28]}}, layers: {case.layers}}}\ndata: none\n"
        "fields: {label: {shape: [], dtype: int64}}\n"
        f"recipe: {case.recipe}\nrun: {{epochs: 1, target: cpu, metrics: []}}\n"
    )


def modules(case: Case) -> list[nn.Sequential]:
    """Return the blocks by hand."""
    if "conv" not in case.layers:
        width = int(case.layers.partition("linear(")[2].partition(",")[0])
        first = [nn.Flatten(), nn.Linear(784, width, bias=False)]
        parts: list[list[nn.Module]] = [first, [nn.ReLU(), nn.Linear(width, width, bias=False)]]
        parts.append([nn.ReLU(), nn.Linear(width, 10)])
    else:
        pool = [nn.ReLU(), nn.MaxPool2d(2)]
        parts = [[nn.Conv2d(1, 6, 5)], [*pool, nn.Conv2d(6, 16, 5)], [*pool, nn.Flatten(), nn.Linear(256, 120)]]
        parts += [[nn.ReLU(), nn.Linear(120, 84)], [nn.ReLU(), nn.Linear(84, 10)]]
    if not case.codes:  # cut after the activation
        for before, after in pairwise(parts):
            moved = [m for m in after if isinstance(m, nn.ReLU | nn.MaxPool2d | nn.Flatten)]
            before += moved
            after[:] = [m for m in after if m not in moved]
    return [nn.Sequential(*part) for part in parts]


class Loop:
    """One step by hand."""

    def __init__(self, case: Case, blocks: list[nn.Sequential]) -> None:
        self.case, self.blocks = case, blocks
        kind: Callable[..., Any] = torch.optim.Adam if case.codes else torch.optim.SGD
        self.optimizers = [kind(b.parameters(), lr=0.008 if case.codes else 0.1, fused=True) for b in blocks]

    def fresh(self, code: Tensor) -> torch.optim.Optimizer:
        if self.case.codes:
            return torch.optim.SGD([code], lr=0.3, momentum=0.9, nesterov=True)
        return torch.optim.SGD([code], lr=0.01)

    def slope_terms(self, index: int, code: Tensor, label: Tensor, codes: list[Tensor]) -> Tensor:
        made = self.blocks[index](code)
        if index == len(self.blocks) - 1:
            return F.cross_entropy(made, label) / 0.003 if self.case.codes else F.cross_entropy(made, label) * len(made)
        target = codes[index]
        return F.mse_loss(made, target) if self.case.codes else F.mse_loss(made, target, reduction="sum")

    def step(self, image: Tensor, label: Tensor) -> None:
        codes: list[Tensor] = []
        with torch.no_grad():
            value = image
            for block in self.blocks[:-1]:
                value = block(value)
                codes.append(value)
        for index in range(len(codes) - 1, -1, -1):
            made, code = codes[index], codes[index].clone().requires_grad_()
            optimizer = self.fresh(code)
            for turn in range(self.case.steps):
                total = self.slope_terms(index + 1, code, label, codes)
                if turn and not self.case.codes:
                    total = total + F.mse_loss(code, made, reduction="sum")
                (code.grad,) = torch.autograd.grad(total, [code])
                optimizer.step()
            codes[index] = code.detach()
        for index, (block, optimizer) in enumerate(zip(self.blocks, self.optimizers, strict=True)):
            out = block(image if index == 0 else codes[index - 1])
            if index == len(codes):
                loss = F.cross_entropy(out, label)
            elif self.case.codes:
                loss = F.mse_loss(out, codes[index])
            else:
                loss = F.mse_loss(out, codes[index], reduction="sum") / len(out)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def timed(case: Case, repeats: int) -> tuple[float, float, float]:
    """Return the plan's time, the loop's, and the median of their ratios."""
    torch.manual_seed(0)
    image, label = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    trainer = lpc.Trainer(lpc.build(spec(case)), device="cpu")
    blocks = modules(case)
    names = list(trainer.state_dict())
    own = [p for b in blocks for p in b.parameters()]
    with torch.no_grad():
        for name, parameter in zip(names, own, strict=True):
            parameter.copy_(trainer.state_dict()[name])
    loop, batch = Loop(case, blocks), {"image": image, "label": label}
    for _ in range(2):
        trainer.step(batch)
        loop.step(image, label)
    for name, parameter in zip(names, own, strict=True):
        torch.testing.assert_close(trainer.state_dict()[name], parameter.detach(), rtol=1e-3, atol=1e-5)
    sides: tuple[Callable[[], Any], ...] = (lambda: trainer.step(batch), lambda: loop.step(image, label))
    times: list[list[float]] = [[], []]
    for turn in range(repeats):
        for side in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            sides[side]()
            times[side].append(time.process_time() - start)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), statistics.median(ratios)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| step | plan ms | loop ms | plan / loop | limit |\n|---|---|---|---|---|")
    for case in CASES:
        plan, loop, ratio = timed(case, given.repeats)
        limit = next(value for key, value in LIMITS.items() if key in case.name)
        print(f"| {case.name} | {1e3 * plan:.2f} | {1e3 * loop:.2f} | {ratio:.2f} | {limit} |", flush=True)


if __name__ == "__main__":
    main()
