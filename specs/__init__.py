"""The contracts: the language in, the plan out, diagnostics. Imports no torch."""

from __future__ import annotations

from lpc.specs.check import check
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.expand import canonical, expand
from lpc.specs.loader import load_spec
from lpc.specs.model import Spec
from lpc.specs.term import Term
from lpc.specs.term_text import parse_term

__all__ = [
    "Diagnostic",
    "LpcError",
    "Spec",
    "Term",
    "canonical",
    "check",
    "expand",
    "load_spec",
    "parse_term",
]
