"""Does any text at all make the checker fail in another way than by located diagnostics?"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

import lpc

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = 300
# What mutations put in: what YAML or a term may stumble over, and words of the language in wrong places.
STUMBLES = """
none null true ~ 0 -1 1e400 .nan .inf 0x10 1_000 '' [] {} [1] {a:1} *x &x !!int " ' % @ ` ? : - , # | > ( ) [ ] { } é <<
linear(3) linear(0) linear( conv relu() sgd(lr=) sgd(lr=0.1,) adam stop gradient every(epoch) repeat(99999999) residual
branch each(*) balanced(count=2) ${HOME} a.b.c extends lpc 999999999999999999999
"""
WORDS = (*STUMBLES.split(), "{a: 1}", "\t", "\x00", "\u2028", "\ud7ff", "😀", " ")
Mutation = Callable[[str, random.Random], str]


def character(text: str, draw: random.Random) -> str:
    """Replace, insert or drop characters."""
    at = draw.randrange(len(text) + 1)
    dropped = draw.choice((0, 1, 1, 3))
    new = draw.choice(("", chr(draw.randrange(32, 127)), draw.choice(WORDS)))
    return text[:at] + new + text[at + dropped :]


def line(text: str, draw: random.Random) -> str:
    """Drop, repeat, move, cut or shift a line."""
    lines = text.split("\n")
    at = draw.randrange(len(lines))
    taken = lines.pop(at)
    kept = draw.choice(((), (taken, taken), (taken[: len(taken) // 2],), (" " + taken,), (taken.lstrip(),)))
    lines[at:at] = kept
    if not kept:
        lines.insert(draw.randrange(len(lines) + 1), taken)
    return "\n".join(lines)


def key(text: str, draw: random.Random) -> str:
    """Give a key another name, that of another key, or none."""
    keys = list(re.finditer(r"[\w.*]+(?=:)", text))
    if not keys:
        return text
    found = draw.choice(keys)
    name = draw.choice((draw.choice(keys)[0], found[0][:-1], found[0] + "s", draw.choice(WORDS)))
    return text[: found.start()] + name + text[found.end() :]


def value(text: str, draw: random.Random) -> str:
    """Give a key or an argument another value."""
    values = list(re.finditer(r"(?<=[:=]) *[^,\n{}\[\]()]+", text))
    if not values:
        return text
    found = draw.choice(values)
    new = draw.choice((draw.choice(values)[0].strip(), draw.choice(WORDS)))
    return f"{text[: found.start()]} {new}{text[found.end() :]}"


MUTATIONS: tuple[Mutation, ...] = (character, line, key, key, value, value, value)  # the structural ones reach deeper


def seeds() -> list[str]:
    """Return the specs that mutants descend from: those that stand alone."""
    folders = (ROOT / "examples", ROOT / "tests" / "specs" / "samples")
    found = [path.read_text() for folder in folders for path in sorted(folder.rglob("*.yaml"))]
    texts = [files("lpc").joinpath("starter.yaml").read_text(), *found]
    return [text for text in texts if "extends:" not in text]


def mutant(texts: list[str], draw: random.Random) -> str:
    """Return a spec with one to four mutations."""
    text = draw.choice(texts)
    for _ in range(draw.choice((1, 1, 2, 4))):
        text = draw.choice(MUTATIONS)(text, draw)
    return text


def complaint(text: str) -> str | None:
    """Return what is wrong with the checker's answer to a text; None where it is right."""
    try:
        lpc.check(text + "\n")
    except lpc.LpcError as error:
        for problem in error.diagnostics:
            if problem.span is None and problem.place is None:
                return f"not located: {problem.message}"
            if problem.span is not None and not _inside(problem, text + "\n"):
                return f"outside the text: {problem.span}"
            if re.search(r"Input should|pydantic|ruamel|Traceback|<class|object at 0x", problem.render()):
                return f"internals: {problem.message}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _inside(problem: lpc.Diagnostic, text: str) -> bool:
    span = problem.span
    assert span is not None
    return 1 <= span.line <= text.count("\n") + 2 and span.column >= 1


@pytest.mark.parametrize("seed", range(4))
def test_mutants_are_told_what_is_wrong(seed: int) -> None:
    draw, texts = random.Random(seed), seeds()
    for _ in range(MUTANTS // 4):
        text = mutant(texts, draw)
        assert complaint(text) is None, f"{complaint(text)}\n{text}"


def test_the_originals_are_right() -> None:
    for text in seeds():
        lpc.check(text)
