"""Is noise a function of its key, of the right law and shape?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpc.runtime.noise import Source, key
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.lengths import length, sizes
from lpc.specs.plan.plan import Noise

CPU = torch.device("cpu")


def source(
    law: str = "normal", args: tuple[float, ...] = (0.0, 1.0), dtype: str = "float32", site: str = "s"
) -> Source:
    return Source(Noise(site, law, args, TensorType(dtype, ("B", "T*2", 3))), CPU, torch.Generator())


def test_the_key_is_the_same_in_every_process() -> None:
    assert key(0, 0, 0, "fc1.dropout") == 570311327810413567
    keys = {key(s, t, p, site) for s in range(3) for t in range(3) for p in range(3) for site in ("a", "b")}
    assert len(keys) == 54
    assert all(0 <= k < 2**63 for k in keys)


def test_draws_depend_on_the_key_alone() -> None:
    symbols = {"B": 4, "T": 5}
    first = source().draw(1, 2, 0, symbols)
    torch.manual_seed(99)
    other = source()
    other.draw(7, 7, 7, symbols)
    assert torch.equal(first, other.draw(1, 2, 0, symbols))
    assert first.shape == (4, 10, 3)
    changed = [
        other.draw(2, 2, 0, symbols),
        other.draw(1, 3, 0, symbols),
        other.draw(1, 2, 1, symbols),
        source(site="t").draw(1, 2, 0, symbols),
    ]
    assert not any(torch.equal(first, draw) for draw in changed)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    source().draw(0, 0, 0, {"B": 1, "T": 1})
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("law", "args", "mean", "spread"),
    [
        ("bernoulli", (0.3,), 0.3, 0.21**0.5),
        ("uniform", (1.0, 3.0), 2.0, (4 / 12) ** 0.5),
        ("normal", (5.0, 2.0), 5.0, 2.0),
    ],
)
def test_laws(law: str, args: tuple[float, ...], mean: float, spread: float) -> None:
    drawn = source(law, args, "float64").draw(0, 0, 0, {"B": 100, "T": 100})
    assert drawn.dtype == torch.float64
    assert abs(float(drawn.mean()) - mean) < 5 * spread / drawn.numel() ** 0.5
    assert abs(float(drawn.std()) - spread) < 0.05 * spread


def test_masks_may_be_boolean() -> None:
    assert source("bernoulli", (0.5,), "bool").draw(0, 0, 0, {"B": 2, "T": 2}).dtype == torch.bool


@pytest.mark.parametrize(("law", "args"), [("cauchy", (0.0, 1.0)), ("normal", (0.0,)), ("bernoulli", ())])
def test_unknown_laws(law: str, args: tuple[float, ...]) -> None:
    with pytest.raises(LpcError, match="is no law of noise"):
        source(law, args)


@given(st.integers(1, 50), st.integers(1, 50))
def test_lengths_are_whole_number_expressions(b: int, t: int) -> None:
    symbols = {"B": b, "T": t}
    for text in ("B", "B*197", "(B + T)//2", "B*T - T % 3", "2*(B + 1)"):
        assert length(text, "test")(symbols) == eval(text, {}, symbols)
    assert sizes((3, "B"), "test")(symbols) == (3, b)


@pytest.mark.parametrize(
    "text", ["B(", "f(B)", "B.x", "1.5", "'a'", "B**B", "__import__('os')", "B if B else 1"]
)
def test_other_syntax_is_no_length(text: str) -> None:
    with pytest.raises(LpcError, match="is not an axis length"):
        length(text, "test")
