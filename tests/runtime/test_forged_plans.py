"""Is a plan refused that nobody would build: written by hand, for another device, or by another lpc or torch?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lpc.runtime import operators
from lpc.runtime.journal import Journal
from lpc.runtime.noise import Source
from lpc.runtime.period import due
from lpc.runtime.schedules import law_of
from lpc.runtime.selection import choose_kernels
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.lengths import length
from lpc.specs.plan.plan import Noise
from lpc.specs.term import Term


class Captured:
    """As much of a plan as the choice of kernels reads."""

    target = "cuda"

    def __init__(self, *kernels: Kernel) -> None:
        self.kernels = {"native": {kernel.name: kernel for kernel in kernels}}


CUDA = Kernel("b1.local", "b1", (), (), (), device="cuda")
NOISE = Noise("drop", "cauchy", (0.0, 1.0), TensorType("float32", ("B", 4)))
CPU = torch.device("cpu")

# code: what refuses, and what the message says
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "0644": (lambda: length("B**B", "shape"), "`B[*][*]B` is not an axis length"),
    "0645": (lambda: Source(NOISE, CPU, torch.Generator()), "laws are `bernoulli`"),
    "0650": (lambda: law_of({"then": "cosin"}), "did you mean `cosine`"),
    "0664": (lambda: choose_kernels(Captured(CUDA), CPU), "built for `cuda`"),  # type: ignore[arg-type]
    "0668": (lambda: due(Term("often", (50,)), 10, "run.log"), "`often[(]50[)]` is no period"),
}


@pytest.mark.parametrize("code", REFUSED)
def test_it_is_refused(code: str) -> None:
    act, says = REFUSED[code]
    with pytest.raises(LpcError, match=says) as caught:
        act()
    (problem,) = caught.value.diagnostics
    assert problem.code == code
    assert problem.place


def test_kernels_that_fit_any_device_are_taken() -> None:
    kernels = choose_kernels(Captured(replace(CUDA, device="any")), CPU)  # type: ignore[arg-type]
    assert list(kernels) == ["b1.local"]


def test_an_operator_of_a_younger_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "is_allowed", lambda name: True)
    with pytest.raises(LpcError, match=r"LPC0642.*has no operator `aten.of_tomorrow.default`"):
        operators.overload("aten.of_tomorrow.default", "kernel b1.local")


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(LpcError, match="LPC0669"):
        Journal(tmp_path, tensorboard=True)
