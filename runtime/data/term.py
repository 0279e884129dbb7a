"""Which arguments does a term of the `data` section have? Bound by the signatures of the language."""

from __future__ import annotations

from typing import Any

from lpc.runtime.data.problem import problem
from lpc.specs.diagnostics import did_you_mean, one_of
from lpc.specs.signatures.signature import REQUIRED, Signature, Vocabulary
from lpc.specs.term import Term


def arguments(term: Term, words: Vocabulary, code: str, what: str, place: str) -> dict[str, Any]:
    """Return every argument of a term by name, defaults filled in.

    A spec read from text has passed the same test; one made in Python has not.
    Errors: `code` for an unknown name, with the nearest one; 0615 for arguments that do not fit.
    """
    if term.name not in words:
        raise problem(code, f"unknown {what} `{term.name}`", place, notes=[f"known: {one_of(sorted(words))}"],
                      help=did_you_mean(term.name, words))
    signature = words[term.name]
    bad = _misfit(term, signature)
    if bad:
        takes = ", ".join(f"{p.name}: {p.type}" for p in signature.parameters)
        raise problem("0615", f"`{term.name}` {bad}", place, notes=[f"expected {term.name}({takes})"])
    return signature.bind(term)


def _misfit(term: Term, signature: Signature) -> str | None:
    if len(term.args) > len(signature.parameters):
        return f"takes {len(signature.parameters)} arguments, found {len(term.args)}"
    values = signature.bind(term)
    for name, value in values.items():
        parameter = signature.parameter(name)
        if parameter is None:
            return f"has no argument `{name}`"
        if not parameter.accepts(value):
            return f"has `{name}` = {value!r}"
    missing = [p.name for p in signature.parameters if p.default is REQUIRED and p.name not in values]
    return f"lacks {one_of(missing)}" if missing else None
