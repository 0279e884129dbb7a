"""Do networks of the same lengths share what is known of their symbols, and none of what another one assumed?"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lpc.compiler.environments import is_unmarked
from lpc.compiler.frontend.fakes import SymbolicShapes
from lpc.specs.model import Tensor

INPUTS = {"x": Tensor(shape=("T", 4))}


def test_symbols_of_the_same_lengths_are_shared() -> None:
    first, second = SymbolicShapes(INPUTS, 6), SymbolicShapes(INPUTS, 6)
    assert second.mode is not first.mode
    assert second.mode.shape_env is first.mode.shape_env
    assert second.symbols == first.symbols
    assert SymbolicShapes(INPUTS, 7).mode.shape_env is not first.mode.shape_env


def test_what_one_network_assumes_the_next_does_not_know() -> None:
    first = SymbolicShapes(INPUTS, 9)
    assert first.batch(INPUTS["x"]).shape[1] == 11  # a guard: the length is held fast
    assert [name for name, _ in first.fixed_lengths()] == ["T"]
    second = SymbolicShapes(INPUTS, 9)
    assert second.mode.shape_env is not first.mode.shape_env
    assert second.fixed_lengths() == []
    assert str(second.batch(INPUTS["x"]).shape[1]) in second.symbols


def test_choosing_how_to_convolve_assumes_nothing() -> None:
    choose = torch._C._select_conv_backend
    image = Tensor(shape=(3, 8, 8))
    shapes = SymbolicShapes({"image": image}, 6)
    batch = shapes.batch(image)
    with shapes.active():
        assert F.conv2d(batch, torch.ones(2, 3, 3, 3)).shape[1:] == (2, 6, 6)
    assert shapes.mode.shape_env is not None
    assert is_unmarked(shapes.mode.shape_env)
    with shapes.mode:
        F.conv2d(batch, torch.ones(2, 3, 5, 5))
    assert not is_unmarked(shapes.mode.shape_env)  # or torch no longer compares, and nothing need be hidden
    assert torch._C._select_conv_backend is choose
