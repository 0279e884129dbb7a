"""Where does the cursor stand, in either spelling? At an offset, or at the end of the word around it."""

from __future__ import annotations

import re

from lpc.lsp.analysis import Analysis
from lpc.lsp.dsl_place import dsl_place
from lpc.lsp.place import Place
from lpc.lsp.yaml_place import yaml_place

_WORD = re.compile(r"[\w.*?]*")


def place_in(analysis: Analysis, offset: int) -> Place:
    """Return the place at an offset of the text."""
    return dsl_place(analysis.text, offset) if analysis.dsl else yaml_place(analysis.text, offset)


def word_in(analysis: Analysis, offset: int) -> tuple[Place, int]:
    """Return the place at the end of the word around an offset, and that end."""
    word = _WORD.match(analysis.text, offset)
    end = word.end() if word else offset
    return place_in(analysis, end), end
