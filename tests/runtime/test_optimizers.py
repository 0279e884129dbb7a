"""Does every class of torch.optim step a block as it does by hand?"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from lpc.runtime.optimizer_class import REFUSED, classes
from lpc.runtime.optimizers import BlockOptimizer
from lpc.runtime.state import State
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Optimizer, ParameterGroup, StateEntry

SHAPES = {"w": (4, 3), "v": (3, 4)}
GENERATOR = torch.Generator().manual_seed(0)
VALUES = {
    name: torch.randn(shape, dtype=torch.float64, generator=GENERATOR) for name, shape in SHAPES.items()
}
ENTRIES = {n: StateEntry(n, "parameter", "b", TensorType("float64", s)) for n, s in SHAPES.items()}
ENTRIES["count"] = StateEntry("count", "buffer", "b", TensorType("float64", (1,)))
USABLE = sorted(set(classes()) - set(REFUSED))


def block(name: str, options: dict[str, Any] | None = None, **more: Any) -> BlockOptimizer:
    state = State(ENTRIES, save(VALUES | {"count": torch.zeros(1, dtype=torch.float64)}), torch.device("cpu"))
    groups = more.pop("groups", (ParameterGroup(("w", "v")),))
    return BlockOptimizer(Optimizer("b", name, options or {}, groups, **more), state)


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in SHAPES.values()]


@pytest.mark.parametrize("name", USABLE)
def test_as_by_hand(name: str) -> None:
    ours = block(name)
    theirs = {key: nn.Parameter(value.clone()) for key, value in VALUES.items()}
    # ASGD's batched step rounds its rate otherwise than the plain one; the rest agree whatever is chosen.
    options = {"foreach": True} if name == "asgd" else {}
    reference = classes()[name](theirs.values(), **options)  # type: ignore[arg-type]
    for step in range(5):
        for parameter, gradient in zip(theirs.values(), gradients(step), strict=True):
            parameter.grad = gradient
        reference.step()
        with torch.inference_mode():
            ours.step([g.clone() for g in gradients(step)], step)
    for parameter, expected in zip(ours.parameters, theirs.values(), strict=True):
        torch.testing.assert_close(parameter.detach(), expected.detach(), rtol=0, atol=1e-12)
        assert parameter.grad is None


OTHERS = {
    "pytorch_optimizer:LARS": {"lr": 0.1, "weight_decay": 0.1},
    "pytorch_optimizer:Lamb": {"lr": 0.1},
    "pytorch_optimizer:AdaBelief": {"lr": 0.1},
    "pytorch_optimizer:Prodigy": {},
    "torch.optim:SGD": {"lr": 0.1, "momentum": 0.9},
}


@pytest.mark.parametrize("name", [*USABLE, *OTHERS])
def test_state_survives_a_round_trip(name: str) -> None:
    first, second = block(name, OTHERS.get(name)), block(name, OTHERS.get(name))
    for step in range(3):
        first.step(gradients(step), step)
    stored: dict[str, dict[str, Any]] = {}
    for parameter, entry, value in first.state():
        stored.setdefault(parameter, {})[entry] = value.clone() if isinstance(value, torch.Tensor) else value
    second.load_state(stored)
    for mine, theirs in zip(second.parameters, first.parameters, strict=True):
        mine.data.copy_(theirs)
    before = [p.detach().clone() for p in second.parameters]
    for optimizer in (first, second):
        with torch.inference_mode():
            optimizer.step(gradients(9), 9)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before, second.parameters, strict=True))


def test_lars_by_hand() -> None:
    """You et al. 2017 (arXiv 1708.03888): rates scaled by |w| / (|g| + d |w|) for matrices, momentum after that."""
    options = {"lr": 0.5, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.2, "trust_coefficient": 0.01}
    groups = (ParameterGroup(("w",)), ParameterGroup(("v",), {"weight_decay": 0.0}, 0.1))
    ours = block("pytorch_optimizer:LARS", options, groups=groups)
    values, momenta = dict(VALUES), {n: torch.zeros(s, dtype=torch.float64) for n, s in SHAPES.items()}
    for step in range(4):
        given = gradients(step)
        kept = [g.clone() for g in given]
        ours.step(given, step)
        assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True)), "gradients are not written over"
        for (name, decay, rate), g in zip((("w", 0.2, 0.5), ("v", 0.0, 0.05)), kept, strict=True):
            w = values[name]
            trust = 0.01 * w.norm() / (g.norm() + decay * w.norm())
            momenta[name] = 0.9 * momenta[name] + trust * (g + decay * w)
            values[name] = w - rate * momenta[name]
    for parameter, name in zip(ours.parameters, SHAPES, strict=True):
        torch.testing.assert_close(parameter.detach(), values[name], rtol=1e-12, atol=0)

def test_fused_where_torch_has_it_and_the_users_choice_wins() -> None:
    for name in USABLE:
        arguments = inspect.signature(classes()[name]).parameters
        group = block(name).optimizer.param_groups[0]
        assert not group.get("fused") or "fused" in arguments
        assert bool(group.get("fused")) == ("fused" in arguments)
        assert bool(group.get("foreach")) == ("foreach" in arguments and "fused" not in arguments)
    assert block("adam", {"foreach": True}).optimizer.param_groups[0]["fused"] is None
    assert block("adam", {"fused": False}).optimizer.param_groups[0]["fused"] is False


@pytest.mark.parametrize("kind", ["transposed", "expanded"])
def test_gradients_of_any_layout(kind: str) -> None:
    """torch's own fused CPU step reads such gradients as if they were contiguous."""
    made = {
        "transposed": torch.randn(3, 4, dtype=torch.float64).t(),
        "expanded": torch.ones(1, 1, dtype=torch.float64).expand(4, 3),
    }
    ours = block("sgd", {"lr": 1.0})
    ours.step([made[kind], None], 0)
    torch.testing.assert_close(ours.parameters[0].detach(), VALUES["w"] - made[kind], rtol=0, atol=1e-15)
    assert torch.equal(ours.parameters[1].detach(), VALUES["v"])


def test_one_tensor_as_two_gradients_is_clipped_once() -> None:
    ours = block("sgd", {"lr": 1.0}, clip=1.0)
    same = torch.full((4, 3), 5.0, dtype=torch.float64)
    prepared = ours.prepare([same, same.t()])
    norm = torch.stack([g.norm() for g in prepared if g is not None]).norm()
    torch.testing.assert_close(norm, torch.tensor(1.0, dtype=torch.float64), rtol=1e-6, atol=0)
    assert same.max() == 5.0
    assert block("sgd", clip=float("inf")).prepare([same, None])[0] is same


MISTAKES: dict[str, tuple[Any, str, str]] = {
    "unknown": (lambda: block("adan"), "0652", "no optimizer `adan`"),
    "closure": (lambda: block("lbfgs"), "0653", "evaluate the loss again"),
    "sparse": (lambda: block("sparseadam"), "0653", "sparse gradients"),
    "option": (lambda: block("sgd", {"momentun": 0.9}), "0654", "no option `momentun`"),
    "group option": (
        lambda: block("rprop", groups=(ParameterGroup(("w",), {"weight_decay": 0.1}),)),
        "0654",
        "`weight_decay`",
    ),
    "value": (lambda: block("adam", {"lr": -1.0}), "0654", "Invalid learning rate"),
    "type": (lambda: block("adam", {"betas": 0.9}), "0654", "`adam` refuses"),
    "package": (lambda: block("os:system"), "0652", "none of the packages"),
    "form": (lambda: block("torch:optim:SGD"), "0652", "not of the form"),
    "class": (lambda: block("torch.optim:Sdg"), "0652", "has no `Sdg`"),
    "no optimizer": (lambda: block("torch:load"), "0652", "no subclass"),
    "package that is missing": (lambda: block("timm.optim:Lars"), "0652", "pip install timm"),
    "keyword that is not heeded": (
        lambda: block("pytorch_optimizer:LARS", {"trust": 0.1}),
        "0654",
        "no option `trust`",
    ),
    "options of a package": (lambda: block("pytorch_optimizer:LARS", {"lr": -1.0}), "0654", "refuses its options"),
    "buffer": (lambda: block("sgd", groups=(ParameterGroup(("count",)),)), "0655", "`count` is a buffer"),
    "parameter": (lambda: block("sgd", groups=(ParameterGroup(("x",)),)), "0648", "`x`"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    act, code, part = MISTAKES[name]
    with pytest.raises(LpcError) as caught:
        act()
    assert caught.value.diagnostics[0].code == code
    assert part in caught.value.diagnostics[0].message
