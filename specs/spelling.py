"""In which spelling is a text written? A file tells it by its name, text without a file by its first word."""

from __future__ import annotations

import re

from lpc.specs.keys import KEYS
from lpc.specs.source import Source
from lpc.specs.tree import Node

DSL_SUFFIX = ".lpc"

# The DSL begins with the word of a statement; in YAML, where a spec is a mapping, a colon follows the first word.
_STATEMENT = re.compile(rf"(?:\s|#[^\n]*\n)*(?:{'|'.join(('spec', 'field', *KEYS['']))})(?=\s)(?!\s*:)")


def is_dsl(name: str) -> bool:
    """Tell whether a file of this name is written in the DSL."""
    return name.endswith(DSL_SUFFIX)


def begins_as_dsl(text: str) -> bool:
    """Tell whether a text begins as one in the DSL does."""
    return _STATEMENT.match(text) is not None


def read_source(source: Source) -> Node:
    """Return the tree of a text, as written: without what it extends. The name tells the spelling.

    Raises:
        LpcError: 0101 to 0108, what cannot be read.
    """
    return _read(source, is_dsl(source.name))


def read_given(source: Source) -> Node:
    """Return the tree of a text that is no file's, as `read_source` does."""
    return _read(source, begins_as_dsl(source.text))


def _read(source: Source, dsl: bool) -> Node:
    # Imported here: a spec in one spelling need not wait for the other's parser.
    if dsl:
        from lpc.specs.dsl_text import read_dsl

        return read_dsl(source)
    from lpc.specs.yaml_text import read_yaml

    return read_yaml(source)
