"""Are the shipped tables those of the grammars, and do they read as the grammars do?"""

from __future__ import annotations

import json

import lark
import pytest

from lpc.specs import grammars
from lpc.specs.texts import shipped_text

from .test_dsl import EXAMPLES

TERMS = ["relu", "linear(256)", "sgd(lr=1e-3, betas=[0.9, .5])", 'f({a: "b c", \'d\': g(none)}, -.inf, x.y,)']
BAD = ["linear(", "f(a=)", "[1", ""]


@pytest.fixture(params=["term", "grammar"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_table_is_of_its_grammar(name: str) -> None:
    """Else it is written anew: `python -m lpc.specs.grammars`."""
    held = json.loads(shipped_text("lpc.specs", f"tables/{name}.json"))
    assert held["of"]["grammar"] == grammars._identity(name)["grammar"]


def test_the_table_of_this_lark_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = json.loads(shipped_text("lpc.specs", f"tables/{name}.json"))
    monkeypatch.setattr(grammars, "built", lambda name: "worked out")
    assert (grammars.parser(name) == "worked out") == (held["of"]["lark"] != lark.__version__)


@pytest.mark.parametrize("said", [{"lark": "0.0"}, {"grammar": "another"}])
def test_another_table_is_passed_over(name: str, said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    of = grammars._identity(name)
    monkeypatch.setattr(grammars, "_identity", lambda name: of | said)
    monkeypatch.setattr(grammars, "built", lambda name: "worked out")
    assert grammars.parser(name) == "worked out"


@pytest.mark.parametrize("start", ["start", "top"])
@pytest.mark.parametrize("text", TERMS + BAD)
def test_terms_are_read_alike(text: str, start: str) -> None:
    assert outcome(grammars.parser("term"), text, start) == outcome(grammars.built("term"), text, start)


def test_the_dsl_is_read_alike() -> None:
    shipped, built = grammars.parser("grammar"), grammars.built("grammar")
    for text in [*EXAMPLES, "network\n  fc1 = \n", "run epochs: 1", "decompose\n  block a b"]:
        assert outcome(shipped, f"\n{text}\n", "start") == outcome(built, f"\n{text}\n", "start")


def outcome(parser: lark.Lark, text: str, start: str) -> object:
    """Return the tree with its places, or where and at what the parser stops."""
    try:
        tree = parser.parse(text, start=start)
    except lark.exceptions.UnexpectedInput as error:
        return type(error), error.pos_in_stream, str(getattr(error, "token", ""))
    return tree, [(part.data, part.meta.start_pos, part.meta.end_pos) for part in tree.iter_subtrees() if part.children]
