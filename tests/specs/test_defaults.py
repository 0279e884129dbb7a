"""Does a message about a value that nobody wrote say so, and one about a written value not?"""

from __future__ import annotations

import pytest

import lpc
from lpc.specs import load_spec
from lpc.specs.diagnostics import Diagnostic
from lpc.specs.examples import whole

BARE = whole("decompose: {blocks: {b1: fc1, head: out}}\nlearn: {blocks: b1, optimizer: adam}")
DEFAULTS = {
    ("decompose", "links"): "stop",
    ("decompose", "links", "*"): "stop",
    ("decompose", "shared"): "forbid",
    ("data", "batch"): "128",
    ("run", "metrics"): "accuracy",
    ("run", "validate"): "every(epoch)",
}


def notes(text: str, *path: str) -> tuple[str, ...]:
    return Diagnostic("0114", "what is wrong", load_spec(text).origin(*path)).all_notes()


@pytest.mark.parametrize("path", DEFAULTS, ids=".".join)
def test_a_default_is_called_one(path: tuple[str, ...]) -> None:
    key = ".".join(part for part in path if part != "*")
    assert notes(BARE, *path) == (f"`{key}` is not written; by default it is `{DEFAULTS[path]}`",)


def test_what_is_written_is_not() -> None:
    for path in (("decompose", "blocks"), ("data", "source"), ("run", "epochs"), ("learn", 0, "optimizer"), ()):
        assert notes(BARE, *path) == ()  # type: ignore[arg-type]
    assert notes(BARE.replace("fc1, head: out}", "fc1, head: out}, links: stop"), "decompose", "links") == ()


def test_empty_defaults_and_whole_sections_say_nothing() -> None:
    for path in (("data", "validation"), ("data", "columns"), ("network", "init"), ("run", "early_stop")):
        assert notes(BARE, *path) == ()
    assert notes("\n".join(line for line in BARE.splitlines() if not line.startswith("run:")), "run") == ()


def test_a_build_says_so_too() -> None:
    text = whole("data: {}").replace("[1, 8, 8]", "[1, 9, 9]")
    with pytest.raises(lpc.LpcError, match=r"note: `data.source` is not written; by default it is `digits`"):
        lpc.build(text)
