"""Are local problems solved? Published solutions of one layer, and the identities that LocoProp's steps obey."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc

GOLDEN = np.load(Path(__file__).with_name("golden") / "locoprop_closedform_S.npz")
META = json.loads(str(GOLDEN["meta"]))
ARRAYS = {k: torch.from_numpy(GOLDEN[k]) for k in GOLDEN.files if k != "meta"}
X, W0, B0, G = ARRAYS["X"], ARRAYS["W0"], ARRAYS["b0"], ARRAYS["G"]
ONES = torch.cat([X, torch.ones(len(X), 1).double()], 1)
TOLERANCE = 1e-12
OWN = {"loss": "squared", "reduction": "sum"}


def plan(
    layers: list[Any], loss: str, rule: dict[str, Any], link: str = "target(step=1.7)", inputs: int = 7,
    outputs: int = 5, more: tuple[dict[str, Any], ...] = (), batch: int = 8, links: Any = None,
) -> lpc.Plan:  # fmt: skip
    classes = loss.startswith("cross_entropy")
    return made(json.dumps(
        {
            "network": {"inputs": {"x": {"shape": [inputs], "dtype": "float64"}}, "layers": layers},
            "data": None,
            "fields": {"y": {"shape": [] if classes else [outputs], "dtype": "int64" if classes else "float64"}},
            "loss": loss,
            "decompose": {"blocks": "per_layer", "links": links or link},
            "learn": [{"blocks": "*", **({} if links else OWN), "optimizer": "sgd(lr=0.02)", **rule}, *more],
            "run": {"dtype": "float64", "target": "cpu"},
        }
    ))  # fmt: skip


@cache
def made(text: str) -> lpc.Plan:
    """The plan of a spec in JSON, built once."""
    return lpc.build(json.loads(text))


def layer(rule: dict[str, Any], rows: int = 8, **more: Any) -> tuple[Tensor, Tensor]:
    """One linear layer whose pre-activation gradient is G, as the published file has it."""
    trainer = lpc.Trainer(plan([{"fc": "linear(5)"}], "mse(reduction=sum)", rule, **more), device="cpu")
    trainer.load_state_dict({"fc.weight": W0.T.clone(), "fc.bias": B0})
    x = X[:rows]
    trainer.step({"x": x, "y": x @ W0 + B0 - G[:rows] / 2})
    state = trainer.state_dict()
    return state["fc.weight"].T, state["fc.bias"]


def close(found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=tolerance)


ETA, STEP = META["eta_prox"], META["gd_const_step"]
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prox": ({"solver": "exact", "prox": ETA}, {}),
    "prox_nobias": ({"solver": "exact", "prox": ETA}, {"more": ({"params": "*.bias", "train": False},)}),
    "gdconst_T7": ({"solver": "closed_form", "steps": 7, "optimizer": f"sgd(lr={STEP})"}, {}),
    "gdofficial_T7": (
        {
            "solver": "closed_form", "steps": 7, "optimizer": f"sgd(lr={META['gd_official_base_lr']})",
            "schedule": {"inner": "linear(floor=0.25)"},
        },
        {},
    ),
    "limit_noreg": ({"solver": "exact"}, {}),
    "limit_noreg_first5rows": ({"solver": "exact"}, {"rows": 5}),
    "fpi_K7": ({"solver": "fixed_point", "steps": 7, "prox": META["fpi_eta"]}, {}),
    "fpi_limit": ({"solver": "fixed_point", "steps": 400, "prox": META["fpi_eta"]}, {}),
    "single_example_prox": ({"solver": "exact", "prox": ETA}, {"rows": 1}),
    "ngdtarget_prox": ({"solver": "exact", "prox": ETA}, {"link": "target(step=1.7, rule=natural, damping=0.1)"}),
    "gdprox_T7": ({"steps": 7, "prox": ETA, "optimizer": f"sgd(lr={META['gdprox_step']})"}, {}),
}  # fmt: skip
OTHER_WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "cg": ("prox", {"solver": "cg(12)", "prox": ETA}),
    "many steps": ("prox", {"steps": 500, "prox": ETA, "optimizer": "sgd(lr=0.02)"}),
    "plain steps": ("gdconst_T7", {"steps": 7, "optimizer": f"sgd(lr={STEP})"}),
    "formula with prox": (
        "gdprox_T7",
        {"solver": "closed_form", "steps": 7, "prox": ETA, "optimizer": f"sgd(lr={META['gdprox_step']})"},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_solutions(name: str) -> None:
    rule, more = PUBLISHED[name]
    weight, bias = layer(rule, **more)
    close(weight, ARRAYS[f"{name}_W"])
    if f"{name}_b" in ARRAYS:
        close(bias, ARRAYS[f"{name}_b"])


@pytest.mark.parametrize("case", OTHER_WAYS)
def test_other_ways_to_the_same_solution(case: str) -> None:
    name, rule = OTHER_WAYS[case]
    weight, bias = layer(rule)
    close(weight, ARRAYS[f"{name}_W"])
    close(bias, ARRAYS[f"{name}_b"])


def test_least_squares_from_any_weights() -> None:
    """A linear layer with a summed squared error, step 1 and no prox is ordinary least squares."""
    x, y = ARRAYS["ols_X"], ARRAYS["ols_Y"]
    made = plan(
        [{"fc": "linear(2)"}], "mse(reduction=sum)", {"solver": "exact"}, "target(step=0.5)", x.shape[1], y.shape[1]
    )
    trainer = lpc.Trainer(made, device="cpu")
    trainer.step({"x": x, "y": y})
    close(trainer.state_dict()["fc.weight"].T, ARRAYS["ols_W"])
    close(trainer.state_dict()["fc.bias"], ARRAYS["ols_b"])


# Two layers, and what the steps obey

NET: list[Any] = [{"fc": "linear(5)"}, "tanh", {"out": "linear(3)"}]
MSE = "mse(reduction=batchmean)"
NEWTON = {"loss": "matching", "solver": "exact"}


def data(seed: int = 0, rows: int = 8, classes: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 7, generator=generator, dtype=torch.float64)
    y = torch.rand(rows, 3, generator=generator, dtype=torch.float64)
    return {"x": x, "y": y.argmax(1) if classes else y}


def moved(
    rule: dict[str, Any], net: list[Any] | None = None, loss: str = MSE, link: str = "target(step=1.7)",
    batch: dict[str, Tensor] | None = None, start: dict[str, Tensor] | None = None, links: Any = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The way of all weights in one step from the same start."""
    made = plan(net or NET, loss, rule, link, outputs=3, links=links)
    trainer = lpc.Trainer(made, device="cpu")
    if start is not None:
        trainer.load_state_dict(start)
    before = {n: t.clone() for n, t in trainer.state_dict().items()}
    trainer.step(batch or data(classes=loss.startswith("cross_entropy")))
    return {n: t - before[n] for n, t in trainer.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    for name, tensor in other.items():
        close(one[name], tensor, tolerance)


def gradient_of(batch: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    made = plan(NET, MSE, {"loss": "none"}, outputs=3, links="gradient")
    return lpc.Trainer(made, device="cpu").gradients(batch or data())


def design(batch: dict[str, Tensor]) -> Tensor:
    return torch.cat([batch["x"], torch.ones(len(batch["x"]), 1).double()], 1)


def joined(way: dict[str, Tensor], name: str) -> Tensor:
    return torch.cat([way[f"{name}.weight"].T, way[f"{name}.bias"][None]])


@pytest.mark.parametrize("loss", ["squared", "matching"])
def test_one_plain_step_is_backpropagation(loss: str) -> None:
    """Oracle 1: at rate h times the target's step; with any optimizer on that many times the gradient."""
    gradients = gradient_of()
    same(moved({"loss": loss, "optimizer": "sgd(lr=0.02)"}), {n: -0.02 * 1.7 * g for n, g in gradients.items()})
    w = {n: torch.zeros_like(g).requires_grad_() for n, g in gradients.items()}
    adam = torch.optim.Adam(w.values(), lr=0.02)
    for n, t in w.items():
        t.grad = 1.7 * gradients[n]
    adam.step()
    same(moved({"loss": loss, "optimizer": "adam(lr=0.02)"}), {n: t.detach() for n, t in w.items()})


@pytest.mark.parametrize("rows", [3, 40])
def test_the_smaller_system_has_the_same_solution(rows: int) -> None:
    """Oracles 2 and 11: FOOF's form of the proximal step, for few and for many rows."""
    batch = data(rows=rows)
    made = plan(NET, MSE, {"solver": "exact", "prox": 0.3}, outputs=3)
    trainer = lpc.Trainer(made, device="cpu")
    gradients = gradient_of(batch)
    before = {n: t.clone() for n, t in trainer.state_dict().items()}
    trainer.step(batch)
    way = {n: t - before[n] for n, t in trainer.state_dict().items()}
    x = design(batch)
    second = x.T @ x / rows + torch.eye(8).double() / (0.3 * rows)
    close(joined(way, "fc"), -(1.7 / rows) * torch.linalg.solve(second, joined(gradients, "fc")))


def test_the_system_is_chosen_by_size() -> None:
    """Of the rows where a batch has fewer of them than a sample has inputs."""
    wide = plan([{"fc": "linear(3)"}], MSE, {"solver": "exact", "prox": 1.0}, inputs=200, outputs=3)
    tall = plan([{"fc": "linear(3)"}], MSE, {"solver": "exact", "prox": 1.0}, inputs=50, outputs=3)
    for made, size in ((wide, "B"), (tall, 51)):
        nodes = made.data.kernels["native"]["fc.solve"].nodes
        factor = next(n for n in nodes if n.op == "aten.linalg_cholesky_ex.default")
        assert factor.types[0].shape == (size, size)
        assert lpc.verify(made).ok


@pytest.mark.parametrize(
    ("f", "eta"), [("tanh", 0.1), ("tanh", 10.0), ("tanh", 1000.0), ("relu", 10.0), ("sigmoid", 1000.0)]
)
def test_newton_reaches_the_proximal_minimiser(f: str, eta: float) -> None:
    """Oracle 7: W = W0 - prox X'(f(XW) - T), for hidden layers and every output."""
    function = getattr(torch, f)
    batch = data()
    made = plan([{"fc": "linear(5)"}, f, {"out": "linear(3)"}], MSE, {**NEWTON, "prox": eta}, outputs=3)
    trainer = lpc.Trainer(made, device="cpu")
    p = {n: t.clone().requires_grad_() for n, t in trainer.state_dict().items()}
    a = F.linear(batch["x"], p["fc.weight"], p["fc.bias"])
    h = F.linear(function(a), p["out.weight"], p["out.bias"])
    (g,) = torch.autograd.grad(((h - batch["y"]) ** 2).sum() / 8, [a])
    trainer.step(batch)
    state = trainer.state_dict()
    left = function(F.linear(batch["x"], state["fc.weight"], state["fc.bias"])) - function(a) + 1.7 * g
    way = torch.cat([state["fc.weight"].T - p["fc.weight"].T, (state["fc.bias"] - p["fc.bias"])[None]])
    close((way / eta).detach(), -(design(batch).T @ left).detach())
    assert lpc.verify(made).ok


@pytest.mark.parametrize("loss", ["binary_cross_entropy(reduction=sum)", "cross_entropy(reduction=sum)"])
def test_the_output_s_problem_is_logistic_regression(loss: str) -> None:
    """Oracle 14: with a summed loss and step 1 the target is the label itself."""
    made = plan([{"out": "linear(3)"}], loss, {**NEWTON, "prox": 50.0}, "target(step=1)", outputs=3)
    trainer = lpc.Trainer(made, device="cpu")
    before = {n: t.clone() for n, t in trainer.state_dict().items()}
    batch = data(classes=loss.startswith("cross"))
    trainer.step(batch)
    state = trainer.state_dict()
    scores = F.linear(batch["x"], state["out.weight"], state["out.bias"])
    if loss.startswith("cross"):
        left = torch.softmax(scores, 1) - F.one_hot(batch["y"], 3)
    else:
        left = torch.sigmoid(scores) - batch["y"]
    way = joined({n: t - before[n] for n, t in state.items()}, "out")
    close(way / 50.0, -design(batch).T @ left)


def test_small_targets_are_linear() -> None:
    """Oracle 8: D / step tends to the solution with second derivatives f'."""
    step = 1e-4
    batch, made = data(), plan(NET, MSE, {**NEWTON, "prox": 0.3}, f"target(step={step})", outputs=3)
    trainer = lpc.Trainer(made, device="cpu")
    p = {n: t.clone().requires_grad_() for n, t in trainer.state_dict().items()}
    a = F.linear(batch["x"], p["fc.weight"], p["fc.bias"])
    h = F.linear(torch.tanh(a), p["out.weight"], p["out.bias"])
    (g,) = torch.autograd.grad(((h - batch["y"]) ** 2).sum() / 8, [a])
    trainer.step(batch)
    way = joined({n: t - p[n].detach() for n, t in trainer.state_dict().items()}, "fc")
    x, slope = design(batch), (1 - torch.tanh(a) ** 2).detach()
    for j in range(5):
        second = x.T @ (slope[:, j, None] * x) + torch.eye(8).double() / 0.3
        wanted = -torch.linalg.solve(second, x.T @ g[:, j])
        torch.testing.assert_close(way[:, j] / step, wanted, rtol=1e-3, atol=1e-6)


def test_where_both_variants_are_one() -> None:
    """Oracle 9: linear layers, relus that are all alive; dead ones do not move."""
    rule = {"steps": 3, "optimizer": "sgd(lr=0.01)"}
    linear = [{"fc": "linear(5)"}, {"out": "linear(3)"}]
    same(moved({**rule, "loss": "matching"}, linear), moved(rule, linear))
    relu = [{"fc": "linear(5)"}, "relu", {"out": "linear(3)"}]
    start = {n: t.clone() for n, t in lpc.Trainer(plan(relu, MSE, rule, outputs=3), device="cpu").state_dict().items()}
    alive = {**start, "fc.bias": torch.full((5,), 20.0).double()}
    same(moved({**rule, "loss": "matching"}, relu, start=alive), moved(rule, relu, start=alive))
    dead = {**start, "fc.bias": torch.full((5,), -20.0).double()}
    for loss in ("squared", "matching"):
        assert moved({**rule, "loss": loss}, relu, start=dead)["fc.weight"].abs().max() == 0.0


def test_the_way_is_handed_to_an_outer_optimizer() -> None:
    """Oracle 13: ProxProp's exact step as a pseudo-gradient."""
    plain = moved({"solver": "exact", "prox": 0.3})
    outer = moved({"solver": "exact", "prox": 0.3, "outer": "sgd(lr=0.25)"})
    same(outer, {n: 0.25 * t for n, t in plain.items()})


def test_an_optimizer_that_is_not_used_is_told() -> None:
    built = plan([{"fc": "linear(5)"}], "mse(reduction=sum)", {"solver": "exact", "prox": 0.3})
    assert built.data.report["notes"] == [
        "block fc: `solver: exact` takes no step of `optimizer`; its value is not used"
    ]


@pytest.mark.parametrize("rule", [{"solver": "exact", "prox": 0.3}, {**NEWTON, "prox": 0.3}])
def test_properties_of_proximal_steps(rule: dict[str, Any]) -> None:
    """Oracle 15: downhill, and the same for any order of the samples."""
    way = moved(rule)
    assert sum((way[n] * g).sum() for n, g in gradient_of().items()) < 0
    order, batch = torch.randperm(8, generator=torch.Generator().manual_seed(1)), data()
    same(moved(rule, batch={n: t[order] for n, t in batch.items()}), way)


def test_the_limit_follows_a_change_of_inputs() -> None:
    """Oracle 15: without prox and with full rank, D for inputs X M is M^-1 D."""
    generator = torch.Generator().manual_seed(2)
    turn = torch.randn(7, 7, generator=generator, dtype=torch.float64) + 3 * torch.eye(7)
    batch = data(rows=20)
    one = plan([{"out": "linear(3, bias=false)"}], MSE, {"solver": "exact"}, outputs=3)
    first, second = lpc.Trainer(one, device="cpu"), lpc.Trainer(one, device="cpu")
    weight = first.state_dict()["out.weight"].clone()
    start = (torch.linalg.inv(turn) @ weight.T).T
    second.load_state_dict({"out.weight": start})
    first.step(batch)
    second.step({**batch, "x": batch["x"] @ turn})
    way = first.state_dict()["out.weight"] - weight
    close(second.state_dict()["out.weight"] - start, (torch.linalg.inv(turn) @ way.T).T, 1e-11)


def test_scales_are_equivalent() -> None:
    """Oracle 16: a mean loss with step g is a summed one with step g / B, is a mean local loss at B times the rate."""
    rule = {"steps": 3, "optimizer": "sgd(lr=0.01)", "loss": "matching"}
    way = moved(rule)
    same(moved(rule, loss="mse(reduction=sum)", link=f"target(step={1.7 / 8})"), way)
    same(moved({**rule, "reduction": "batchmean", "optimizer": "sgd(lr=0.08)"}), way)


def test_convolutions_are_products_of_their_patches() -> None:
    """The exact step of a convolution leaves no gradient of its proximal problem."""
    net = [{"conv": "conv(2, kernel=3, padding=1)"}, "tanh", "flatten", {"out": "linear(3)"}]
    made = lpc.build(
        {
            "network": {"inputs": {"x": {"shape": [2, 5, 5], "dtype": "float64"}}, "layers": net},
            "data": None,
            "fields": {"y": {"shape": [3], "dtype": "float64"}},
            "loss": MSE,
            "decompose": {"blocks": "per_layer", "links": "target(step=2)"},
            "learn": [{"blocks": "*", "loss": "squared", "reduction": "mean", "solver": "exact", "prox": 0.5}],
            "run": {"dtype": "float64", "target": "cpu"},
        }
    )
    assert lpc.verify(made).ok
    assert lpc.verify(made).worst < 1e-12


REFUSED: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "no prox": ({"loss": "matching", "solver": "exact"}, NET),
    "not linear": ({"loss": "matching", "solver": "cg(3)"}, NET),
    "not plain": ({"solver": "closed_form", "optimizer": "adam(lr=0.1)"}, NET),
    "no way back": ({"solver": "fixed_point"}, NET),
    "another layer": ({"solver": "exact"}, [{"fc": "linear(6)"}, {"norm": "layer_norm"}, {"out": "linear(3)"}]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_solver_cannot_have(case: str) -> None:
    rule, net = REFUSED[case]
    with pytest.raises(lpc.LpcError, match="LPC0436"):
        plan(net, MSE, rule, outputs=3)
