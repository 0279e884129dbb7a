"""Are calls of custom autograd functions met, whatever form the function has, and left alone afterwards?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

from lpc.compiler.frontend.customs import custom_functions


class Together(Function):
    """Its forward has the context."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float = 2.0) -> Tensor:  # type: ignore[override]
        ctx.factor = factor
        return x * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return 10 * ctx.factor * gradient, None


class Apart(Function):
    """Its context is set up apart."""

    @staticmethod
    def forward(x: Tensor, factor: float = 2.0) -> Tensor:  # type: ignore[override]
        return x * factor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return 10 * ctx.factor * gradient, None


class Heir(Together):
    """Has another's forward."""


CALLS = {kind: kind.apply for kind in (Together, Apart, Heir)}  # kept as networks keep them, at import


def gradient(call: Callable[..., Any]) -> Tensor:
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    call(x, 3.0).sum().backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("kind", CALLS)
def test_calls_are_met_with_what_was_given(kind: type[Function]) -> None:
    met: list[tuple[Any, ...]] = []

    def handler(function: type[Function], apply: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        assert torch.is_grad_enabled()
        met.append((function, args, kwargs))
        return "in its place"

    x = object()
    with custom_functions(handler):
        assert CALLS[kind](x, 3.0) == "in its place"
    assert met == [(kind, (x, 3.0), {})]


@pytest.mark.parametrize("kind", CALLS)
def test_the_original_keeps_its_backward(kind: type[Function]) -> None:
    def handler(function: type[Function], apply: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return apply(function, *args, **kwargs)

    with custom_functions(handler):
        inside = gradient(CALLS[kind])
    assert inside.equal(gradient(CALLS[kind]))
    assert inside.tolist() == [30.0, 30.0]


def test_nothing_is_left_behind() -> None:
    before = {kind: dict(vars(kind)) for kind in CALLS}
    with pytest.raises(ZeroDivisionError), custom_functions(lambda *_: 1 / 0):
        CALLS[Together](torch.ones(1))
    assert {kind: dict(vars(kind)) for kind in CALLS} == before
