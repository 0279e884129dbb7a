"""The contracts: the language in, the plan out, diagnostics. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lpc.specs.lazy import lazily

if TYPE_CHECKING:
    from lpc.specs.checking import check
    from lpc.specs.diagnostics import Diagnostic, LpcError
    from lpc.specs.expanding import canonical, expand
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

# A command that asks for help must not wait for pydantic and lark.
__getattr__, __dir__ = lazily(
    __name__,
    {
        "Diagnostic": "lpc.specs.diagnostics",
        "LpcError": "lpc.specs.diagnostics",
        "Spec": "lpc.specs.model",
        "Term": "lpc.specs.term",
        "canonical": "lpc.specs.expanding",
        "check": "lpc.specs.checking",
        "expand": "lpc.specs.expanding",
        "load_spec": "lpc.specs.loader",
        "parse_term": "lpc.specs.term_text",
    },
)
