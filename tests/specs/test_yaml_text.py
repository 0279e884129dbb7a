"""Is YAML read with places and bounds? Spans of values and keys, terms as scalars, core types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpc.specs import LpcError
from lpc.specs.source import Source
from lpc.specs.tree import Node, at, lower
from lpc.specs.yaml_text import read_yaml


def read(text: str) -> Node:
    return read_yaml(Source("s.yaml", text))


def test_terms_need_no_quotes_inside_brackets() -> None:
    text = "a: [conv(64, 3), {x: sgd(lr=0.1, b=[1, 2])}]  # c\nb: f(1, 2)   # c\nf(1, 2): [c: d(1, 2), e]\n"
    assert lower(read(text)) == {
        "a": ["conv(64, 3)", {"x": "sgd(lr=0.1, b=[1, 2])"}],
        "b": "f(1, 2)",
        "f(1, 2)": [{"c": "d(1, 2)"}, "e"],
    }


def test_prose_with_brackets_stays_a_text() -> None:
    assert lower(read("a: f(x) and more\nb: see (this)\n")) == {"a": "f(x) and more", "b": "see (this)"}


def test_a_term_may_go_over_lines() -> None:
    assert lower(read("a: [f(x,\n  y), 2]\n")) == {"a": ["f(x,\n  y)", 2]}


def test_core_types() -> None:
    text = "[1, -2, 0x1f, 1e-5, .5, .inf, true, null, ~, none, yes, 2020-01-01, 1_000, '7', 010]"
    inf = float("inf")
    expected = [1, -2, 31, 1e-5, 0.5, inf, True, None, None, "none", "yes", "2020-01-01", "1_000", "7", 10]
    assert lower(read(text)) == expected


def test_values_and_keys_know_their_place() -> None:
    root = read("a:\n  b: [1, two]\n  'c': \"x\"\n")
    places = {path: at(root, path) for path in [("a", "b"), ("a", "b", 1), ("a", "c")]}
    found = {path: (str(node.span), node.key and str(node.key)) for path, node in places.items() if node}
    assert found == {
        ("a", "b"): ("s.yaml:2:6", "s.yaml:2:3"),
        ("a", "b", 1): ("s.yaml:2:10", None),
        ("a", "c"): ("s.yaml:3:8", "s.yaml:3:3"),
    }


def test_an_empty_text_is_an_empty_mapping() -> None:
    assert lower(read("# nothing\n")) == {}


@given(st.text(alphabet="ab:-[]{},()'\"#&*!|>%@`\n\t =.1~\x00\x85", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        told = read(text) is not None
    except LpcError as error:
        told = bool(error.diagnostics)
    assert told


@pytest.mark.parametrize("depth", [63, 100_000])
def test_nesting_is_bounded(depth: int) -> None:
    text = "[" * depth + "]" * depth
    if depth < 64:
        read(text)
        return
    with pytest.raises(LpcError, match="nested deeper"):
        read(text)
