"""Does a variable's optimizer remember what it should, and of whom? Loops by hand: places in the batch, and samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lpc
from lpc.runtime import checkpoint
from lpc.runtime.checkpoint import Progress

RATE, STEPS, MOMENTUM = 0.1, 2, 0.8
WEIGHTS = {"b1->b2": 0.7, "b2->b3": 1.3}
SPEC = """
network: {inputs: {x: [4]}, layers: [f1: linear(5), t1: tanh, f2: linear(4), t2: tanh, f3: linear(3)]}
data: none
fields: {y: {shape: [], dtype: int64}}
loss: cross_entropy
decompose:
  blocks: {b1: [f1, t1], b2: [f2, t2], b3: f3}
  links:
    "b1->b2": variable(penalty=squared(weight=0.7), LINK)
    "b2->b3": variable(penalty=squared(weight=1.3), LINK)
learn: [{blocks: "*", optimizer: sgd(lr=0.3)}]
run: {dtype: float64, epochs: 1}
"""


@cache
def build(optimizer: str, more: str = "") -> lpc.Plan:
    return lpc.build(SPEC.replace("LINK", f"optimizer={optimizer}, steps={STEPS}, state=persistent{more}"))


def batch(step: int, size: int = 6, first: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return {"x": x, "y": torch.randint(0, 3, (size,), generator=generator), "index": torch.arange(first, first + size)}


Objective = Callable[[Tensor], Tensor]
Solver = Callable[[str, Tensor, Objective, Tensor], Tensor]


class OneObject:
    """An object of torch.optim for each variable, which is never made anew; all batches have one size."""

    def __init__(self, kind: Callable[..., torch.optim.Optimizer]) -> None:
        self.kind = kind
        self.known: dict[str, tuple[nn.Parameter, torch.optim.Optimizer]] = {}

    def __call__(self, name: str, start: Tensor, objective: Objective, rows: Tensor) -> Tensor:
        if name not in self.known:
            leaf = nn.Parameter(torch.empty_like(start))
            self.known[name] = leaf, self.kind([leaf])
        leaf, optimizer = self.known[name]
        leaf.data.copy_(start)
        for _ in range(STEPS):
            (leaf.grad,) = torch.autograd.grad(objective(leaf), leaf)
            optimizer.step()
        return leaf.detach().clone()


class Velocities:
    """v <- MOMENTUM v + g, h <- h - RATE v, each row with a velocity of its own."""

    def __init__(self) -> None:
        self.known: dict[str, Tensor] = {}

    def __call__(self, name: str, start: Tensor, objective: Objective, rows: Tensor) -> Tensor:
        every = self.known.setdefault(name, torch.zeros(40, start.shape[1], dtype=torch.float64))
        h = start.clone().requires_grad_()
        for _ in range(STEPS):
            (slope,) = torch.autograd.grad(objective(h), h)
            every[rows] = MOMENTUM * every[rows] + slope
            h = (h.detach() - RATE * every[rows]).requires_grad_()
        return h.detach()


class ByHand:
    """BlockProp on the three blocks; with `kept` a sample's variables begin where they ended at its visit before."""

    def __init__(self, plan: lpc.Plan, solver: Solver, kept: bool = False) -> None:
        state = lpc.Trainer(plan, device="cpu").state_dict()
        self.weights = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
        self.solver, self.kept = solver, kept
        self.rows: dict[str, dict[int, Tensor]] = {name: {} for name in WEIGHTS}

    def block(self, index: int, value: Tensor) -> Tensor:
        out = F.linear(value, self.weights[f"f{index}.weight"], self.weights[f"f{index}.bias"])
        return out if index == 3 else out.tanh()

    def begun(self, name: str, made: Tensor, index: Tensor) -> Tensor:
        if not self.kept:
            return made
        return torch.stack([self.rows[name].get(int(i), row) for i, row in zip(index, made, strict=True)])

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x, y, index = batch["x"], batch["y"], batch["index"]
        rows = index if self.kept else torch.arange(len(x))
        with torch.no_grad():
            a1 = self.block(1, x)
            h1, h2 = self.begun("b1->b2", a1, index), self.begun("b2->b3", self.block(2, a1), index)
            a2 = self.block(2, h1)
        low, high = WEIGHTS.values()

        def last(h: Tensor) -> Tensor:
            return F.cross_entropy(self.block(3, h), y, reduction="sum") + high * ((h - a2) ** 2).sum()

        h2 = self.solver("b2->b3", h2, last, rows)

        def first(h: Tensor) -> Tensor:
            return high * ((h2 - self.block(2, h)) ** 2).sum() + low * ((h - a1) ** 2).sum()

        h1 = self.solver("b1->b2", h1, first, rows)
        for name, value in (("b1->b2", h1), ("b2->b3", h2)):
            self.rows[name] |= {int(i): row for i, row in zip(index, value, strict=True)}
        fits = low * ((h1 - self.block(1, x)) ** 2).sum() + high * ((h2 - self.block(2, h1)) ** 2).sum()
        objective = fits / len(x) + F.cross_entropy(self.block(3, h2), y)
        found = torch.autograd.grad(objective, list(self.weights.values()))
        for weight, gradient in zip(self.weights.values(), found, strict=True):
            weight.data -= 0.3 * gradient
        return {"b1->b2": h1, "b2->b3": h2}


def agree(plan: lpc.Plan, hand: ByHand, data: list[dict[str, Tensor]]) -> None:
    trainer = lpc.Trainer(plan, device="cpu")
    for one in data:
        trainer.gradients(one)  # which changes nothing, not what is remembered either
        trainer.step(one)
        wanted = hand.step(one)
        for name, value in trainer.variables().items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-12, atol=1e-13)
        for name, tensor in trainer.state_dict().items():
            torch.testing.assert_close(tensor, hand.weights[name].detach(), rtol=1e-12, atol=1e-13)


TORCH: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd(lr=0.1, momentum=0.8, nesterov=true)": partial(torch.optim.SGD, lr=0.1, momentum=0.8, nesterov=True),
    "adam(lr=0.03)": partial(torch.optim.Adam, lr=0.03),
    "rmsprop(lr=0.01, momentum=0.5)": partial(torch.optim.RMSprop, lr=0.01, momentum=0.5),
    'module("torch.optim:NAdam", lr=0.02)': partial(torch.optim.NAdam, lr=0.02),
}


@pytest.mark.parametrize("optimizer", TORCH)
def test_one_object_goes_on_from_batch_to_batch(optimizer: str) -> None:
    plan = build(optimizer)
    agree(plan, ByHand(plan, OneObject(TORCH[optimizer])), [batch(step) for step in range(4)])


SGD = f"sgd(lr={RATE}, momentum={MOMENTUM})"
KEPT = ", init=cache, refresh=1"


def test_a_smaller_batch_takes_and_changes_the_memory_of_its_own_places() -> None:
    plan = build(SGD)
    agree(plan, ByHand(plan, Velocities()), [batch(step, 4 if step == 1 else 6) for step in range(4)])


def test_with_a_cache_each_sample_goes_on_with_its_own_memory() -> None:
    """Batches share samples with two others, and new ones are among them."""
    plan = build(SGD, KEPT)
    hand = ByHand(plan, Velocities(), kept=True)
    agree(plan, hand, [batch(step, 6, first) for step, first in enumerate((0, 3, 6, 0, 5))])


@pytest.mark.parametrize(("optimizer", "more"), [("adam(lr=0.03)", ""), (SGD, KEPT)])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, optimizer: str, more: str) -> None:
    plan = build(optimizer, more)
    whole, resumed = lpc.Trainer(plan, device="cpu"), lpc.Trainer(plan, device="cpu")
    for step in range(4):
        if step == 2:
            checkpoint.write(tmp_path / "c", "p", whole.machine, Progress(step=2), {})
        whole.step(batch(step))
    checkpoint.read(tmp_path / "c").restore(resumed.machine, "p")
    resumed.steps_done = 2
    for step in (2, 3):
        resumed.step(batch(step))
    assert all(torch.equal(t, resumed.state_dict()[n]) for n, t in whole.state_dict().items())
    one, other = (dict(trainer.machine.variables["b1->b2"].state()) for trainer in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(bool(torch.as_tensor(value == other[entry]).all()) for entry, value in one.items())
    fresh = lpc.Trainer(lpc.build(SPEC.replace("LINK", f"optimizer={optimizer}, steps={STEPS}{more}")), device="cpu")
    for step in range(4):
        fresh.step(batch(step))
    assert not torch.equal(fresh.state_dict()["f1.weight"], whole.state_dict()["f1.weight"])


def test_more_places_than_are_remembered_are_told() -> None:
    trainer = lpc.Trainer(build(SGD), device="cpu")
    trainer.step(batch(0, 4))
    before = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
    with pytest.raises(lpc.LpcError) as caught:
        trainer.step(batch(1, 6))
    assert [problem.code for problem in caught.value.diagnostics] == ["0660"]
    assert "[6, 4] now; its optimizer remembers [4, 4]" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.state_dict().items())


@pytest.mark.parametrize("optimizer", ["adam(lr=0.1)", "sgd(lr=0.1, momentum=0.9, dampening=0.5)"])
def test_what_does_not_remember_each_sample_by_itself_is_refused_beside_a_cache(optimizer: str) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        build(optimizer, KEPT)
    (problem,) = caught.value.diagnostics
    assert problem.code == "0423"
    assert "does not remember each sample by itself" in problem.message
    assert problem.span is not None


def test_code_does_not_remember(tmp_path: Path) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        lpc.eject(build(SGD), tmp_path / "code")
    assert caught.value.diagnostics[0].code == "0708"
