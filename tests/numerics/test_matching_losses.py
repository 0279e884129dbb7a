"""Are the matching losses those of LocoProp? Transfers, potentials and divergences against the recorded arrays."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from lpc.compiler.losses.matching import TRANSFERS, Transfer

ARRAYS = numpy.load(Path(__file__).with_name("golden") / "locoprop_matching_losses.npz")
SETTINGS = {"leaky_relu": {"slope": 0.1}}
ELEMENTWISE = [name for name in TRANSFERS if name != "softmax"]


def array(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name])


def transfer(name: str) -> Transfer:
    return TRANSFERS[name](**SETTINGS.get(name, {}))


def near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_transfers(name: str) -> None:
    one, found, start = transfer(name), array("ahat"), array("a")
    near(one.f(found), array(f"{name}_f"))
    shift = one.potential(found) - array(f"{name}_F")  # a potential is defined up to a constant
    near(shift, shift[:1].expand_as(shift))
    pairs = found[:, None].expand(-1, len(start))
    near(one.divergence(pairs, start[None].expand_as(pairs)), array(f"{name}_D"))
    near(one.f(found)[:, None] - one.f(start), array(f"{name}_gradD"))


def test_softmax_is_of_vectors() -> None:
    one, found, start = transfer("softmax"), array("softmax_ahat"), array("softmax_a")
    near(one.f(found), array("softmax_f"))
    near(one.divergence(found, start), array("softmax_D"))
    near(one.f(found) - one.f(start), array("softmax_gradD"))


@pytest.mark.parametrize("name", TRANSFERS)
def test_the_divergence_has_the_slope_of_the_transfer(name: str) -> None:
    """Away from kinks: the derivative of D by its first argument is f(a') - f(a), and D is never below 0."""
    one = transfer(name)
    draw = torch.Generator().manual_seed(0)
    found, start = (torch.randn(5, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    found.requires_grad_()
    divergence = one.divergence(found, start)
    assert bool((divergence >= -1e-14).all())
    (slope,) = torch.autograd.grad(divergence.sum(), found)
    near(slope, (one.f(found) - one.f(start)).detach())
