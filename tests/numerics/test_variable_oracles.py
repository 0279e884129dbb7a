"""Do identities hold that need no reference of the method? Steps of variables as scaled backpropagation, and limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lpc
from lpc.specs.plan.instructions import Parallel

INPUTS, CLASSES, BATCH = 4, 3, 6
FEW = settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Chain:
    """Blocks of tanh layers one after another; `cuts` are layers per block, the last block ends in logits."""

    cuts: tuple[int, ...]
    weights: tuple[float, ...]
    rates: tuple[float, ...]

    @property
    def layers(self) -> int:
        return sum(self.cuts)

    def spec(self, more: str = "", loss: str = "cross_entropy", learn: str = "sgd(lr=0.1)") -> str:
        names = [f"f{i}" for i in range(self.layers)]
        layers = ", ".join(f"{n}: linear({5 if n != names[-1] else CLASSES}), t{n[1:]}: tanh" for n in names)
        layers = layers[: layers.rindex(", t")]
        blocks, first = [], 0
        for index, count in enumerate(self.cuts):
            own = [f"f{i}, t{i}" for i in range(first, first + count)]
            blocks.append(f"b{index}: [{', '.join(own)}]")
            first += count
        blocks[-1] = blocks[-1].removesuffix(f", t{self.layers - 1}]") + "]"
        links = "".join(
            f'    "b{i}->b{i + 1}": variable(penalty=squared(weight={w}), optimizer=sgd(lr={r}){more})\n'
            for i, (w, r) in enumerate(zip(self.weights, self.rates, strict=True))
        )
        return (
            f"network: {{inputs: {{x: [{INPUTS}]}}, layers: [{layers}]}}\ndata: none\n"
            "fields: {y: {shape: [], dtype: int64}}\n"
            f"loss: {loss}\ndecompose:\n  blocks: {{{', '.join(blocks)}}}\n  links:\n{links}"
            f'learn: [{{blocks: "*", optimizer: {learn}}}]\nrun: {{dtype: float64, epochs: 1}}\n'
        )

    def ends(self) -> list[int]:
        """The last layer of each block but the last."""
        return [sum(self.cuts[: i + 1]) - 1 for i in range(len(self.cuts) - 1)]


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    cuts = tuple(draw(st.lists(st.integers(1, 2), min_size=2, max_size=4)))
    numbers = st.floats(0.3, 1.5).map(lambda x: round(x, 2))
    weights = tuple(draw(numbers) for _ in cuts[1:])
    return Chain(cuts, weights, tuple(round(draw(numbers) / 3, 3) for _ in cuts[1:]))


def batch(size: int = BATCH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(size, INPUTS, generator=generator, dtype=torch.float64)
    return {"x": x, "y": torch.randint(0, CLASSES, (size,), generator=generator)}


@dataclass(frozen=True)
class Exact:
    """Backpropagation by hand: boundary values, their per-sample derivatives, and the batch mean's gradients."""

    values: list[Tensor]
    slopes: list[Tensor]
    gradients: dict[str, Tensor]


def exact(chain: Chain, state: dict[str, Tensor], data: dict[str, Tensor]) -> Exact:
    leaves = {n: t.detach().clone().requires_grad_() for n, t in state.items()}
    x, values = data["x"], []
    for index in range(chain.layers):
        x = F.linear(x, leaves[f"f{index}.weight"], leaves[f"f{index}.bias"])
        x = torch.tanh(x) if index < chain.layers - 1 else x
        if index in chain.ends():
            values.append(x)
    loss = F.cross_entropy(x, data["y"], reduction="sum")
    slopes = torch.autograd.grad(loss, values, retain_graph=True)
    found = torch.autograd.grad(loss / len(x), list(leaves.values()))
    return Exact([v.detach() for v in values], list(slopes), dict(zip(leaves, found, strict=True)))


def trainer(chain: Chain, more: str = "", **given: str) -> lpc.Trainer:
    return lpc.Trainer(lpc.build(chain.spec(more, **given)), device="cpu")


def state_of(run: lpc.Trainer) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in run.state_dict().items()}


def etas(chain: Chain) -> list[float]:
    """The factor of each variable's step: its rate, times 2 lambda eta of the one behind it."""
    found = [chain.rates[-1]]
    for weight, rate in zip(chain.weights[:0:-1], chain.rates[-2::-1], strict=True):
        found.append(2 * weight * rate * found[-1])
    return found[::-1]


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=1e-12)


@FEW
@given(chain=chains())
def test_one_step_is_scaled_backpropagation(chain: Chain) -> None:
    """Each variable moves by eta g; the first block's gradient is that of backpropagation times 2 lambda eta."""
    run = trainer(chain)
    wanted = exact(chain, state_of(run), batch())
    gradients = run.gradients(batch())
    run.step(batch())
    for found, value, slope, eta in zip(
        run.variables().values(), wanted.values, wanted.slopes, etas(chain), strict=True
    ):
        close(found, value - eta * slope)
    for index in range(chain.cuts[0]):
        for kind in ("weight", "bias"):
            name = f"f{index}.{kind}"
            close(gradients[name], 2 * chain.weights[0] * etas(chain)[0] * wanted.gradients[name], 1e-9)


@FEW
@given(chain=chains())
def test_with_forward_inputs_every_gradient_is_scaled(chain: Chain) -> None:
    run = trainer(chain, ", weights_input=forward")
    wanted = exact(chain, state_of(run), batch()).gradients
    gradients = run.gradients(batch())
    scales = [2 * w * eta for w, eta in zip(chain.weights, etas(chain), strict=True)] + [1.0]
    owners = [block for block, count in enumerate(chain.cuts) for _ in range(count)]
    for index, block in enumerate(owners):
        for kind in ("weight", "bias"):
            name = f"f{index}.{kind}"
            close(gradients[name], scales[block] * wanted[name], 1e-9)


@FEW
@given(chain=chains(), steps=st.integers(1, 3))
def test_all_at_once_news_travels_one_boundary_a_step(chain: Chain, steps: int) -> None:
    run = trainer(chain, f", sweep=jacobi, steps={steps}")
    values = exact(chain, state_of(run), batch()).values
    gradients = run.gradients(batch())
    run.step(batch())
    reached = min(steps, len(values))
    still = [torch.allclose(h, f, rtol=0, atol=1e-14) for h, f in zip(run.variables().values(), values, strict=True)]
    assert still == [True] * (len(values) - reached) + [False] * reached
    if steps < len(values):
        assert all(float(gradients[f"f{i}.weight"].abs().max()) < 1e-14 for i in range(chain.cuts[0]))


def test_the_weight_of_a_penalty_rescales_a_learning_rate() -> None:
    """B5: (lambda, rate of block 1) -> (2 lambda, rate / 2) leaves the trajectory as it is, bit for bit."""
    runs = [trainer(Chain((2, 1), (w,), (0.125,)), learn=f"sgd(lr={r})") for w, r in ((0.5, 0.25), (1.0, 0.125))]
    for run in runs:
        run.machine.optimizers["b1"].rates[:] = [0.25]
        run.machine.optimizers["b1"]._set_rates(1.0)
    for _ in range(5):
        for run in runs:
            run.step(batch())
    for name, tensor in runs[0].state_dict().items():
        assert torch.equal(tensor, runs[1].state_dict()[name]), name


def solved_jointly(chain: Chain, steps: int) -> tuple[lpc.Trainer, list[Tensor], dict[str, Tensor]]:
    run = trainer(chain, f", sweep=jacobi, steps={steps}")
    before = state_of(run)
    run.step(batch())
    return run, list(run.variables().values()), before


def test_at_a_stationary_point_residuals_are_backpropagated() -> None:
    """B8: 2 lambda_{k-1} r_{k-1} = 2 lambda_k D_k' r_k, and the loss's derivative behind the last."""
    chain = Chain((1, 1, 1), (0.7, 1.3), (0.2, 0.2))
    _, found, state = solved_jointly(chain, 600)
    first, second = (h.clone().requires_grad_() for h in found)

    def linear(i: int, x: Tensor) -> Tensor:
        return F.linear(x, state[f"f{i}.weight"], state[f"f{i}.bias"])

    r1 = first.detach() - torch.tanh(linear(0, batch()["x"]))
    made = torch.tanh(linear(1, first))
    r2 = second.detach() - made.detach()
    (back,) = torch.autograd.grad(made, first, r2)
    close(2 * 0.7 * r1, 2 * 1.3 * back, 1e-8)
    (slope,) = torch.autograd.grad(F.cross_entropy(linear(2, second), batch()["y"], reduction="sum"), second)
    close(2 * 1.3 * r2, -slope, 1e-8)


def test_an_exact_step_backpropagates_at_a_proximal_point() -> None:
    """B7: the first block's gradient is (db/dtheta)' dloss/dh at h*; B13: h* itself needs no derivative."""
    chain = Chain((2, 1), (0.8,), (0.3,))
    run = trainer(chain, ", steps=300")
    state, data = state_of(run), batch()
    gradients = run.gradients(data)
    run.step(data)
    (h,) = (v.clone().requires_grad_() for v in run.variables().values())
    logits = F.linear(h, state["f2.weight"], state["f2.bias"])
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, data["y"], reduction="sum"), h)
    leaves = {n: state[n].requires_grad_() for n in ("f0.weight", "f0.bias", "f1.weight", "f1.bias")}
    made = data["x"]
    for i in range(2):
        made = torch.tanh(F.linear(made, leaves[f"f{i}.weight"], leaves[f"f{i}.bias"]))
    wanted = torch.autograd.grad(made, list(leaves.values()), slope / BATCH)
    for name, gradient in zip(leaves, wanted, strict=True):
        close(gradients[name], gradient, 1e-9)


@pytest.mark.parametrize("weight", [1.0, 10.0, 100.0])
def test_a_stable_exact_step_nears_backpropagation_as_its_weight_grows(weight: float) -> None:
    chain = Chain((1, 1), (weight,), (round(0.3 / weight, 4),))
    run = trainer(chain, ", steps=300")
    wanted = exact(chain, state_of(run), batch()).gradients["f0.weight"]
    found = run.gradients(batch())["f0.weight"]
    assert float((found - wanted).norm() / wanted.norm()) < 0.6 / weight


def codes(mu: float, lr: float, weight: float, scale: float, momentum: str) -> lpc.Trainer:
    layers = "[f0: linear(5), relu, f1: linear(5), relu, f2: linear(3)]"
    spec = f"""
network: {{inputs: {{x: [{INPUTS}]}}, layers: {layers}}}
data: none
fields: {{y: {{shape: [], dtype: int64}}}}
loss: cross_entropy
decompose:
  blocks: per_layer
  at: preactivation
  links:
    "*": variable(penalty=squared(weight={weight}, reduction=mean), optimizer=sgd(lr={lr}{momentum}), scale={scale})
learn: [{{blocks: "*", loss: consistency(weight=1.0), optimizer: adam(lr=0.01)}}]
run: {{dtype: float64, epochs: 1}}
"""
    return lpc.Trainer(lpc.build(spec), device="cpu")


@pytest.mark.parametrize("variant", ["released", "experiments"])
def test_one_step_of_the_codes_is_scaled_backpropagation(variant: str) -> None:
    """A1 and A2: e_L = s / mu, e_l = e_{l+1} 2 s / (B D), and once more / mu in the code of the experiments."""
    mu, lr = 0.05, 0.02
    nesterov = ", momentum=0.9, nesterov=true"
    run = codes(mu, lr, mu, 1 / mu, nesterov) if variant == "released" else codes(mu, lr, 1.0, 1 / mu, "")
    s, extra = (1.9 * lr, 1.0) if variant == "released" else (lr, 1 / mu)
    state = {n: t.clone().requires_grad_() for n, t in run.state_dict().items()}
    data = batch()
    first = F.linear(data["x"], state["f0.weight"], state["f0.bias"])
    second = F.linear(first.relu(), state["f1.weight"], state["f1.bias"])
    loss = F.cross_entropy(F.linear(second.relu(), state["f2.weight"], state["f2.bias"]), data["y"])
    g1, g2, w0 = torch.autograd.grad(loss, [first, second, state["f0.weight"]])
    gradients = run.gradients(data)
    run.step(data)
    top = s / mu
    below = top * 2 * s * extra / (BATCH * 5)
    c1, c2 = run.variables().values()
    close(c2, second.detach() - top * g2)
    close(c1, first.detach() - below * g1)
    close(gradients["f0.weight"], 2 * below / (BATCH * 5) * w0, 1e-7)


def test_weights_may_learn_in_any_order() -> None:
    """A7: the body of `parallel`, turned round, does the same."""
    plan = lpc.build(Chain((1, 1, 1), (0.7, 1.3), (0.2, 0.2)).spec(", steps=3"))

    def turned(instruction: Any) -> Any:
        if not isinstance(instruction, Parallel):
            return instruction
        body, groups = list(instruction.body), []
        while body:
            end = next(i for i, one in enumerate(body) if type(one).__name__ == "Free") + 1
            groups.append(body[:end])
            body = body[end:]
        return replace(instruction, body=tuple(one for group in reversed(groups) for one in group))

    step = tuple(map(turned, plan.data.program.step))
    assert step != plan.data.program.step
    other = replace(plan, data=replace(plan.data, program=replace(plan.data.program, step=step)))
    runs = [lpc.Trainer(p, device="cpu") for p in (plan, other)]
    for run in runs:
        run.step(batch())
    assert all(torch.equal(t, runs[1].state_dict()[n]) for n, t in runs[0].state_dict().items())


def test_without_a_derivative_of_the_loss_nothing_moves() -> None:
    """A8, B12: logits so far apart that the loss is exactly 0."""
    chain = Chain((1, 1, 1), (0.7, 1.3), (0.2, 0.2))
    run = trainer(chain, ", steps=3")
    data = {**batch(), "y": torch.zeros(BATCH, dtype=torch.int64)}
    run.load_state_dict({"f2.bias": torch.tensor([2000.0, 0.0, 0.0], dtype=torch.float64)}, strict=False)
    before = state_of(run)
    run.step(data)
    assert all(torch.equal(t, before[n]) for n, t in run.state_dict().items())


def theorem(beta: float, arrays: Any) -> dict[str, Tensor]:
    """Return the gradients of |h - b1(x)|^2 + beta l2 at its minimum in h, over beta."""
    spec = f"""
network:
  inputs: {{x: [6]}}
  layers: [a: linear(7), t1: tanh, b: linear(5), t2: tanh, c: linear(6), t3: tanh, d: linear(3)]
data: none
fields: {{y: {{shape: [3], dtype: float64}}}}
loss: mse(weight={beta!r}, reduction=sum)
decompose:
  blocks: {{b1: [a, t1, b, t2], b2: [c, t3, d]}}
  links: variable(optimizer=sgd(lr=0.1), steps=400)
learn: [{{blocks: "*", optimizer: sgd(lr=0.1)}}]
run: {{dtype: float64, epochs: 1}}
"""
    run = lpc.Trainer(lpc.build(spec), device="cpu")
    named = dict(zip(("a", "b", "c", "d"), ("B1_{}1", "B1_{}2", "B2_{}1", "B2_{}2"), strict=True))
    names = {f.format(w): f"{n}.{k}" for n, f in named.items() for k, w in (("weight", "W"), ("bias", "b"))}
    run.load_state_dict({own: torch.from_numpy(arrays[name]) for name, own in names.items()})
    data = {"x": torch.from_numpy(arrays["x"]), "y": torch.from_numpy(arrays["y_target"])}
    found = run.gradients(data)
    return {name: found[own] / beta for name, own in names.items()}


def test_theorem_5_1() -> None:
    """B14: the estimates are as recorded; their error falls with beta, that of two-sided ones with its square."""
    arrays = np.load(Path(__file__).with_name("golden") / "blockprop_thm51.npz")
    errors: list[float] = []
    for index, beta in enumerate(arrays["betas"]):
        found = theorem(float(beta), arrays)
        for name, gradient in found.items():
            wanted = torch.from_numpy(arrays[f"beta{index}_est_{name}"])
            assert float((gradient - wanted).abs().max() / wanted.abs().max()) < 1e-8
        errors.append(relative(found, arrays))
    betas = [float(beta) for beta in arrays["betas"]]
    assert [round(slope, 1) for slope in falls(errors[1:], betas[1:])] == [1.0, 1.0, 1.0]
    both = []
    for beta in betas[1:4]:
        above, below = theorem(beta, arrays), theorem(-beta, arrays)
        both.append(relative({n: (above[n] + below[n]) / 2 for n in above}, arrays))
    assert [round(slope, 1) for slope in falls(both, betas[1:4])] == [2.0, 2.0]


def relative(found: dict[str, Tensor], arrays: Any) -> float:
    wanted = {n: torch.from_numpy(arrays[f"true_grad_{n}"]) for n in found}
    difference = torch.cat([(found[n] - w).flatten() for n, w in wanted.items()])
    return float(difference.norm() / torch.cat([w.flatten() for w in wanted.values()]).norm())


def falls(errors: Sequence[float], betas: Sequence[float]) -> list[float]:
    """The powers of beta by which errors fall."""
    pairs = zip(errors, errors[1:], betas, betas[1:], strict=False)
    return [math.log(a / b) / math.log(x / y) for a, b, x, y in pairs]
