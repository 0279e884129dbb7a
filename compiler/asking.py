"""Which part of a spec asks for a step? Where problems are told that are met in taking it apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from lpc.compiler.capture.tracing import HeldLengthError
from lpc.compiler.estimator import BACKPROP
from lpc.compiler.rules import stated, stated_path
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Path, Spec


@contextmanager
def asking(spec: Spec, name: str) -> Iterator[None]:
    """Tell problems at the key that asks for the step of a block or a readout, where they have no line of their own.

    A step that holds a length fast is one of them (0412).
    """
    try:
        yield
    except HeldLengthError as error:
        message = f"the step of `{name}` holds the length `{error.length}` fast, which must stay free"
        raise LpcError(_placed(spec, name, Diagnostic("0412", message))) from error
    except LpcError as error:
        raise LpcError([_placed(spec, name, one) for one in error.diagnostics]) from error


def _placed(spec: Spec, name: str, problem: Diagnostic) -> Diagnostic:
    if problem.span is not None or ":" in (problem.place or ""):  # a file and a line
        return problem
    notes = (f"met in `{problem.place}`",) if problem.place and problem.place != name else ()
    return replace(problem, span=spec.key_origin(*_path(spec, name)), notes=(*notes, *problem.notes))


def _path(spec: Spec, name: str) -> Path:
    """Return the path of a readout, of an estimator that is not the usual one, or of a block."""
    if name in spec.readouts:
        return ("readouts", name)
    asked = stated(spec, name, "estimator")
    estimates = asked is not None and asked.name != BACKPROP
    return stated_path(spec, name, "estimator") if estimates else ("decompose", "blocks", name)
