"""How does a command print? Text as it is, and views that suit a terminal or a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

# A command that prints text only shall not wait for rich.
if TYPE_CHECKING:
    from rich.console import RenderableType

    from lpc.specs.diagnostics import Diagnostic

# Where nobody's terminal has a width, no line is folded.
PIPE_WIDTH = 400


def say(text: str, end: str = "\n") -> None:
    """Print text as it is."""
    sys.stdout.write(text + end)


def show(view: RenderableType, error: bool = False) -> None:
    """Print a view: coloured and fitted on a terminal, plain and unfolded elsewhere."""
    from rich.console import Console

    console = Console(stderr=error)
    width = console.width if console.is_terminal else PIPE_WIDTH
    console.print(view, width=width, soft_wrap=error, highlight=False)


def tell(problem: Diagnostic) -> None:
    """Print a diagnostic on standard error."""
    from lpc.views.diagnostics import diagnostic

    show(diagnostic(problem), error=True)
