"""Which part of a spec asks for a step that holds only for the lengths it was traced with?"""

from __future__ import annotations

from lpc.compiler.capture.tracing import HeldLengthError
from lpc.compiler.estimator import BACKPROP
from lpc.compiler.rules import stated, stated_path
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Path, Spec


def held(spec: Spec, error: HeldLengthError) -> LpcError:
    """Return what is told of a length that a step holds fast, at the key that asks for the step (0412)."""
    message = f"the step of `{error.block}` holds the length `{error.length}` fast, which must stay free"
    return LpcError(Diagnostic("0412", message, span=spec.key_origin(*_path(spec, error.block))))


def _path(spec: Spec, name: str) -> Path:
    """Return the path of a readout, of an estimator that is not the usual one, or of a block."""
    if name in spec.readouts:
        return ("readouts", name)
    asked = stated(spec, name, "estimator")
    estimates = asked is not None and asked.name != BACKPROP
    return stated_path(spec, name, "estimator") if estimates else ("decompose", "blocks", name)
