"""What is a recipe? A name, parameters, and a template of a spec in which `$NAME` stands for an argument.

    recipe: greedy
    about: one line of meaning
    parameters:
      head: {default: linear, about: one line of meaning}
      loss: {from: loss, default: cross_entropy}      # without an argument: what the spec says there
      rate: {}                                        # no default: must be given
      way: {default: a, choices: {a: ..., b: ...}}    # stands for what belongs to the word; `$` in it for others
    template:
      loss: $loss
      learn: [{blocks: "*", head: $head, optimizer: {sgd: {lr: $rate}}}]

A recipe is data: a placeholder is a whole value outside quotes, and nothing in a recipe is executed. `$1-NAME` stands
for what is left of 1, where the argument is a share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NoReturn

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.source import Source
from lpc.specs.texts import shipped_text
from lpc.specs.tree import Node, Path, kind, walk
from lpc.specs.yaml_text import read_yaml

SHIPPED = (
    "greedy",
    "backprop",
    "deep_supervision",
    "predsim",
    "dgl",
    "auglocal",
    "infopro",
    "gim",
    "forward_forward",
    "loco",
    "lookahead",
    "bp_modified",
    "locoprop",
    "proxprop",
    "foof",
    "forward_gradient",
    "local_forward_gradient",
    "feedback_alignment",
    "local_feedback_alignment",
    "direct_feedback",
    "blockprop",
    "blockprop_cached",
    "altmin",
    "altmin_mem",
    "altmin_binary",
    "altmin_offline",
    "mac",
    "admm",
    "bcd",
    "straight_through",
    "dtp",
)

_KEYS = ("recipe", "about", "parameters", "template")
_PARAMETER_KEYS = ("default", "from", "about", "choices")
_FORBIDDEN = ("recipe", "recipes", "extends")
_PLACEHOLDER = re.compile(r"\$(1-)?([A-Za-z_]\w*)", re.ASCII)
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Parameter:
    """One parameter: its default (None: must be given), and where the spec itself may say it (empty: nowhere).

    With `choices` its argument is one of these words, and stands for what belongs to it.
    """

    name: str
    default: Node | None
    source: Path
    about: str
    choices: Mapping[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A named method."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    template: Node

    def usage(self) -> str:
        """Return the recipe as one would write it: `greedy(blocks, head, loss, optimizer)`."""
        return f"{self.name}({', '.join(parameter.name for parameter in self.parameters)})"


@cache
def shipped(name: str) -> Recipe:
    """Return a recipe of the library, read once."""
    text = shipped_text("lpc.specs.recipes", f"{name}.yaml")
    return read_recipe(Source(f"recipe {name}", text, f"this is in the recipe `{name}`"))


def read_recipe(source: Source) -> Recipe:
    """Return the recipe that a YAML text holds.

    Raises:
        LpcError: 0101 to 0103 for its text, 0160 for what is no recipe.
    """
    root = read_yaml(source)
    items = _mapping(root, "a recipe", _KEYS)
    for key in ("recipe", "template"):
        if key not in items:
            _fail(f"the recipe lacks the key `{key}`", root)
    name = _text(items["recipe"], "the name of a recipe")
    if not _WORD.fullmatch(name):
        _fail(f"`{name}` cannot name a recipe", items["recipe"])
    about = _text(items["about"], "`about`") if "about" in items else ""
    parameters = tuple(_parameters(items.get("parameters", Node({}))))
    _check_template(items["template"], [parameter.name for parameter in parameters])
    plain = [parameter.name for parameter in parameters if not parameter.choices]
    for choice in (choice for parameter in parameters for choice in parameter.choices.values()):
        _check_placeholders(choice, plain)
    return Recipe(name, about, parameters, items["template"])


def placeholder(node: Node) -> str | None:
    """Return the name of the parameter that a node stands for, or None."""
    match = _match(node)
    return match[2] if match else None


def is_rest(node: Node) -> bool:
    """Tell whether a placeholder stands for 1 minus its parameter."""
    match = _match(node)
    return match is not None and match[1] is not None


def _match(node: Node) -> re.Match[str] | None:
    return _PLACEHOLDER.fullmatch(node.value) if isinstance(node.value, str) and not node.quoted else None


def _parameters(node: Node) -> Iterator[Parameter]:
    for name, child in _mapping(node, "`parameters`").items():
        if not _WORD.fullmatch(name):
            _fail(f"`{name}` cannot name a parameter", child, at_key=True)
        items = _mapping(child, f"the parameter `{name}`", _PARAMETER_KEYS)
        source = _text(items["from"], "`from`").split(".") if "from" in items else []
        about = _text(items["about"], "`about`") if "about" in items else ""
        choices = _mapping(items["choices"], f"the choices of `{name}`") if "choices" in items else {}
        yield Parameter(name, items.get("default"), tuple(source), about, choices)


def _check_template(template: Node, names: list[str]) -> None:
    """Refuse keys that lead elsewhere, and placeholders without a parameter."""
    for key, child in _mapping(template, "`template`").items():
        if key in _FORBIDDEN:
            _fail(f"a template cannot say `{key}`", child, at_key=True)
    _check_placeholders(template, names)


def _check_placeholders(template: Node, names: list[str]) -> None:
    for _, node in walk(template):
        name = placeholder(node)
        if name is not None and name not in names:
            _fail(f"`${name}` is no parameter of this recipe", node, help=did_you_mean(name, names))


def _mapping(node: Node, what: str, known: tuple[str, ...] = ()) -> Mapping[str, Node]:
    """Return a node's mapping, empty where nothing is written; with `known`, one without other keys."""
    if node.value is None:
        return {}
    if not isinstance(node.value, Mapping):
        _fail(f"{what} is a mapping, this is {kind(node)}", node)
    for key, child in node.value.items():
        if known and key not in known:
            help = did_you_mean(key, known) or f"the keys here are {', '.join(known)}"
            _fail(f"{what} has no key `{key}`", child, at_key=True, help=help)
    return node.value


def _text(node: Node, what: str) -> str:
    if not isinstance(node.value, str):
        _fail(f"{what} is a text, this is {kind(node)}", node)
    return node.value


def _fail(message: str, node: Node, at_key: bool = False, help: str | None = None) -> NoReturn:
    span = node.key or node.span if at_key else node.span
    raise LpcError(Diagnostic("0160", message, span, help=help))
