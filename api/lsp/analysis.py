"""What is in a text that is being edited? Its problems, and its tree as of the last time that it could be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lpc.specs.checking import found
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.keys import KEYS
from lpc.specs.loader import whole_tree
from lpc.specs.problems import Problems
from lpc.specs.recipes.recipe import read_recipe
from lpc.specs.source import Source
from lpc.specs.spelling import is_dsl, read_source
from lpc.specs.tree import Node
from lpc.specs.validate import validate

# Editors hand over every YAML file: only what looks like a spec is one.
_SPEC = re.compile(r"^(lpc|network|decompose|learn|extends|recipes?)[ \t]*:", re.MULTILINE)
_KEY = re.compile(r"^([\w-]+)[ \t]*:", re.MULTILINE)
_RECIPE = re.compile(r"^template[ \t]*:", re.MULTILINE)


@dataclass(frozen=True)
class Analysis:
    """A text under its path, what is wrong with it, and two trees: as `written`, and with all that it refers to.

    The trees are of the last text that could be read, None where none could be.
    """

    path: Path
    text: str
    problems: tuple[Diagnostic, ...] = ()
    written: Node | None = None
    whole: Node | None = None

    @property
    def dsl(self) -> bool:
        """Tell whether the text is written in the DSL."""
        return is_dsl(str(self.path))

    @property
    def foreign(self) -> bool:
        """Tell whether the text is YAML of another kind: with keys at its margin, none of which make a spec."""
        if self.dsl or _SPEC.search(self.text):
            return False
        return any(key not in KEYS[""] for key in _KEY.findall(self.text))


def analyse(path: Path, text: str, before: Analysis | None = None) -> Analysis:
    """Return what is in a text; what cannot be read of it is taken from the analysis `before`."""
    if not is_dsl(str(path)) and _RECIPE.search(text):
        return Analysis(path, text, _recipe_problems(path, text))
    if not is_dsl(str(path)) and not _SPEC.search(text):
        return Analysis(path, text)
    written = before.written if before else None
    whole = before.whole if before else None
    problems = Problems()
    try:
        written = read_source(Source(str(path), text))
        whole = whole_tree(written, path, problems)
        rules = found(validate(whole, problems))
    except LpcError as error:
        return Analysis(path, text, error.diagnostics, written, whole)
    problems.found += rules.found
    return Analysis(path, text, tuple(problems.in_order()), written, whole)


def _recipe_problems(path: Path, text: str) -> tuple[Diagnostic, ...]:
    try:
        read_recipe(Source(str(path), text))
    except LpcError as error:
        return error.diagnostics
    return ()
