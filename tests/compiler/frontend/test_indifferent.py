"""Which modules are known to do the same in training as in evaluation?"""

from __future__ import annotations

import pytest
from torch import Tensor, fx, nn

from lpc.compiler.frontend import modules
from lpc.compiler.frontend.indifferent import is_indifferent, same_graphs


class Users(nn.Linear):
    """A class of a package that nothing is known of."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


@pytest.mark.parametrize("module", [nn.Linear(2, 2), nn.Conv2d(1, 1, 1), nn.LayerNorm(2), nn.Sequential(nn.ReLU())])
def test_known_to_be(module: nn.Module) -> None:
    assert is_indifferent(module)


@pytest.mark.parametrize(
    "module",
    [
        nn.Dropout(0.1),
        nn.BatchNorm1d(2),
        nn.InstanceNorm1d(2, track_running_stats=True),
        nn.RReLU(),
        nn.LSTM(2, 2),
        nn.MultiheadAttention(2, 1),
        nn.Sequential(nn.ReLU(), nn.Dropout(0.1)),
        Users(2, 2),
    ],
)
def test_not_known_to_be(module: nn.Module) -> None:
    assert not is_indifferent(module)


def test_every_module_of_the_language_says_so_itself() -> None:
    """Functions that read a module's mode from outside would be overlooked: there are none beside methods."""
    free = [
        f
        for f in vars(modules).values()
        if getattr(f, "__module__", None) == modules.__name__ and not isinstance(f, type)
    ]
    assert not any("training" in f.__code__.co_names for f in free if hasattr(f, "__code__"))


def test_graphs_are_told_apart_by_their_nodes() -> None:
    one, same, other = (
        fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), last())) for last in (nn.ReLU, nn.ReLU, nn.Dropout)
    )
    assert same_graphs(one, same)
    assert not same_graphs(other, other)
    longer = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU()))
    assert not same_graphs(one, longer)
