"""How are terms read? Words, quotes, numbers, nesting, and the place of a mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpc.specs import LpcError, Term, parse_term


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("relu", Term("relu")),
        ("relu()", Term("relu")),
        ("balanced(count=4, by=memory)", Term("balanced", (), {"count": 4, "by": "memory"})),
        ("a(b())", Term("a", (Term("b"),))),
        ("a(b)", Term("a", ("b",))),
        ('a("b()")', Term("a", ("b()",))),
        ("a('it''s')", Term("a", ("it's",))),
        ("a(none, true, false)", Term("a", (None, True, False))),
        ('a("none")', Term("a", ("none",))),
        ("a(1e-5, -2, .5, -.inf)", Term("a", (1e-5, -2, 0.5, float("-inf")))),
        ("a([1, [2]], {k: v, 'x y': 1})", Term("a", ([1, [2]], {"k": "v", "x y": 1}))),
        ("a(\n  1,\n)", Term("a", (1,))),
    ],
)
def test_reading(text: str, term: Term) -> None:
    assert parse_term(text) == term


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("a(", 2),
        ("a)", 2),
        ("a(1,,2)", 5),
        ("3", 1),
        ("a b", 3),
        ("a(x=1, 2)", 8),
        (r'a("\q")', 3),
        ("a(3x)", 3),
    ],
)
def test_a_broken_term_is_located(text: str, column: int) -> None:
    with pytest.raises(LpcError) as caught:
        parse_term(text)
    (found,) = caught.value.diagnostics
    assert found.span is not None
    assert (found.code, found.span.column) == ("0104", column)


@given(st.text(max_size=30))
def test_any_text_is_a_term_or_a_located_error(text: str) -> None:
    try:
        parse_term(text)
    except LpcError as error:
        located = all(d.span is not None for d in error.diagnostics)
    else:
        located = True
    assert located


def test_deep_terms_are_refused() -> None:
    with pytest.raises(LpcError, match="deeper"):
        parse_term("a(" * 5000 + ")" * 5000)
