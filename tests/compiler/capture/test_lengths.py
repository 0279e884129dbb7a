"""Does a trace leave anything behind that the next one of the same lengths could see?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from lpc.compiler.capture.lengths import symbols_of
from lpc.compiler.capture.tracing import Argument, trace_function

LENGTHS = ((13, 0),)  # the batch, first seen in argument 0


def graph(function: object) -> str:
    """Trace a function of one tensor of shape [B, 4], and return its graph as text."""
    argument = Argument("x", torch.float32, ("B", 4))
    traced = trace_function(function, [argument], device=torch.device("cpu"))  # type: ignore[arg-type]
    return str(traced.graph)


def small_known(x: Tensor) -> list[Tensor]:
    """What it computes tells whether a bound of the batch is taken for granted."""
    return [x + 1 if statically_known_true(x.shape[0] < 16) else x * 2]


def assuming(x: Tensor) -> list[Tensor]:
    return [x + 3 if x.shape[0] < 16 else x]


def test_an_environment_is_lent_again() -> None:
    with symbols_of(LENGTHS) as first:
        pass
    with symbols_of(LENGTHS) as second, symbols_of(LENGTHS) as meanwhile:
        assert second is first
        assert meanwhile is not first


def test_what_one_trace_assumes_the_next_does_not_know() -> None:
    before = graph(small_known)
    assert "mul" in before
    assert "add" in graph(assuming)
    assert graph(small_known) == before


def convolved(x: Tensor) -> list[Tensor]:
    return [F.conv1d(x[:, None], x.new_ones(1, 1, 3)).relu()]


def test_a_convolution_assumes_nothing() -> None:
    """Torch chooses how to convolve by comparing the batch with 16, which excludes nothing."""
    with symbols_of(LENGTHS) as before:
        pass
    assert "convolution" in graph(convolved)
    with symbols_of(LENGTHS) as after:
        assert after is before


def test_a_trace_that_fails_gives_nothing_back() -> None:
    with pytest.raises(ZeroDivisionError), symbols_of(LENGTHS) as failed:
        raise ZeroDivisionError
    with symbols_of(LENGTHS) as other:
        assert other is not failed
