"""Does what is printed read back? Values, terms and whole specs, the samples and generated ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lpc.specs import Term, canonical, expand, load_spec, parse_term
from lpc.specs.term import Value, print_value
from lpc.specs.term_text import parse_value

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["none", "True", "null", "a.b", "1e5", "x y", "conv(3)", '"', "'", "\\", ".inf", "\x85", "😀"]
    )
)


def _nested(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    return (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.builds(
            Term,
            NAMES,
            st.lists(inner, max_size=2).map(tuple),
            st.dictionaries(NAMES, inner, max_size=2),
        )
    )


VALUES: st.SearchStrategy[Value] = st.recursive(SCALARS, _nested, max_leaves=8)
TERMS = st.builds(
    Term, NAMES, st.lists(VALUES, max_size=3).map(tuple), st.dictionaries(NAMES, VALUES, max_size=3)
)


@given(TERMS)
def test_terms_round_trip(term: Term) -> None:
    assert parse_term(str(term)) == term


@given(VALUES)
def test_values_round_trip(value: Value) -> None:
    read = parse_value(print_value(value))
    assert read == value
    assert type(read) is type(value)


TEXTS = st.text(max_size=8) | st.sampled_from(
    ["none", "null", "a: b", "- x", "#", "*", "on", "1", "a(b)", "x->y", ""]
)
LAYERS = st.recursive(
    TERMS.map(str) | st.fixed_dictionaries({"fc1": TERMS.map(str)}),
    lambda inner: (
        st.fixed_dictionaries({"repeat(2)": st.lists(inner, max_size=2)})
        | st.fixed_dictionaries(
            {"branch(merge=add)": st.dictionaries(NAMES, st.lists(inner, max_size=2), max_size=2)}
        )
    ),
    max_leaves=4,
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "blocks": st.lists(TEXTS, max_size=2),
        "loss": st.lists(TERMS, max_size=2),
        "optimizer": TERMS,
        "schedule": st.fixed_dictionaries({"warmup": st.integers(0, 9), "then": TERMS}),
        "clip": st.just("none") | st.floats(0.1, 10),
    },
)
SPECS = st.fixed_dictionaries(
    {
        "network": st.fixed_dictionaries(
            {
                "layers": st.lists(LAYERS, max_size=3),
                "inputs": st.dictionaries(TEXTS, st.lists(st.integers(1, 9), max_size=3), max_size=2),
                "init": st.dictionaries(TEXTS, TERMS, max_size=2),
                "config": st.dictionaries(TEXTS, VALUES.filter(lambda v: "Term" not in repr(v)), max_size=2),
            }
        ),
        "decompose": st.fixed_dictionaries(
            {"blocks": TERMS | st.dictionaries(TEXTS, st.lists(TERMS, max_size=2), max_size=2)}
        ),
        "learn": st.lists(RULES, max_size=2),
    },
    optional={"name": TEXTS, "run": st.fixed_dictionaries({"predict": TERMS, "precision": st.just("none")})},
)


def test_samples_round_trip(sample: Path) -> None:
    spec = load_spec(sample)
    text = expand(spec)
    assert load_spec(text) == spec
    assert expand(load_spec(text)) == text
    assert canonical(load_spec(text)) == canonical(spec)


@given(SPECS)
@settings(max_examples=80, deadline=None)
def test_specs_round_trip(given_spec: dict[str, Any]) -> None:
    spec = load_spec(given_spec)
    text = expand(spec)
    read = load_spec(text)
    assert read == spec, text
    assert expand(read) == text


def test_every_default_is_written(digits: Path) -> None:
    text = expand(load_spec(digits))
    for line in ("  early_stop: none", "  validate: every(epoch)", "  at: activation", "  shared: forbid"):
        assert line in text.splitlines()


def test_layers_print_as_they_are_written(digits: Path) -> None:
    assert "    - fc1: linear(256)\n    - relu\n" in expand(load_spec(digits))


def test_a_term_named_like_a_word_of_yaml_survives() -> None:
    spec = load_spec({"network": {}, "decompose": {"blocks": Term("true")}, "learn": []})
    assert load_spec(expand(spec)) == spec
