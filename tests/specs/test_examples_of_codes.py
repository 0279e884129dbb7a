"""Is every example of a mistake that mistake, and is its mending right?"""

from __future__ import annotations

import pytest

from lpc.specs import LpcError, check, load_spec
from lpc.specs.codes import CODES
from lpc.specs.examples import BASE, EXAMPLES, whole

WRITTEN = sorted(code for code, example in EXAMPLES.items() if not example.shown)


def test_every_code_of_the_spec_has_an_example() -> None:
    assert {code for code in CODES if code.startswith("01")} - {"0108"} <= set(EXAMPLES) <= set(CODES)


def test_the_base_is_right() -> None:
    check(load_spec("".join(BASE.values())))


@pytest.mark.parametrize("code", WRITTEN)
def test_the_wrong_one_is_told(code: str) -> None:
    with pytest.raises(LpcError) as caught:
        check(load_spec(whole(EXAMPLES[code].bad)))
    assert [problem.code for problem in caught.value.diagnostics] == [code]
    assert caught.value.diagnostics[0].span is not None


@pytest.mark.parametrize("code", WRITTEN)
def test_the_right_one_is_right(code: str) -> None:
    check(load_spec(whole(EXAMPLES[code].good)))
