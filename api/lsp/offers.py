"""What can be written where the cursor stands? Keys, words, names, and the arguments of an open term."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lpc.lsp import names
from lpc.lsp.analysis import Analysis
from lpc.lsp.dsl_place import LAYER
from lpc.lsp.expected import is_section, keys, signatures, words
from lpc.lsp.place import Place
from lpc.lsp.terms import Argument, argument_at, recipe_signature, zoo_term
from lpc.specs.check_terms import describe, usage
from lpc.specs.dsl_words import first_words
from lpc.specs.signatures import REQUIRED, Parameter
from lpc.specs.term import print_value
from lpc.specs.tree import Path

Kind = Literal["key", "word", "term", "argument", "name"]


@dataclass(frozen=True)
class Offer:
    """Something that can be written: what is shown, in few words and in many, and what is put in its place."""

    label: str
    kind: Kind
    detail: str = ""
    doc: str = ""
    insert: str = ""


def offers(place: Place, analysis: Analysis) -> list[Offer]:
    """Return what can be written at a place, each label once."""
    found: dict[str, Offer] = {}
    for offer in () if analysis.foreign else _all(place, analysis):
        found.setdefault(offer.label, offer)
    return list(found.values())


def _all(place: Place, analysis: Analysis) -> Iterator[Offer]:
    for name in names.referred(place, analysis) or ():
        yield Offer(name.name, "name", name.meaning)
    if place.calls:
        found = argument_at(place, names.recipes(analysis))
        if found is not None:
            yield from _arguments(place, found)
        return
    if place.slot in ("value", "either"):
        yield from _values(place.path, analysis)
    if place.slot in ("key", "either"):
        yield from _keys(place, analysis)


def _values(path: Path, analysis: Analysis) -> Iterator[Offer]:
    if path == ("recipe",):
        for recipe in names.recipes(analysis).values():
            yield Offer(recipe.name, "term", usage(recipe_signature(recipe)), recipe.about)
        return
    terms = {term.name: term for term in signatures(path)}
    for word, doc in words(path).items():
        if word in terms:
            yield Offer(word, "term", usage(terms[word]) if terms[word].parameters else word, doc)
        else:
            yield Offer(word, "word", "", doc)


def _keys(place: Place, analysis: Analysis) -> Iterator[Offer]:
    term = zoo_term(analysis.whole) if place.path == ("network", "args") else None
    for parameter in term.parameters if term else ():
        if parameter.name not in place.given:
            yield Offer(parameter.name, "argument", typed(parameter), parameter.doc, f"{parameter.name}: ")
    if analysis.dsl:
        for word, doc in first_words(place.path).items():
            if word not in place.given:
                yield Offer(word, "key", "", doc)
        if place.path == ("network",):
            yield from _values(LAYER, analysis)
        return
    for key, doc in keys(place.path).items():
        if key not in place.given:
            insert = f"{key}:" if is_section((*place.path, key)) else f"{key}: "
            yield Offer(key, "key", "", doc, insert)


def _arguments(place: Place, found: Argument) -> Iterator[Offer]:
    call = place.calls[-1]
    if found.parameter is not None:
        yield from _choices(found.parameter, found.path)
    if place.slot != "argument":
        return
    positional = 0 if call.given else call.index
    for parameter in found.term.parameters[positional:]:
        if parameter.name not in call.given:
            yield Offer(parameter.name, "argument", typed(parameter), parameter.doc, f"{parameter.name}=")


def _choices(parameter: Parameter, path: Path) -> Iterator[Offer]:
    """Yield the words that an argument may be, and the terms."""
    words_of = {"bool": ("true", "false"), "none": ("none",)}
    listed = [word for kind in parameter.alternatives for word in words_of.get(kind, ())]
    for word in (*parameter.choices, *listed):
        yield Offer(word, "word", typed(parameter), parameter.doc)
    for word, doc in words(path).items():
        yield Offer(word, "term", "", doc)


def typed(parameter: Parameter) -> str:
    """Return an argument's type and default in words."""
    if parameter.default is REQUIRED:
        return f"{describe(parameter)}; required"
    return f"{describe(parameter)}; default {print_value(parameter.default)}"
