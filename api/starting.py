"""With what does a new spec begin? The starter, or one that a recipe writes out."""

from __future__ import annotations

from collections.abc import Iterator

from lpc.specs.problems import Problems
from lpc.specs.recipes.recipe import SHIPPED, Parameter, Recipe, shipped
from lpc.specs.texts import shipped_text


def starter(recipe: str | None = None) -> str:
    """Return a commented spec that trains; with `recipe`, one that names this recipe and its arguments.

    Raises:
        LpcError: 0120, for a recipe that the library does not have.
    """
    text = shipped_text("lpc", "starter.yaml")
    if recipe is None:
        return text
    if recipe not in SHIPPED:
        problems = Problems()
        otherwise = f"the recipes are {', '.join(SHIPPED)}"
        problems.misspelt("0120", f"there is no recipe `{recipe}`", None, ("recipe",), recipe, SHIPPED, otherwise)
        problems.raise_any()
    head, _, rest = text.partition("# The global objective")
    run = rest[rest.index("run:") :]
    return "".join([head.replace("name: starter", f"name: starter_{recipe}"), *_recipe(shipped(recipe)), run])


def recipes() -> str:
    """Return the recipes of the library, a line each."""
    width = max(map(len, SHIPPED))
    return "".join(f"  {name:{width}}  {shipped(name).about}\n" for name in SHIPPED)


def _recipe(recipe: Recipe) -> Iterator[str]:
    yield f"# {recipe.about[0].upper()}{recipe.about[1:]}.\n"
    yield "# `lpc expand` shows what this stands for; what the spec says itself wins over it.\n"
    yield f"recipe:\n  {recipe.name}:\n"
    for parameter in recipe.parameters:
        yield f"    {parameter.name}: {_default(parameter)}  # {parameter.about}\n"
    yield "\n"


def _default(parameter: Parameter) -> str:
    """Return a default as the recipe's file writes it."""
    assert parameter.default is not None
    span = parameter.default.span
    assert span is not None
    return span.source.line(span.line)[span.column - 1 : span.end_column - 1]
