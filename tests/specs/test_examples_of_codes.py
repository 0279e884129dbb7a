"""Is every example of a mistake in a spec's text that mistake, and is its mending right?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from lpc.specs import LpcError, check, load_spec
from lpc.specs.codes import CODES
from lpc.specs.examples import BASE, EXAMPLES, By, whole

TESTS = Path(__file__).resolve().parents[1]


def codes_by(kind: By) -> list[str]:
    return sorted(code for code, example in EXAMPLES.items() if example.by is kind)


def test_every_code_has_an_example_that_says_what_it_means() -> None:
    assert set(CODES) - set(EXAMPLES) == UNREACHED.keys()
    for example in EXAMPLES.values():
        assert example.meaning.endswith("."), example
        assert example.bad.strip()
        assert example.good.strip()
        assert example.bad != example.good


# What no spec, plan or command reaches, and why the code stays.
UNREACHED = {
    "0413": "A gradient through a stop in a plan just compiled: a defect of the compiler, told instead of built.",
}


@pytest.mark.parametrize("code", [*codes_by(By.SHOWN), *UNREACHED])
def test_what_an_example_cannot_hold_is_met_by_another_test(code: str) -> None:
    """A damaged file, a missing library: the tests that make one name the code."""
    own = Path(__file__)
    sources = (path.read_text() for path in TESTS.rglob("test_*.py") if path != own)
    assert any(re.search(rf"[\"'|]({code})[\"'|]|LPC{code}", source) for source in sources)


def test_the_base_is_right() -> None:
    check(load_spec("".join(BASE.values())))


@pytest.mark.parametrize("code", codes_by(By.CHECK))
def test_the_wrong_one_is_told(code: str, snapshot: SnapshotAssertion) -> None:
    with pytest.raises(LpcError) as caught:
        check(load_spec(whole(EXAMPLES[code].bad)))
    assert [problem.code for problem in caught.value.diagnostics] == [code]
    assert caught.value.diagnostics[0].span is not None
    assert str(caught.value) == snapshot


@pytest.mark.parametrize("code", codes_by(By.CHECK))
def test_the_right_one_is_right(code: str) -> None:
    check(load_spec(whole(EXAMPLES[code].good)))
