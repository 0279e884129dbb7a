"""How does a command print? Text as it is, and views that suit a terminal or a pipe."""

from __future__ import annotations

import sys

from rich.console import Console, RenderableType

# Where nobody's terminal has a width, no line is folded.
PIPE_WIDTH = 400


def say(text: str, end: str = "\n") -> None:
    """Print text as it is."""
    sys.stdout.write(text + end)


def show(view: RenderableType, error: bool = False) -> None:
    """Print a view: coloured and fitted on a terminal, plain and unfolded elsewhere."""
    console = Console(stderr=error)
    width = console.width if console.is_terminal else PIPE_WIDTH
    console.print(view, width=width, soft_wrap=error, highlight=False)
