"""With what does a new spec begin? The starter, or one that a recipe writes out, on a network and data that fit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lpc.specs.problems import Problems
from lpc.specs.recipes.recipe import SHIPPED, Recipe, shipped
from lpc.specs.source import Source
from lpc.specs.texts import shipped_text
from lpc.specs.tree import Node
from lpc.specs.yaml_text import read_yaml

# What begins otherwise than the starter; the section `recipe` of each has the recipes that do, with their arguments.
OTHERS = ("maps", "contrast", "views", "memory", "whole")


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
    head, begin, rest = text.partition("# Per-sample shapes")
    body, _, learning = (begin + rest).partition("# The global objective")
    before, arguments, after = _other(recipe) or (body, {}, learning[learning.index("run:") :])
    named = head.replace("name: starter", f"name: starter_{recipe}")
    return "".join([named, before, *_recipe(shipped(recipe), arguments), after])


def recipes() -> str:
    """Return the recipes of the library, a line each."""
    width = max(map(len, SHIPPED))
    return "".join(f"  {name:{width}}  {shipped(name).about}\n" for name in SHIPPED)


def _other(recipe: str) -> tuple[str, Mapping[str, Node], str] | None:
    """Return what stands before a recipe that begins otherwise, its arguments, and what stands after it."""
    for name in OTHERS:
        text = shipped_text("lpc", f"starters/{name}.yaml")
        begun = _mapping(_mapping(read_yaml(Source(name, text)))["recipe"])
        if recipe in begun:
            before, _, rest = text.partition("recipe:")
            return before, _mapping(begun[recipe]), rest.partition("\n\n")[2]
    return None


def _mapping(node: Node) -> Mapping[str, Node]:
    assert isinstance(node.value, Mapping)
    return node.value


def _recipe(recipe: Recipe, arguments: Mapping[str, Node]) -> Iterator[str]:
    yield f"# {recipe.about[0].upper()}{recipe.about[1:]}.\n"
    yield "# `lpc expand` shows what this stands for; what the spec says itself wins over it.\n"
    yield f"recipe:\n  {recipe.name}:\n"
    for parameter in recipe.parameters:
        value = _written(arguments.get(parameter.name, parameter.default))
        yield f"    {parameter.name}: {value}  # {parameter.about}\n"
    yield "\n"


def _written(value: Node | None) -> str:
    """Return a value as its file writes it. All parameters of the library's recipes have defaults."""
    assert value is not None
    span = value.span
    assert span is not None
    return span.source.line(span.line)[span.column - 1 : span.end_column - 1]
