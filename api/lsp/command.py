"""What does `lpc lsp` do? It serves an editor, if the library for that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lpc.specs.diagnostics import LpcError

LIBRARIES = ("pygls", "lsprotocol")


def lsp(
    stdio: Annotated[bool, typer.Option("--stdio", help="what it does anyway; some editors say it")] = False,
) -> None:
    """Serve an editor: problems, completion, hover, definitions and layout, over standard input and output."""
    try:
        from lpc.lsp.server import serve
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in LIBRARIES:
            raise
        raise _missing(library) from None
    serve()


def _missing(library: str) -> LpcError:
    from lpc.specs.diagnostics import Diagnostic, LpcError
    from lpc.specs.source import Source, Span

    message = f"`lpc lsp` needs the library `{library}`, which is not installed"
    return LpcError(Diagnostic("0707", message, Span(Source("command line", "lpc lsp"), 1, 5, 1, 8)))
