"""Does the link `target` do LocoProp's arithmetic? The published steps, and a loop by hand for everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lpc

GOLDEN = Path(__file__).with_name("golden")
STEPS = sorted(p.stem for p in GOLDEN.glob("locoprop_*_T*.npz"))
TERMS = {
    "sgd": "sgd(lr=0.02)",
    "rmsprop_tf": "rmsprop(lr=1e-3, decay=0.9, momentum=0.999, eps=1e-5, flavor=tensorflow)",
}
State = dict[str, Tensor]


def built(
    layers: list[Any], loss: str, rule: dict[str, Any], link: str, shape: list[int], label: dict[str, Any]
) -> lpc.Plan:
    return lpc.build(
        {
            "network": {"inputs": {"x": {"shape": shape, "dtype": "float64"}}, "layers": layers},
            "data": None,
            "fields": {"y": label},
            "loss": loss,
            "decompose": {"blocks": "per_layer", "links": link},
            "learn": [{"blocks": "*", "reduction": "sum", **rule}],
            "run": {"dtype": "float64", "target": "cpu"},
        }
    )


def same(found: State, wanted: State, tolerance: float = 1e-12) -> None:
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0.0, atol=tolerance)


# The published steps


@pytest.mark.parametrize("name", STEPS)
def test_the_published_steps(name: str) -> None:
    """Weights after one and after three batches, as the released code and its independent twin left them."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    meta, numbers = json.loads(str(arrays["meta"])), {k: torch.from_numpy(arrays[k]) for k in arrays.files[:-1]}
    layers: list[Any] = []
    for index, (width, f) in enumerate(zip(meta["widths"][1:], meta["layer_fns"], strict=True)):
        layers += [{f"fc{index}": f"linear({width})"}, *([f] if f == "tanh" else [])]
    classes = meta["head"] == "ce"
    loss = "cross_entropy" if classes else "binary_cross_entropy(reduction=batchmean)"
    label = {"shape": [], "dtype": "int64"} if classes else {"shape": [meta["widths"][-1]], "dtype": "float64"}
    rule: dict[str, Any] = {"optimizer": TERMS[meta["optimizer"]], "steps": meta["T"]}
    rule |= {"schedule": {"inner": "linear(floor=0.25)"}} if meta["T"] > 1 else {}
    rule |= {"loss": {"S": "squared", "M": "matching"}[meta["variant"]]}
    plan = built(layers, loss, rule, f"target(step={meta['gamma']})", [meta["widths"][0]], label)
    trainer = lpc.Trainer(plan, device="cpu")
    count = len(meta["widths"]) - 1

    def weights(prefix: str) -> State:
        pairs = [(f"fc{i}", numbers[f"{prefix}_W{i}"], numbers[f"{prefix}_b{i}"]) for i in range(count)]
        return {f"{n}.weight": w.T.clone() for n, w, _ in pairs} | {f"{n}.bias": b for n, _, b in pairs}

    trainer.load_state_dict(weights("init"))
    for batch in range(3):
        y = numbers["Y"][batch]
        trainer.step({"x": numbers["X"][batch], "y": y.argmax(1) if classes else y})
        if batch in (0, 2):
            same(trainer.state_dict(), weights(f"after{batch + 1}"))


# A loop by hand


@dataclass
class Part:
    """A layer, its transfer, and what follows without parameters."""

    name: str
    layer: Callable[[Tensor, Tensor, Tensor], Tensor]
    f: Callable[[Tensor], Tensor] = lambda a: a
    after: Callable[[Tensor], Tensor] = lambda h: h


@dataclass
class Method:
    """What a hand-written step does."""

    matching: bool
    step: float = 2.0
    count: int = 4
    floor: float = 0.25
    divide: Callable[[Tensor], float] = lambda a: 1.0
    clip: tuple[float, float] | None = None
    natural: float | None = None
    make: Callable[[list[Tensor]], Any] = lambda own: torch.optim.SGD(own, lr=0.02)
    reset: bool = False
    every: int = 1

    def compared(self, part: Part) -> Callable[[Tensor], Tensor]:
        return part.f if self.matching else lambda a: a

    def way(self, g: Tensor) -> Tensor:
        if self.natural is None:
            return g
        return g @ torch.linalg.inv(len(g) * g.T @ g + self.natural * torch.eye(g.shape[1]).double())


class Hand:
    """A loop by hand: all pre-activations, gradients and targets first, then every layer on its own."""

    def __init__(self, parts: list[Part], state: State, loss: Callable[..., Tensor], method: Method) -> None:
        self.parts, self.loss, self.method, self.prox = parts, loss, method, float("inf")
        self.state = {n: t.detach().clone() for n, t in state.items()}
        self.optimizers = {p.name: method.make(self.own(p)) for p in parts}

    def own(self, part: Part) -> list[Tensor]:
        return [self.state[f"{part.name}.weight"], self.state[f"{part.name}.bias"]]

    def problems(self, batch: State) -> list[tuple[Part, Tensor, Tensor]]:
        inputs, starts, h = [], [], batch["x"]
        for part in self.parts:
            inputs.append(h.detach())
            leaves = [t.detach().requires_grad_() for t in self.own(part)]
            starts.append(part.layer(h, *leaves))
            h = part.after(part.f(starts[-1]))
        gradients = torch.autograd.grad(self.loss(h, batch["y"]), starts)
        targets = []
        for part, start, g in zip(self.parts, starts, gradients, strict=True):
            towards = self.method.compared(part)(start.detach()) - self.method.step * self.method.way(g)
            clips = self.method.clip is not None and part is not self.parts[-1]  # a linear output has no range
            targets.append(towards.clamp(*self.method.clip) if clips else towards)
        own = slice(None, None, self.method.every)
        return [(part, x[own], y[own]) for part, x, y in zip(self.parts, inputs, targets, strict=True)]

    def step(self, batch: State) -> None:
        for part, x, towards in self.problems(batch):
            if self.method.reset:
                self.optimizers[part.name] = self.method.make(self.own(part))
            optimizer, origins = self.optimizers[part.name], [t.clone() for t in self.own(part)]
            rate = optimizer.defaults["lr"]
            for k in range(self.method.count):
                leaves = [t.detach().requires_grad_() for t in self.own(part)]
                a = part.layer(x, *leaves)
                left = (self.method.compared(part)(a.detach()) - towards) / self.method.divide(a)
                found = torch.autograd.grad(a, leaves, left)
                for t, gradient, origin in zip(self.own(part), found, origins, strict=True):
                    t.grad = gradient + (t - origin) / self.prox
                optimizer.param_groups[0]["lr"] = rate * max(1 - k / self.method.count, self.method.floor)
                optimizer.step()


LAYERS: list[Any] = [{"fc0": "linear(5)"}, None, {"fc1": "linear(4)"}, None, {"fc2": "linear(3)"}]
FUNCTIONS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "relu": ("relu", torch.relu),
    "sigmoid": ("sigmoid", torch.sigmoid),
    "tanh": ("tanh", torch.tanh),
    "leaky_relu": ("leaky_relu(0.2)", lambda a: F.leaky_relu(a, 0.2)),
    "elu": ("elu", F.elu),
    "softplus": ("softplus", F.softplus),
    "hardtanh": ("hardtanh", F.hardtanh),
}
LOSSES: dict[str, tuple[str, Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    "mse": ("mse(reduction=batchmean)", lambda h, y: ((h - y) ** 2).sum() / len(h), lambda a: a),
    "bce": (
        "binary_cross_entropy(reduction=batchmean)",
        lambda h, y: F.binary_cross_entropy_with_logits(h, y, reduction="sum") / len(h),
        torch.sigmoid,
    ),
}
FLOATS = {"shape": [3], "dtype": "float64"}


def numbers(count: int = 3, shape: tuple[int, ...] = (7,), seed: int = 5) -> list[State]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "x": torch.randn(8, *shape, generator=generator, dtype=torch.float64),
            "y": torch.rand(8, 3, generator=generator, dtype=torch.float64),
        }
        for _ in range(count)
    ]


def compare(
    f: str, loss: str, rule: dict[str, Any], method: Method, link: str = "target(step=2.0)", seed: int = 5
) -> None:
    """Three batches of a multi-layer perceptron, and what `lpc verify` says of it."""
    word, function = FUNCTIONS[f]
    term, objective, output = LOSSES[loss]
    layers = [layer or word for layer in LAYERS]
    named = {"squared": False, "matching": True}
    plan = built(
        layers, term, {"loss": {v: k for k, v in named.items()}[method.matching], **rule}, link, [7], FLOATS
    )
    trainer = lpc.Trainer(plan, device="cpu")
    parts = [Part("fc0", F.linear, function), Part("fc1", F.linear, function), Part("fc2", F.linear)]

    def judged(h: Tensor, y: Tensor) -> Tensor:
        return objective(h, y)

    hand = Hand(parts, trainer.state_dict(), judged, method)
    if method.matching:
        hand.parts[2] = Part("fc2", F.linear, output)
        hand.loss = lambda h, y: objective(torch.logit(h) if output is torch.sigmoid else h, y)
    for batch in numbers(seed=seed):
        trainer.step(batch)
        hand.step(batch)
    same(trainer.state_dict(), hand.state)
    report = lpc.verify(plan)
    assert report.ok
    assert set(report.targets) == set(hand.state)


STEPS_4 = {"steps": 4, "schedule": {"inner": "linear(floor=0.25)"}}
SGD = {"optimizer": "sgd(lr=0.02)", **STEPS_4}


TRANSFERS = [(f, "mse" if f == "leaky_relu" else "bce", True) for f in FUNCTIONS]


@pytest.mark.parametrize(("f", "loss", "matching"), [*TRANSFERS, ("relu", "mse", False), ("sigmoid", "bce", False)])
def test_transfers_and_outputs(f: str, loss: str, matching: bool) -> None:
    compare(f, loss, SGD, Method(matching))


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "rmsprop of torch": (
        {"optimizer": "rmsprop(lr=1e-3, decay=0.9, momentum=0.9)", **STEPS_4},
        {"make": partial(torch.optim.RMSprop, lr=1e-3, alpha=0.9, momentum=0.9)},
        "target(step=2.0)",
    ),
    "reset": (
        {"optimizer": "adam(lr=1e-2)", "state": "reset", **STEPS_4},
        {"make": partial(torch.optim.Adam, lr=1e-2), "reset": True},
        "target(step=2.0)",
    ),
    "mean": ({**SGD, "reduction": "mean"}, {"divide": lambda a: a.numel()}, "target(step=2.0)"),
    "batchmean": ({**SGD, "reduction": "batchmean"}, {"divide": len}, "target(step=2.0)"),
    "clip": (SGD, {"clip": (-1.0, 1.0), "step": 30.0}, "target(step=30.0, range=clip)"),
    "natural": (SGD, {"natural": 0.1, "step": 0.1}, "target(step=0.1, rule=natural, damping=0.1)"),
    "every third": ({**SGD, "reduction": "batchmean"}, {"every": 3, "divide": len}, "target(step=2.0, every=3)"),
    "every third, by moments": (
        {**SGD, "reduction": "mean"},
        {"every": 3, "divide": lambda a: a.numel(), "matching": False},
        "target(step=2.0, every=3)",
    ),
    "one step": ({"optimizer": "sgd(lr=0.02)"}, {"count": 1}, "target(step=2.0)"),
}


@pytest.mark.parametrize("case", VARIANTS)
def test_variants(case: str) -> None:
    rule, more, link = VARIANTS[case]
    compare("tanh", "mse", rule, Method(**{"matching": True, **more}), link)


SOLVED = [("squared", "exact"), ("squared", "cg(5)"), ("matching", "exact")]


@pytest.mark.parametrize(("loss", "solver"), SOLVED)
def test_solutions_of_some_samples(loss: str, solver: str) -> None:
    """As the reference finds them, which is given these samples alone."""
    layers = [{"fc0": "linear(5)"}, "tanh", {"fc1": "linear(3)"}]
    rule = {"loss": loss, "solver": solver, "prox": 0.3}
    plan = built(layers, "mse", rule, "target(step=2.0, every=3)", [7], FLOATS)
    assert lpc.verify(plan).ok


def test_noise_for_whole_batches_is_not_thinned() -> None:
    layers = ["dropout(0.5)", {"fc0": "linear(5)"}, "tanh", {"fc1": "linear(3)"}]
    with pytest.raises(lpc.LpcError, match=r"0434.*draws noise for whole batches"):
        built(layers, "mse", {"loss": "matching", **SGD}, "target(step=2.0, every=3)", [7], FLOATS)


@pytest.mark.parametrize("matching", [False, True], ids=["S", "M"])
def test_convolutions_and_what_follows(matching: bool) -> None:
    """The target is for every channel and position; pooling and flattening only pass it on."""
    layers = [{"conv": "conv(2, kernel=3)"}, "tanh", "avg_pool(2)", "flatten", {"out": "linear(3)"}]
    term, objective, _ = LOSSES["mse"]
    loss = "matching" if matching else "squared"
    plan = built(layers, term, {"loss": loss, **SGD}, "target(step=2.0)", [1, 6, 6], FLOATS)
    trainer = lpc.Trainer(plan, device="cpu")
    parts = [
        Part("conv", F.conv2d, torch.tanh, lambda h: F.avg_pool2d(h, 2).flatten(1)),
        Part("out", F.linear),
    ]
    hand = Hand(parts, trainer.state_dict(), objective, Method(matching))
    for batch in numbers(shape=(1, 6, 6)):
        trainer.step(batch)
        hand.step(batch)
    same(trainer.state_dict(), hand.state)
    assert lpc.verify(plan).ok


@pytest.mark.parametrize("inputs", [7, 400])
def test_steps_by_moments_and_by_samples(inputs: int) -> None:
    """With 400 inputs and batches of 128 only the second layer's moments cost less than the samples."""
    term, objective, _ = LOSSES["mse"]
    layers = [{"fc0": "linear(5)"}, "tanh", {"fc1": "linear(3)"}]
    plan = built(layers, term, {"loss": "squared", **SGD, "prox": 3.0}, "target(step=2.0)", [inputs], FLOATS)
    where = "fc0, fc1" if inputs == 7 else "fc1"
    assert plan.data.report["notes"] == [f"steps go by the second moments of inputs, which costs less, in {where}"]
    trainer = lpc.Trainer(plan, device="cpu")
    parts = [Part("fc0", F.linear, torch.tanh), Part("fc1", F.linear)]
    hand = Hand(parts, trainer.state_dict(), objective, Method(False))
    hand.prox = 3.0
    for batch in numbers(shape=(inputs,)):
        trainer.step(batch)
        hand.step(batch)
    same(trainer.state_dict(), hand.state, 1e-11)
    assert lpc.verify(plan).ok


@settings(deadline=None, max_examples=6)
@given(
    f=st.sampled_from(sorted(FUNCTIONS)), loss=st.sampled_from(sorted(LOSSES)), matching=st.booleans(),
    count=st.integers(1, 5), step=st.floats(0.1, 20.0), seed=st.integers(0, 999),
)  # fmt: skip
def test_any_small_network(f: str, loss: str, matching: bool, count: int, step: float, seed: int) -> None:
    rule = {"optimizer": "sgd(lr=0.005)", "steps": count}
    make = partial(torch.optim.SGD, lr=0.005)
    compare(f, loss, rule, Method(matching, step, count, 1.0, make=make), f"target(step={step})", seed)
