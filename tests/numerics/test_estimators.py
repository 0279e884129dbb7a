"""Are estimates right on average, and as scattered as theory says? Generated networks, and the published formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lpc
from lpc.compiler.heads import HEADS
from lpc.compiler.setting import Setting
from lpc.compiler.units import UnitLayout
from lpc.specs.signatures import HEADS as SIGNATURES
from lpc.specs.term import Term

GOLDEN = Path(__file__).with_name("golden")
CLASSES, BATCH = 3, 3
# Each try builds two plans: shrinking would take minutes.
QUICK: dict[str, Any] = {
    "deadline": None,
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
KINDS: dict[str, tuple[int, ...]] = {"vector": (4,), "map": (2, 3, 3), "tokens": (3, 4)}
NORMS = {"vector": ["layer_norm", "rms_norm"], "map": ["group_norm(1)", "group_norm(2)"], "tokens": ["layer_norm"]}


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"localmixer_{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


# Estimates are unbiased, whatever the network


@dataclass(frozen=True)
class Case:
    """A network of two hidden blocks, and how they estimate their gradients."""

    kind: str
    first: list[dict[str, Any]]
    second: list[dict[str, Any]]
    units: dict[str, Any] | None
    options: dict[str, Any]

    def spec(self, estimator: Any) -> dict[str, Any]:
        """Local losses by units where there are any, else the output's loss alone."""
        blocks = {"b1": [next(iter(x)) for x in self.first], "b2": [next(iter(x)) for x in self.second], "out": "out"}
        rule: dict[str, Any] = {"blocks": ["b1", "b2"], "estimator": estimator}
        rule |= {"head": "linear", "loss": "cross_entropy", "aggregate": "replicated"} if self.units else {}
        decompose = {"blocks": blocks, "links": {"*": "stop" if self.units else "gradient"}}
        flat = [] if self.kind == "vector" else [{"f": "flatten"}]
        layers = [*self.first, *self.second, *flat, {"out": f"linear({CLASSES})"}]
        return {
            "network": {"inputs": {"x": list(KINDS[self.kind])}, "layers": layers},
            "data": None,
            "fields": {"label": {"shape": [], "dtype": "int64"}},
            "loss": "cross_entropy",
            "decompose": decompose | ({"units": self.units} if self.units else {}),
            "learn": [{"blocks": "*", "loss": "none", "optimizer": "sgd(lr=0.1)"}, rule],
            "run": {"dtype": "float64", "target": "cpu"},
        }


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(list(KINDS)))
    perturb = draw(st.sampled_from(["activity", "activity", "weight"]))
    norms = NORMS[kind] + (["batch_norm"] if perturb == "weight" and kind != "tokens" else [])

    def layer(name: str) -> dict[str, Any]:
        bias = draw(st.sampled_from(["true", "false"]))
        return {name: f"conv(4, 3, padding=1, bias={bias})" if kind == "map" else f"linear(4, bias={bias})"}

    def norm(name: str) -> list[dict[str, Any]]:
        return [{name: draw(st.sampled_from(norms))}] if draw(st.booleans()) else []

    def activation(name: str) -> dict[str, Any]:
        return {name: draw(st.sampled_from(["relu", "tanh", "gelu", "silu"]))}

    first = [layer("w1"), *norm("n1"), activation("a1")]
    first += [{"drop": "dropout(0.3)"}] if draw(st.booleans()) else []
    second = [layer("w2"), *norm("n2"), activation("a2")]
    if draw(st.booleans()):
        second = [{"r": {"residual": [*norm("n2"), layer("w2"), activation("a2"), layer("w3")]}}]
    if kind == "map" and draw(st.booleans()):
        second.append({"p": draw(st.sampled_from(["avg_pool(2)", "max_pool(2)"]))})
    patches = draw(st.sampled_from(["auto", "none"]))
    units = {"patches": patches, "groups": draw(st.sampled_from([1, 2, 4]))} if draw(st.booleans()) else None
    options: dict[str, Any] = {"perturb": perturb, "passes": draw(st.sampled_from([1, 1, 2]))}
    options["credit"] = draw(st.sampled_from(["unit", "reach", "all"])) if units else "unit"
    if perturb == "activity":
        options["site"] = draw(st.sampled_from(["output", "after_norm"]))
        options["noise"] = draw(st.sampled_from(["independent", "shared"]))
    return Case(kind, first, second, units, options)


def sample(case: Case, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, *KINDS[case.kind], generator=generator, dtype=torch.float64)
    return {"x": x, "label": torch.randint(0, CLASSES, (BATCH,), generator=generator)}


def masks_of(plan: lpc.Plan, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {s: [BATCH if a == "B" else a for a in n.type.shape] for s, n in plan.data.program.noise.items()
              if n.law == "bernoulli"}  # fmt: skip
    return {s: torch.randint(0, 2, shape, generator=generator).double() for s, shape in shapes.items()}


@given(cases(), st.integers(0, 1000))
@settings(max_examples=2, **QUICK)
def test_estimates_are_unbiased_where_they_say_so(hand: Any, case: Case, seed: int) -> None:
    """The sum of the estimates for all unit vectors of noise is the gradient of backpropagation."""
    exact = lpc.build(case.spec("backprop"))
    plan = lpc.build(case.spec({"forward": case.options}))
    t, reference = (lpc.Trainer(p, device="cpu") for p in (plan, exact))
    reference.load_state_dict(t.state_dict())
    batch, masks = sample(case, seed), masks_of(exact, seed)
    found, wanted = hand.expectation(plan, t, batch, masks), reference.gradients(batch, noise=masks)
    stamps = plan.data.report["estimators"]
    sound = {b for b, stamp in stamps.items() if stamp.startswith("unbiased")}
    assert sound == {"b1", "b2"} or case.options["credit"] == "unit", stamps
    owner = {n: e.block for n, e in plan.data.program.state.items()}
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        if owner[name] in {*sound, "out"} or name.startswith("heads."):
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12 * largest, msg=name)


# Their variance is that of the published formulas


VARIANCES = [
    ("activity", "shared", "ga_shared"),
    ("activity", "independent", "ga_indep"),
    ("weight", None, "gw_shared"),
]


@pytest.mark.parametrize(("perturb", "noise", "name"), VARIANCES)
def test_the_variance_is_as_published(perturb: str, noise: str | None, name: str) -> None:
    """Of a linear map with given inputs and errors, over the noise alone, exactly: an estimate is quadratic in it."""
    values = arrays("variance")
    t, batch, site, shape = linear_map(values["X"], values["Delta"], {"perturb": perturb, "noise": noise})

    def estimate(noise: Tensor) -> Tensor:
        return t.gradients(batch, noise={site: noise.reshape(shape)})["fc.weight"]

    mean, squares, pairs = quadratic(estimate, torch.Size(shape).numel())
    torch.testing.assert_close(mean, values["Delta"].mT @ values["X"] / 3, rtol=1e-12, atol=1e-14)
    for law, kurtosis in (("gauss", 3), ("rademacher", 1)):
        variance = (pairs + (kurtosis - 1) * squares).mean()
        torch.testing.assert_close(variance, values[f"{name}_{law}"], rtol=1e-12, atol=0)


def quadratic(estimate: Callable[[Tensor], Tensor], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of u' A u, and the sums of squares of A's diagonal and of what stands off it, found by evaluating it."""
    unit = torch.eye(size, dtype=torch.float64)
    own = [estimate(u) for u in unit]
    mixed = [estimate(unit[i] + unit[j]) - own[i] - own[j] for i, j in combinations(range(size), 2)]
    zero = torch.zeros_like(own[0])
    return sum(own, zero), sum((a**2 for a in own), zero), sum((a**2 for a in mixed), zero)


def linear_map(
    x: Tensor, error: Tensor, options: Mapping[str, Any]
) -> tuple[lpc.Trainer, dict[str, Tensor], str, list[int]]:
    """One linear map whose output's error is given: its trainer, batch, site of noise and the shape of that."""
    width, out = x.shape[1], error.shape[1]
    spec = {
        "network": {"inputs": {"x": [width]}, "layers": [{"fc": f"linear({out}, bias=false)"}]},
        "data": None,
        "fields": {"wanted": {"shape": [out], "dtype": "float64"}},
        "loss": {"mse": {"target": "wanted", "reduction": "batchmean", "weight": 0.5}},
        "decompose": {"blocks": {"fc": "fc"}},
        "learn": [{"blocks": "fc", "estimator": {"forward": dict(options)}, "optimizer": "sgd(lr=0.1)"}],
        "run": {"dtype": "float64", "target": "cpu"},
    }
    plan = lpc.build(spec)
    t = lpc.Trainer(plan, device="cpu")
    batch = {"x": x, "wanted": x @ t.state_dict()["fc.weight"].mT - error}
    ((site, law),) = plan.data.program.noise.items()
    return t, batch, site, [len(x) if size == "B" else int(size) for size in law.type.shape]


def test_signs_are_exact_for_a_single_element() -> None:
    """With one element of noise in a loss, u * u = 1: whatever is drawn, the estimate is the gradient."""
    generator = torch.Generator().manual_seed(0)
    x, error = (torch.randn(5, n, generator=generator, dtype=torch.float64) for n in (4, 1))
    found = {}
    for law in ("rademacher", "normal"):
        t, batch, _, _ = linear_map(x, error, {"law": law, "noise": "independent"})
        found[law] = t.gradients(batch)["fc.weight"]
    torch.testing.assert_close(found["rademacher"], error.mT @ x / 5, rtol=1e-13, atol=1e-15)
    assert (found["normal"] - error.mT @ x / 5).abs().max() > 1e-3


# Credits are the derivatives of replicated losses


def naive(y: Tensor, weight: Tensor, bias: Tensor, label: Tensor) -> Tensor:
    """The loss of every sample, patch and group, from a copy in which all else is held fixed: [N, P, G]."""
    count, patches, groups, _ = y.shape
    losses: list[Tensor] = []
    for p in range(patches):
        for g in range(groups):
            own = torch.zeros(patches, groups, 1, dtype=torch.bool)
            own[p, g] = True
            copy = torch.where(own, y, y.detach())
            losses.append(F.cross_entropy(copy.mean(1).flatten(1) @ weight + bias, label, reduction="none"))
    return torch.stack(losses, 1).reshape(count, patches, groups)


def test_credits_are_those_of_replicated_losses() -> None:
    """Derivative of the block's loss times tangent, summed over units, is each replicated loss's own derivative."""
    values = arrays("aggregator")
    x, tangent, weight, bias = (values[n] for n in ("x", "tan_x", "W", "b"))
    label = values["label"].long()
    setting = Setting((4, 2, 4), (), (3,), lambda target, output: 3)
    head = HEADS["linear"](setting, SIGNATURES["linear"].bind(Term("linear", (), {"pool": "patches"})))
    head.double().load_state_dict({"weight": weight.mT, "bias": bias})
    feature = x.clone().requires_grad_()
    loss = F.cross_entropy(head(feature), label, reduction="sum")
    (derivative,) = torch.autograd.grad(loss, feature)
    credit = UnitLayout((4,), 1, 2, True).credit(tangent * derivative)
    copied = naive(feature, weight, bias, label)
    moved = torch.zeros_like(copied)
    for p in range(4):
        for g in range(2):
            (slope,) = torch.autograd.grad(copied[:, p, g].sum(), feature, retain_graph=True)
            moved[:, p, g] = (slope * tangent).flatten(1).sum(1)
    torch.testing.assert_close(copied.detach(), values["loss_naive"], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(moved, values["jvp_x_naive"], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(credit, moved, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(credit, values["jvp_x"], rtol=1e-12, atol=1e-13)
