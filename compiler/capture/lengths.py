"""What do traces of equal lengths share? The environment of their symbols, as long as a trace has left no mark on it.

An environment of torch keeps what fake tensors of its symbols gave for an operator, which halves the time of the
next trace. It also keeps what a trace has assumed (`B < 16`), and that would decide in the next one: an
environment with an assumption is not used again. So a graph does not depend on what was traced before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx.experimental.symbolic_shapes import ShapeEnv

from lpc.compiler.environments import is_unmarked

# Lengths by number and by the argument that names their symbol.
Lengths = tuple[tuple[int, int], ...]

MOST_IDLE = 16  # environments

_idle: dict[Lengths, ShapeEnv] = {}


@contextmanager
def symbols_of(lengths: Lengths) -> Iterator[ShapeEnv]:
    """Lend an environment for the symbols of some lengths; nobody else has it meanwhile."""
    environment = _idle.pop(lengths, None) or ShapeEnv()
    yield environment
    if is_unmarked(environment):
        _idle[lengths] = environment
    while len(_idle) > MOST_IDLE:
        _idle.pop(next(iter(_idle)))
