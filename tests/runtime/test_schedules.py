"""Are learning-rate factors those of the closed forms, and of torch's schedulers where it has the same?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from lpc.runtime.schedules import is_constant, lr_factor, needs_lengths
from lpc.specs.diagnostics import LpcError
from lpc.specs.term import Term


def factors(schedule: dict[str, Any], total: int = 20, per_epoch: int = 5) -> list[float]:
    return [lr_factor(schedule, step, total, per_epoch) for step in range(total)]


def torch_factors(make: Any, total: int = 20) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(total):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


TORCH: dict[str, tuple[dict[str, Any], Any]] = {
    "linear": ({"then": "linear(floor=0.25)"}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.25, 20)),
    "cosine": ({"then": "cosine(floor=0.1)"}, lambda o: lr_scheduler.CosineAnnealingLR(o, 20, 0.1)),
    "step": ({"then": "step(period=6, gamma=0.5)"}, lambda o: lr_scheduler.StepLR(o, 6, 0.5)),
    "exponential": ({"then": "exponential(0.9)"}, lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    "warm-up, then cosine": (
        {"warmup": 4, "then": "cosine"},
        lambda o: lr_scheduler.LambdaLR(
            o, lambda t: t / 4 if t < 4 else (1 + math.cos(math.pi * (t - 4) / 16)) / 2
        ),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_as_in_torch(name: str) -> None:
    schedule, make = TORCH[name]
    assert factors(schedule) == pytest.approx(torch_factors(make), abs=1e-12)


def test_epochs_are_whole() -> None:
    found = factors({"warmup": 1, "then": "linear", "unit": "epoch"})
    assert found == pytest.approx([0.0] * 5 + [1.0] * 5 + [2 / 3] * 5 + [1 / 3] * 5)


def test_the_default_is_constant() -> None:
    assert factors({}) == [1.0] * 20
    assert is_constant({})
    assert is_constant({"warmup": 0, "then": Term("constant"), "unit": "epoch"})
    assert not is_constant({"warmup": 1})


@given(
    st.sampled_from(["linear", "linear(0.3)", "cosine", "cosine(floor=0.3)", "constant"]),
    st.integers(0, 30),
    st.integers(1, 60),
    st.integers(0, 100),
    st.sampled_from(["step", "epoch"]),
)
def test_factors_stay_between_0_and_1(law: str, warmup: int, total: int, step: int, unit: str) -> None:
    assert 0.0 <= lr_factor({"warmup": warmup, "then": law, "unit": unit}, step, total, 7) <= 1.0


@pytest.mark.parametrize("law", ["cosines", "step(period=0)"])
def test_unknown_laws(law: str) -> None:
    with pytest.raises(LpcError, match="is no schedule law"):
        lr_factor({"then": law}, 0, 10, 1)


def test_unknown_lengths() -> None:
    assert needs_lengths({"then": "cosine"})
    assert needs_lengths({"warmup": 2, "unit": "epoch"})
    assert not needs_lengths({"then": "exponential(0.9)"})
    for schedule in ({"then": "cosine"}, {"warmup": 1, "unit": "epoch"}):
        with pytest.raises(LpcError, match="is not known here"):
            lr_factor(schedule, 0)
