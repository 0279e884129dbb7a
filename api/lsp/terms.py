"""Which term is open where the cursor stands, and which argument of it is being written?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lpc.lsp.expected import of_argument, signatures
from lpc.lsp.place import Call, Place
from lpc.specs.recipes.recipe import Recipe, placeholder
from lpc.specs.signatures import REQUIRED, VOCABULARIES, Parameter, Signature
from lpc.specs.tree import Node, Path, at, lower, walk

Recipes = Mapping[str, Recipe]


@dataclass(frozen=True)
class Argument:
    """The innermost open term, its parameter that is being written, and a path at which the same may stand."""

    term: Signature
    parameter: Parameter | None
    path: Path


def argument_at(place: Place, recipes: Recipes) -> Argument | None:
    """Return what is being written inside the brackets of a term; None where the term is not known."""
    path, found = place.path, None
    for call in place.calls:
        term = term_named(call.name, path, recipes)
        if term is None:
            return None
        parameter = _parameter(term, call)
        recipe = recipes.get(term.name) if path == ("recipe",) else None
        path = _inner(parameter, recipe) if parameter else ("", "")
        found = Argument(term, parameter, path)
    return found


def term_named(name: str, path: Path, recipes: Recipes) -> Signature | None:
    """Return the term of that name that may stand at a path."""
    if path == ("recipe",):
        return recipe_signature(recipes[name]) if name in recipes else None
    return next((term for term in signatures(path) if term.name == name), None)


def zoo_term(whole: Node | None) -> Signature | None:
    """Return the network of the library that a spec names: the keys of `args` are its arguments."""
    node = at(whole, ("network", "zoo")) if whole else None
    return VOCABULARIES["network"].get(str(node.value)) if node else None


def recipe_signature(recipe: Recipe) -> Signature:
    """Return a recipe as the term that names it."""
    parameters = (
        Parameter(p.name, "any", REQUIRED if p.default is None else lower(p.default), p.about)
        for p in recipe.parameters
    )
    return Signature(recipe.name, tuple(parameters), recipe.about)


def _parameter(term: Signature, call: Call) -> Parameter | None:
    if call.key is not None:
        return term.parameter(call.key)
    return term.parameters[call.index] if call.index < len(term.parameters) and not call.given else None


def _inner(parameter: Parameter, recipe: Recipe | None) -> Path:
    """Return where the argument goes in the recipe's template, or a path where the same may stand."""
    if recipe is not None:
        return next((path for path, node in walk(recipe.template) if placeholder(node) == parameter.name), ("", ""))
    return of_argument(parameter)
