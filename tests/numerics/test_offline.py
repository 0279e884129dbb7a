"""Do baselines that keep the variables of all samples do what their definitions say? Written out, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc

COUNT = 12
NET = "network: {{inputs: {{x: [6]}}, layers: [c1: linear(5{0}), relu, c2: linear(4{0}), relu, out: linear(3)]}}\n"
COMMON = "data: none\nfields: {y: {shape: [], dtype: int64}}\nrun: {dtype: float64, epochs: 1, seed: 3}\n"


def batch(seed: int = 0) -> dict[str, Tensor]:
    """All samples, in an order of their own."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(COUNT, 6, generator=draw, dtype=torch.float64)
    return {"x": x, "y": torch.randint(0, 3, (COUNT,), generator=draw), "index": torch.randperm(COUNT, generator=draw)}


def trainer(text: str, bias: bool = True) -> lpc.Trainer:
    plan = lpc.build(NET.format("" if bias else ", bias=false") + COMMON + text)
    assert lpc.verify(plan).ok
    return lpc.Trainer(plan, device="cpu")


def same(found: Tensor, wanted: Tensor | np.ndarray) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("bias", "hold"), [(True, 0.0), (False, 0.0), (True, 2.5)])
def test_least_squares(bias: bool, hold: float) -> None:
    """The weights are those of numpy's solver, the distance to the old ones as further rows."""
    learn = f"learn: [{{blocks: [c1, c2], solver: least_squares(hold={hold})}}]\n"
    run = trainer("recipe: altmin(anchor=true, codes=sgd(lr=0.5))\n" + learn, bias)
    given = batch()
    for _ in range(2):
        before = {n: t.clone().numpy() for n, t in run.state_dict().items()}
        run.step({n: t for n, t in given.items() if n != "index"})
        first, second = run.variables().values()
        for name, rows, code in (("c1", given["x"], first), ("c2", first.relu(), second)):
            a, old = rows.numpy(), before[f"{name}.weight"]
            if bias:
                a, old = np.c_[a, np.ones(COUNT)], np.c_[old, before[f"{name}.bias"]]
            left = np.r_[a, np.sqrt(hold) * np.eye(a.shape[1])]
            wanted = np.linalg.lstsq(left, np.r_[code.numpy(), np.sqrt(hold) * old.T], rcond=None)[0].T
            same(run.state_dict()[f"{name}.weight"], wanted[:, : rows.shape[1]])
            if bias:
                same(run.state_dict()[f"{name}.bias"], wanted[:, -1])


def test_least_squares_without_enough_samples_take_the_smallest_weights() -> None:
    learn = "learn: [{blocks: [c1, c2], solver: least_squares}]\n"
    run, given = trainer("recipe: altmin(codes=sgd(lr=0.5))\n" + learn), batch()
    few = {n: t[:3] for n, t in given.items() if n != "index"}
    run.step(few)
    wanted = np.linalg.pinv(np.c_[few["x"].numpy(), np.ones(3)]) @ next(iter(run.variables().values())).numpy()
    torch.testing.assert_close(run.state_dict()["c1.weight"], torch.from_numpy(wanted[:-1].T), rtol=1e-7, atol=1e-9)


def affine(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].t() + state[f"{name}.bias"]


def descend(
    leaves: list[Tensor], optimizer: torch.optim.Optimizer, objective: Callable[[], Tensor], steps: int
) -> None:
    for _ in range(steps):
        for leaf, slope in zip(leaves, torch.autograd.grad(objective(), leaves), strict=True):
            leaf.grad = slope
        optimizer.step()


def leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_()


def solve(code: Tensor, made: Tensor, above: Callable[[Tensor], Tensor]) -> Tensor:
    """Descend by a code, which what is above it and its own layer pull."""
    moved = leaf(code)
    momentum = torch.optim.SGD([moved], lr=0.4, momentum=0.9)
    descend([moved], momentum, lambda: above(moved) + F.mse_loss(moved, made), 3)
    return moved.detach()


def test_offline_alternating_minimisation() -> None:
    """Codes persist, each is pulled to what its layer computes now, mu grows, and weights are least squares."""
    penalty = "penalty=squared(weight=grow(start=0.1, factor=2.0, until=0.3), reduction=mean)"
    run = trainer(f"recipe: altmin_offline({penalty}, steps=3, fits=2, codes=sgd(lr=0.4, momentum=0.9))\n")
    given, state = batch(), {n: t.clone() for n, t in run.state_dict().items()}
    x, y = given["x"], given["y"]
    c1 = affine(state, "c1", x)
    c2 = affine(state, "c2", c1.relu())
    output = [leaf(state[n]) for n in ("out.weight", "out.bias")]
    adam = torch.optim.Adam(output, lr=0.008)
    for mu in (0.1, 0.2, 0.4, 0.4):
        made = affine(state, "c2", c1.relu())
        head = dict(zip(("out.weight", "out.bias"), (t.detach() for t in output), strict=True))
        c2 = solve(c2, made, lambda c: F.cross_entropy(affine(head, "out", c.relu()), y) / mu)  # noqa: B023
        c1 = solve(c1, affine(state, "c1", x), lambda c: F.mse_loss(affine(state, "c2", c.relu()), c2))  # noqa: B023
        for name, rows, code in (("c1", x, c1), ("c2", c1.relu(), c2)):
            found = torch.linalg.lstsq(F.pad(rows, (0, 1), value=1.0), code).solution.t()
            state |= {f"{name}.weight": found[:, :-1], f"{name}.bias": found[:, -1]}
        hidden = c2.relu()
        descend(output, adam, lambda: F.cross_entropy(hidden @ output[0].t() + output[1], y), 2)  # noqa: B023
        run.step(given)
        for found, wanted in zip(run.variables().values(), (c1, c2), strict=True):
            same(found, wanted)
    for name, value in (*state.items(), *zip(("out.weight", "out.bias"), output, strict=True)):
        if not name.startswith("out") or value.requires_grad:
            same(run.state_dict()[name], value.detach())


def test_auxiliary_coordinates() -> None:
    """All coordinates descend together from where they were, then each layer fits its own."""
    penalty = "penalty=squared(weight=grow(start=0.5, factor=2.0, until=1.5))"
    run = trainer(f"recipe: mac({penalty}, coordinates=sgd(lr=0.05), steps=3, fits=2, optimizer=adam(lr=0.01))\n")
    given, state = batch(), {n: leaf(t) for n, t in run.state_dict().items()}
    x, y = given["x"], given["y"]
    layers = [[state[f"{n}.{k}"] for k in ("weight", "bias")] for n in ("c1", "c2", "out")]
    adams = [torch.optim.Adam(layer, lr=0.01) for layer in layers]
    z1 = affine(state, "c1", x).relu().detach()
    z2 = affine(state, "c2", z1).relu().detach()
    for weight in (0.5, 1.0, 2.0):
        both = [leaf(z1), leaf(z2)]

        def terms(first: Tensor, second: Tensor) -> list[Tensor]:
            loss = F.cross_entropy(affine(state, "out", second), y, reduction="sum")
            parts = (("c1", first, x), ("c2", second, first))
            return [*(weight * ((z - affine(state, n, a).relu()) ** 2).sum() for n, z, a in parts), loss]  # noqa: B023

        descend(both, torch.optim.SGD(both, lr=0.05), lambda: torch.stack(terms(*both)).sum(), 3)  # noqa: B023
        z1, z2 = (z.detach() for z in both)
        for index, (layer, adam) in enumerate(zip(layers, adams, strict=True)):
            descend(layer, adam, lambda: terms(z1, z2)[index] / COUNT, 2)  # noqa: B023
        run.step(given)
        for found, wanted in zip(run.variables().values(), (z1, z2), strict=True):
            same(found, wanted)
    for name, value in state.items():
        same(run.state_dict()[name], value.detach())
