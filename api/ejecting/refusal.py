"""How is told that something cannot be ejected? By a diagnostic that names it, before anything is written."""

from __future__ import annotations

from typing import NoReturn

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.source import Span


def refuse(message: str, place: str, span: Span | None = None) -> NoReturn:
    """Raise LpcError 0708."""
    raise LpcError(Diagnostic("0708", message, span, place))
