"""How is a problem with data told? One place that makes the errors of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Data
from lpc.specs.source import Span

Origin: TypeAlias = Callable[..., Span | None]
"""`Spec.origin`: where the value at a path of the spec was written."""


def problem(
    code: str, message: str, place: str, *, notes: Sequence[str] = (), help: str | None = None
) -> LpcError:
    """Return the error to raise. `place` is a file (and byte or row), or a path in the spec: `data.test`."""
    return LpcError(Diagnostic(code, message, place=place, notes=tuple(notes), help=help))


@contextmanager
def located(origin: Origin | None) -> Iterator[None]:
    """Turn places that are paths in the spec into spans of its text."""
    try:
        yield
    except LpcError as error:
        if origin is None:
            raise
        raise LpcError([_spanned(d, origin) for d in error.diagnostics]) from error


def _spanned(diagnostic: Diagnostic, origin: Origin) -> Diagnostic:
    section, *path = (diagnostic.place or "").split(".")
    if section != "data" or not path or path[0] not in Data.model_fields:
        return diagnostic
    keys = [int(part) if part.isdigit() else part for part in path]
    return replace(diagnostic, span=origin(section, *keys))
