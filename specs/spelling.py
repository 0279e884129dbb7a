"""In which spelling is a text written? `.lpc` is the DSL, anything else YAML; both give one kind of tree."""

from __future__ import annotations

from lpc.specs.source import Source
from lpc.specs.tree import Node
from lpc.specs.yaml_text import read_yaml

DSL_SUFFIX = ".lpc"


def is_dsl(name: str) -> bool:
    """Tell whether a file of this name is written in the DSL."""
    return name.endswith(DSL_SUFFIX)


def read_source(source: Source) -> Node:
    """Return the tree of a text, as written: without what it extends.

    Raises:
        LpcError: 0101 to 0108, what cannot be read.
    """
    if not is_dsl(source.name):
        return read_yaml(source)
    # Imported here: most specs are YAML, and need not wait for the DSL.
    from lpc.specs.dsl_text import read_dsl

    return read_dsl(source)
