"""What does the word under the cursor mean? Its line of meaning, its arguments, and where its value comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lpc.lsp import names
from lpc.lsp.analysis import Analysis
from lpc.lsp.expected import described, words
from lpc.lsp.offers import typed
from lpc.lsp.origins import origins
from lpc.lsp.place import Place
from lpc.lsp.terms import argument_at, term_named, zoo_term
from lpc.specs.check_terms import usage
from lpc.specs.dsl_words import STATEMENTS
from lpc.specs.keys import KEYS
from lpc.specs.signatures import Signature
from lpc.specs.term import Term, print_value
from lpc.specs.tree import Path
from lpc.specs.validate import model_at

# Of a pattern that means more names than one can read.
_SHOWN = 12


def meaning(place: Place, analysis: Analysis, after: str) -> str | None:
    """Return what the word that ends at a place means, as Markdown; `after` is the text behind it."""
    parts = [] if analysis.foreign else list(_parts(place, analysis, after))
    return "\n\n".join(parts) if parts else None


def _parts(place: Place, analysis: Analysis, after: str) -> Iterator[str]:
    word = place.typed
    meant = names.meant(place, analysis)
    for name in meant[:_SHOWN]:
        yield f"`{name.name}`: {name.meaning}{_elsewhere(name, analysis)}"
    if len(meant) > _SHOWN:
        yield f"and {len(meant) - _SHOWN} more"
    if not word:
        return
    if place.calls:
        yield from _in_term(place, analysis, after)
        return
    key = _key(place, analysis, after)
    if key is not None:
        yield from _of_key(key, analysis)
    elif place.slot in ("value", "either"):
        yield from _of_word(place, analysis)


def _elsewhere(name: names.Name, analysis: Analysis) -> str:
    span = name.span
    return f", from {span}" if span is not None and span.source.name != str(analysis.path) else ""


def _in_term(place: Place, analysis: Analysis, after: str) -> Iterator[str]:
    """Yield the meaning of an argument, or of a word or term that is its value."""
    found = argument_at(place, names.recipes(analysis))
    if found is None:
        return
    named = found.term.parameter(place.typed)
    if place.slot == "argument" and named is not None and re.match(r"\s*=", after):
        yield f"**{named.name}** ({typed(named)})\n\n{named.doc}"
        return
    term = term_named(place.typed, found.path, {})
    if term is not None:
        yield _of_term(term)
    elif found.parameter is not None:
        yield f"**{found.parameter.name}** ({typed(found.parameter)})\n\n{found.parameter.doc}"


def _key(place: Place, analysis: Analysis, after: str) -> Path | None:
    """Return the path of the key that the word is; None where it is a value."""
    if analysis.dsl:
        if place.slot not in ("key", "either"):
            return None
        word = STATEMENTS.get(place.path, {}).get(place.typed, place.typed)
        return (*place.path, word)
    written = place.slot == "key" or (place.slot == "either" and re.match(r"[\"']?\s*:(\s|$)", after))
    return (*place.path, place.typed) if written else None


def _of_key(path: Path, analysis: Analysis) -> Iterator[str]:
    found = described(path)
    doc = (found or {}).get("description") or KEYS.get(str(path[0]) if len(path) > 1 else "", {}).get(str(path[-1]))
    zoo = zoo_term(analysis.whole) if path[:-1] == ("network", "args") else None
    parameter = zoo.parameter(str(path[-1])) if zoo else None
    if parameter is not None:
        yield f"**{parameter.name}** ({typed(parameter)})\n\n{parameter.doc}"
        return
    if found is None:
        term = term_named(str(path[-1]), path[:-1], names.recipes(analysis))
        yield from [_of_term(term)] if term else []
        return
    yield f"**{path[-1]}**{_default(path)}\n\n{doc}"
    choices = [word for word in words(path) if word != "none"]
    if choices:
        yield "One of " + ", ".join(f"`{word}`" for word in choices)
    yield from origins(path, analysis)


def _default(path: Path) -> str:
    """Return the default of a key, in brackets; nothing for a key that has none."""
    model = model_at(path[:-1])
    fields = model.model_fields.items() if model else ()
    field = next((field for name, field in fields if (field.alias or name) == path[-1]), None)
    default = field.default if field else None
    if not isinstance(default, bool | int | float | str | Term):
        return ""
    return f" (default `{default if isinstance(default, str | Term) else print_value(default)}`)"


def _of_word(place: Place, analysis: Analysis) -> Iterator[str]:
    term = term_named(place.typed, place.path, names.recipes(analysis))
    if term is not None:
        yield _of_term(term)
        if place.path == ("recipe",):
            yield from origins(place.path, analysis)
    elif place.path == ("extends",):
        yield from origins(place.path, analysis)
    elif place.typed in words(place.path) and words(place.path)[place.typed]:
        yield f"**{place.typed}**: {words(place.path)[place.typed]}"


def _of_term(term: Signature) -> str:
    """Return a term as one writes it, its meaning, and a line for each argument."""
    lines = [f"`{usage(term) if term.parameters else term.name}`: {term.doc}"]
    lines += [f"- `{p.name}` ({typed(p)}){': ' + p.doc if p.doc else ''}" for p in term.parameters]
    return "\n".join(lines[:1] + [""] * (len(lines) > 1) + lines[1:])
