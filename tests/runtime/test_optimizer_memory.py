"""Does the table of optimizers' memory say what torch's own keep and make, with every option that changes it?"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from lpc.runtime.ledger import Ledger
from lpc.runtime.optimizer_class import OWN, REFUSED, classes
from lpc.specs.diagnostics import LpcError
from lpc.specs.memory.optimizers import FOOTPRINTS, SCALAR, kept, made
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Optimizer, ParameterGroup

KINDS = {**classes(), **OWN}
SHAPES = ((64, 32), (16, 64), (8, 32))
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "adam": [{"amsgrad": True}, {"weight_decay": 0.1}],
    "adamw": [{"amsgrad": True}],
    "nadam": [{"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "rmsprop": [{"momentum": 0.9}, {"centered": True}],
    "sgd": [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
}
CASES = [
    (name, options)
    for name in FOOTPRINTS
    for options in ({}, {"weight_decay": 0.1}, *OPTIONS.get(name, ()))
    if set(options) <= set(inspect.signature(KINDS[name]).parameters)
]


def measured(name: str, options: dict[str, Any]) -> tuple[int, int]:
    """Return what torch keeps and makes: bytes of state, and the most that its second step makes for a moment."""
    kind = KINDS[name]
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    known = inspect.signature(kind).parameters
    way = next(({word: True} for word in ("fused", "foreach") if word in known and not set(options) & {word}), {})
    optimizer: Any = kind(parameters, **{"lr": 0.1} | options, **(way if "foreach" not in options else {}))
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    states = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    with torch.inference_mode(), Ledger() as ledger:
        optimizer.step()
    return sum(state.untyped_storage().nbytes() for state in states), ledger.peak


def planned(name: str, options: dict[str, Any]) -> tuple[Optimizer, dict[str, TensorType]]:
    types = {f"p{i}": TensorType("float32", shape) for i, shape in enumerate(SHAPES)}
    return Optimizer("b", name, options, (ParameterGroup(tuple(types)),)), types


def test_the_table_has_every_optimizer() -> None:
    assert set(FOOTPRINTS) == set(KINDS) - set(REFUSED)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_table_says_what_torch_does(name: str, options: dict[str, Any]) -> None:
    state, moment = measured(name, options)
    optimizer, types = planned(name, options)
    assert kept(optimizer, types) == state
    parameters = 4 * sum(rows * columns for rows, columns in SHAPES)
    if name in ("adafactor", "muon", "rprop"):  # sums, smaller matrices and masks beside whole copies
        assert abs(made(optimizer, types) - moment) <= 0.3 * parameters
    else:
        assert abs(made(optimizer, types) - moment) <= len(SHAPES) * SCALAR


@pytest.mark.parametrize("name", sorted(FOOTPRINTS))
def test_without_foreach_no_more_than_some_copies_of_the_largest(name: str) -> None:
    if "foreach" not in inspect.signature(KINDS[name]).parameters:
        return
    options = {"foreach": False, "weight_decay": 0.1} if name != "rprop" else {"foreach": False}
    optimizer, types = planned(name, options)
    assert 0 < measured(name, options)[1] <= made(optimizer, types)


def test_an_unknown_optimizer_is_told() -> None:
    optimizer, types = planned("adamm", {})
    with pytest.raises(LpcError, match="0562"):
        kept(optimizer, types)
