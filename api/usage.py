"""What does a command line say that the command does not take, and how is an interrupted one continued?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from lpc.specs.diagnostics import Diagnostic
    from lpc.specs.source import Span

# Some versions of typer hold a copy of click, others import it: this public name leads to its base in both.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def misuse(error: Any, arguments: Sequence[str]) -> Diagnostic:
    """Return the diagnostic of a command line that cannot be understood, at the argument that is wrong."""
    from lpc.specs.diagnostics import Diagnostic

    message = str(error.format_message()).rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "lpc"
    return Diagnostic("0705", message, _span(message, arguments), help=f"see `{command} --help`")


def continuation(arguments: Sequence[str]) -> str:
    """Return how a run that was interrupted is continued; nothing for commands that keep no state."""
    if arguments[:1] != ["run"]:
        return ""
    again = shlex.join(["lpc", *(word for word in arguments if word != "--resume"), "--resume"])
    return f"; to continue from the last checkpoint:\n  {again}"


def _span(message: str, arguments: Sequence[str]) -> Span:
    """Return the place of the first argument that the message names, else of the end of the line."""
    from lpc.specs.source import Source, Span

    words = [shlex.quote(argument) for argument in arguments]
    line = Source("command line", " ".join(["lpc", *words]))
    column = len("lpc ") + 1
    for word, argument in zip(words, arguments, strict=True):
        if _names(message, argument.partition("=")[0]):
            return Span(line, 1, column, 1, column + len(word))
        column += len(word) + 1
    return Span(line, 1, len(line.text) + 1, 1, len(line.text) + 2)


def _names(message: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", message) is not None
