"""Does LocoProp equal a reference without autograd? Networks, outputs, optimizers and states at random, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lpc

Array = np.ndarray[Any, Any]
Function = Callable[[Array], Array]
WIDTHS = (7, 5, 4, 6)
STEP = 2.0


def sigmoid(a: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-a)))


def softmax(a: Array) -> Array:
    e = np.exp(a - a.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


# A transfer and its derivative; a loss on the output, its derivative by the pre-activation, and the output's transfer.
TRANSFERS: dict[str, tuple[Function, Function]] = {
    "relu": (lambda a: np.maximum(a, 0.0), lambda a: np.where(a > 0, 1.0, 0.0)),
    "sigmoid": (sigmoid, lambda a: sigmoid(a) * (1.0 - sigmoid(a))),
    "tanh": (np.tanh, lambda a: 1.0 - np.tanh(a) ** 2),
    "leaky_relu": (lambda a: np.where(a > 0, a, 0.01 * a), lambda a: np.where(a > 0, 1.0, 0.01)),
}
OUTPUTS: dict[str, tuple[str, Callable[[Array, Array], Array], Function]] = {
    "bce": ("binary_cross_entropy(reduction=batchmean)", lambda a, y: (sigmoid(a) - y) / len(a), sigmoid),
    "mse": ("mse(reduction=batchmean)", lambda a, y: 2.0 * (a - y) / len(a), lambda a: a),
    "mean": ("mse", lambda a, y: 2.0 * (a - y) / a.size, lambda a: a),
    "classes": ("cross_entropy", lambda a, y: (softmax(a) - y) / len(a), softmax),
}
RMSPROP = "rmsprop(lr=1e-3, decay=0.9, momentum=0.999, eps=1e-5"
OPTIMIZERS = {
    "sgd": "sgd(lr=0.02)",
    "momentum": "sgd(lr=0.02, momentum=0.9)",
    "tensorflow": f"{RMSPROP}, flavor=tensorflow)",
    "torch": f"{RMSPROP})",
}


@dataclass
class Stepped:
    """A tensor with what its optimizer keeps."""

    kind: str
    value: Array
    kept: dict[str, Array] = field(default_factory=dict)

    def step(self, g: Array, factor: float) -> None:
        first = np.ones_like(g) if self.kind == "tensorflow" else np.zeros_like(g)
        s, m = self.kept.get("s", first), self.kept.get("m", np.zeros_like(g))
        s = 0.9 * s + 0.1 * g**2
        if self.kind == "tensorflow":
            m = 0.999 * m + 1e-3 * factor * g / np.sqrt(s + 1e-5)
            self.value = self.value - m
        elif self.kind == "torch":
            m = 0.999 * m + g / (np.sqrt(s) + 1e-5)
            self.value = self.value - 1e-3 * factor * m
        else:
            m = (0.9 * m if self.kind == "momentum" else 0.0) + g
            self.value = self.value - 0.02 * factor * m
        self.kept = {"s": s, "m": m}


@dataclass
class ByHand:
    """All pre-activations, derivatives and targets first, then each layer on its own."""

    matching: bool
    transfer: str
    output: str
    steps: int
    reset: bool
    layers: list[tuple[Stepped, Stepped]]

    def step(self, x: Array, y: Array) -> None:
        f, slope = TRANSFERS[self.transfer]
        _, derivative, last = OUTPUTS[self.output]
        functions = [f] * (len(self.layers) - 1) + [last]
        inputs, a = [x], []
        for w, b in self.layers:
            a.append(inputs[-1] @ w.value.T + b.value)
            inputs.append(f(a[-1]))
        g = [derivative(a[-1], y)]
        for (w, _), before in zip(self.layers[:0:-1], a[-2::-1], strict=True):
            g.insert(0, (g[0] @ w.value) * slope(before))
        for layer, h, start, own, by in zip(self.layers, inputs, a, g, functions, strict=False):
            compared = by if self.matching else np.asarray
            self.solve(layer, h, compared, compared(start) - STEP * own)

    def solve(self, layer: tuple[Stepped, Stepped], h: Array, compared: Function, target: Array) -> None:
        if self.reset:
            layer[0].kept, layer[1].kept = {}, {}
        for k in range(self.steps):
            left = compared(h @ layer[0].value.T + layer[1].value) - target
            factor = max(1.0 - k / self.steps, 0.25)
            layer[0].step(left.T @ h, factor)
            layer[1].step(left.sum(0), factor)


@settings(deadline=None, max_examples=5)
@given(
    matching=st.booleans(), transfer=st.sampled_from(list(TRANSFERS)), output=st.sampled_from(list(OUTPUTS)),
    optimizer=st.sampled_from(list(OPTIMIZERS)), steps=st.integers(1, 6), reset=st.booleans(),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_any_variant(
    matching: bool, transfer: str, output: str, optimizer: str, steps: int, reset: bool, seed: int
) -> None:
    classes = output == "classes"
    label = {"shape": [], "dtype": "int64"} if classes else {"shape": [WIDTHS[-1]], "dtype": "float64"}
    layers: list[Any] = [{f"fc{i}": f"linear({width})"} for i, width in enumerate(WIDTHS[1:])]
    layers[1:1], layers[3:3] = [transfer], [transfer]
    rule = {"blocks": "*", "loss": "matching" if matching else "squared", "reduction": "sum", "steps": steps}
    rule |= {"optimizer": OPTIMIZERS[optimizer], "state": "reset" if reset else "persistent"}
    rule |= {"schedule": {"inner": "linear(floor=0.25)"}} if steps > 1 else {}
    spec = {
        "network": {"inputs": {"x": {"shape": [WIDTHS[0]], "dtype": "float64"}}, "layers": layers},
        "data": None,
        "fields": {"y": label},
        "loss": OUTPUTS[output][0],
        "decompose": {"blocks": "per_layer", "links": f"target(step={STEP})"},
        "learn": [rule],
        "run": {"dtype": "float64", "target": "cpu"},
    }
    t = lpc.Trainer(lpc.build(spec), device="cpu")
    state = {n: w.numpy().copy() for n, w in t.state_dict().items()}
    names = [f"fc{i}" for i in range(len(WIDTHS) - 1)]
    own = [(Stepped(optimizer, state[f"{n}.weight"]), Stepped(optimizer, state[f"{n}.bias"])) for n in names]
    hand, generator = ByHand(matching, transfer, output, steps, reset, own), np.random.default_rng(seed)
    for _ in range(3):
        x, y = generator.standard_normal((8, WIDTHS[0])), generator.random((8, WIDTHS[-1]))
        named = y.argmax(1)
        hand.step(x, np.eye(WIDTHS[-1])[named] if classes else y)
        t.step({"x": torch.from_numpy(x), "y": torch.from_numpy(named if classes else y)})
    for name, layer in zip(names, own, strict=True):
        for kind, stepped in zip(("weight", "bias"), layer, strict=True):
            np.testing.assert_allclose(t.state_dict()[f"{name}.{kind}"].numpy(), stepped.value, rtol=0.0, atol=1e-12)
