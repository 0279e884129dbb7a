"""What does a LocoProp step cost? On the deep autoencoder, against backpropagation and a plain loop of the same."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

import lpc

WIDTHS = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
CODE = 3  # the layer without an activation before the output's
STEPS, STEP, RATE = 10, 10.0, 1e-5


def spec(variant: str, size: int) -> str:
    return f"""\
network: {{zoo: autoencoder}}
data: {{source: "curves(train={size}, test={size})", batch: {size}}}
loss: binary_cross_entropy(target=image, reduction=batchmean)
recipe: locoprop(variant={variant})
run: {{epochs: 1, target: cpu}}
"""


class Plain:
    """The same arithmetic as one would write it: all gradients by autograd, then a loop a layer."""

    def __init__(self, matching: bool, state: dict[str, Tensor]) -> None:
        self.matching = matching
        layers = range(1, len(WIDTHS))
        self.weights = [state[f"fc{i}.weight"].detach().clone() for i in layers]
        self.biases = [state[f"fc{i}.bias"].detach().clone() for i in layers]
        self.squares = [torch.ones_like(t) for t in (*self.weights, *self.biases)]
        self.moments = [torch.zeros_like(t) for t in (*self.weights, *self.biases)]

    def transfer(self, layer: int, a: Tensor) -> Tensor:
        last = len(self.weights) - 1
        return torch.sigmoid(a) if layer == last else a if layer == CODE else torch.tanh(a)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        inputs, starts, h = [], [], x
        for layer, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            inputs.append(h)
            starts.append(F.linear(h, w, b))
            h = starts[-1] if layer == len(self.weights) - 1 else self.transfer(layer, starts[-1])
        return inputs, starts, F.binary_cross_entropy_with_logits(h, x, reduction="sum") / len(x)

    def backprop(self, x: Tensor) -> None:
        """A forward and a backward pass for all weights."""
        leaves = [*self.weights, *self.biases]
        for t in leaves:
            t.requires_grad_()
        torch.autograd.grad(self.forward(x)[2], leaves)
        for t in leaves:
            t.requires_grad_(False)

    def step(self, x: Tensor) -> None:
        for b in self.biases:
            b.requires_grad_()
        inputs, starts, loss = self.forward(x)
        gradients = torch.autograd.grad(loss, starts)
        for b in self.biases:
            b.requires_grad_(False)
        for layer, (h, a, g) in enumerate(zip(inputs, starts, gradients, strict=True)):
            h, a = h.detach(), a.detach()
            target = (self.transfer(layer, a) if self.matching else a) - STEP * g
            for k in range(STEPS):
                self.inner(layer, h, target, RATE * max(1 - k / STEPS, 0.25))

    def inner(self, layer: int, h: Tensor, target: Tensor, rate: float) -> None:
        a = F.linear(h, self.weights[layer], self.biases[layer])
        left = (self.transfer(layer, a) if self.matching else a) - target
        count = len(self.weights)
        for index, t, g in (
            (layer, self.weights[layer], left.t() @ h),
            (count + layer, self.biases[layer], left.sum(0)),
        ):
            self.squares[index].mul_(0.9).addcmul_(g, g, value=0.1)
            self.moments[index].mul_(0.999).addcdiv_(g, (self.squares[index] + 1e-5).sqrt_(), value=rate)
            t.sub_(self.moments[index])


def products(x: Tensor) -> Callable[[], None]:
    """The matrix products of one forward and backward pass alone: what nothing can go below."""
    shapes = list(pairwise(WIDTHS))
    held = [(torch.randn(len(x), a), torch.randn(a, b), torch.randn(len(x), b)) for a, b in shapes]

    def multiply() -> None:
        for h, w, g in held:
            torch.mm(h, w)
            torch.mm(h.t(), g)
            torch.mm(g, w.t())

    return multiply


def difference(plain: Plain, state: dict[str, Tensor]) -> float:
    """The largest difference of the weights, relative to a tensor's largest."""
    pairs = [(w, state[f"fc{i}.weight"]) for i, w in enumerate(plain.weights, 1)]
    pairs += [(b, state[f"fc{i}.bias"]) for i, b in enumerate(plain.biases, 1)]
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)


def rivals(variant: str, size: int) -> tuple[lpc.Trainer, Plain]:
    """A plan and a plain loop with the same weights."""
    trainer = lpc.Trainer(lpc.build(spec(variant, size)), device="cpu")
    return trainer, Plain(variant == "m", trainer.state_dict())


def measured(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of processor time of each way, taken in turn: other work on the machine moves these less."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def _stepped(trainer: lpc.Trainer, batch: dict[str, Tensor]) -> None:
    trainer.step(batch)


def main() -> None:
    """Print the seconds of each way, and the ratios that are promised."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--batch", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=7)
    given = arguments.parse_args()
    x = torch.rand(given.batch, 784)
    batch = {"image": x.reshape(-1, 1, 28, 28)}
    both = {v: rivals(v, given.batch) for v in "sm"}
    trainers, plain = ({v: pair[i] for v, pair in both.items()} for i in (0, 1))
    ways: dict[str, Callable[[], None]] = {
        "products of backprop": products(x),
        "backprop": lambda: plain["s"].backprop(x),
        "plain S": lambda: plain["s"].step(x),
        "plan S": lambda: _stepped(trainers["s"], batch),
        "plain M": lambda: plain["m"].step(x),
        "plan M": lambda: _stepped(trainers["m"], batch),
    }
    found = measured(ways, given.rounds)
    for v in "sm":
        apart = difference(plain[v], trainers[v].state_dict())
        print(f"{v.upper()}: after {given.rounds + 1} steps the weights differ by {apart:.1e}")
    for name, taken in found.items():
        print(f"{name:22} {1000 * taken:8.1f} ms   {taken / found['backprop']:5.2f} x backprop")
    floor = (2 * STEPS + 1) / 3 * found["backprop"]
    print(f"S: {found['plan S'] / found['plain S']:.2f} x plain; M: {found['plan M'] / found['plain M']:.2f} x plain,")
    print(f"   {found['plan M'] / floor:.2f} x (2T + 1) / 3 backprops")


if __name__ == "__main__":
    main()
