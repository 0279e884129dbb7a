"""What does `recipe: NAME(...)` stand for? The recipe's template, filled in, under what the spec says itself.

Mappings are merged key by key, and what the spec says wins. The entries of `learn` follow those of the recipe,
so that they win key by key as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lpc.specs.diagnostics import LpcError
from lpc.specs.normalize import term
from lpc.specs.problems import Problems
from lpc.specs.recipes.recipe import SHIPPED, Parameter, Recipe, is_rest, placeholder, read_recipe, shipped
from lpc.specs.source import Source, Span
from lpc.specs.texts import read_text
from lpc.specs.tree import Call, Node, at, kind, merge, walk
from lpc.specs.yaml_text import MAX_NODES

Arguments = Mapping[str, Node]


def expand_recipe(root: Node) -> Node:
    """Return the tree of a spec, a mapping, with its recipe written out.

    Raises:
        LpcError: 0120 to 0124 for the recipe's name and arguments, 0160 for a file that is no recipe.
    """
    assert isinstance(root.value, Mapping)
    own = replace(root, value={k: v for k, v in root.value.items() if k not in ("recipe", "recipes")})
    files = _files(root.value.get("recipes"))
    named = root.value.get("recipe")
    if named is None or named.is_none():
        return own
    problems = Problems()
    call = term(named, problems)
    problems.raise_any()
    recipe = _find(call, named, files)
    arguments = _bind(recipe, call, own)
    return _over(_fill(recipe, arguments, named), own)


def _files(node: Node | None) -> dict[str, Node]:
    """Return the user's recipe files by name."""
    if node is None or node.is_none():
        return {}
    if not isinstance(node.value, Mapping):
        raise _wrong("0113", f"`recipes` is {kind(node)}, expected a mapping of names to files", node.span)
    for name, child in node.value.items():
        if not isinstance(child.value, str):
            raise _wrong("0113", f"`recipes.{name}` is {kind(child)}, expected a path", child.span)
    return dict(node.value)


def _find(call: Node, named: Node, files: Mapping[str, Node]) -> Recipe:
    if not isinstance(call.value, Call):
        raise _wrong("0113", f"`recipe` is {kind(call)}, expected a term such as `greedy`", named.span)
    name = call.value.name
    if name in files:
        return _user_recipe(name, files[name])
    known = [*files, *SHIPPED]
    if name not in known:
        problems = Problems()
        message, otherwise = f"there is no recipe `{name}`", f"the recipes are {', '.join(known)}"
        problems.misspelt("0120", message, named.span, ("recipe",), name, known, otherwise)
        problems.raise_any()
    return shipped(name)


def _user_recipe(name: str, node: Node) -> Recipe:
    path = _folder(node.span) / str(node.value)
    if not path.is_file():
        raise _wrong("0160", f"there is no file `{path}`", node.span)
    where = f", named at {node.span}" if node.span else ""
    recipe = read_recipe(Source(str(path), read_text(path), f"this is in the recipe `{name}`{where}"))
    return replace(recipe, name=name)


def _folder(span: Span | None) -> Path:
    """Return the folder that paths are relative to: that of the file where they stand, else the current one."""
    return Path(span.source.name if span else "").parent


def _bind(recipe: Recipe, call: Node, own: Node) -> Arguments:
    """Return every argument by name: what is given, else what the spec says there, else the default."""
    assert isinstance(call.value, Call)
    problems = Problems()
    names = [parameter.name for parameter in recipe.parameters]
    given = dict(zip(names, call.value.args, strict=False))
    write = f"write `{recipe.usage()}`"
    for extra in call.value.args[len(names) :][:1]:
        problems.at("0124", f"`{recipe.name}` takes at most {len(names)} arguments", extra, write)
    for key, node in call.value.kwargs.items():
        if key not in names:
            message = f"the recipe `{recipe.name}` has no argument `{key}`"
            problems.misspelt("0121", message, node.key or node.span, ("recipe", key), key, names, write)
        elif key in given:
            message = f"`{key}` of `{recipe.name}` is given by position and by name"
            problems.add("0124", message, node.key or node.span)
        given.setdefault(key, node)
    for parameter in recipe.parameters:
        value = given.get(parameter.name) or _otherwise(parameter, own, recipe.name)
        if value is None:
            problems.at("0122", f"`{recipe.name}` needs `{parameter.name}`: {parameter.about}", call, write)
        else:
            given[parameter.name] = _chosen(parameter, value, problems) if parameter.choices else value
    problems.raise_any()
    return given | {p.name: _filled(given[p.name], given) for p in recipe.parameters if p.choices}


def _chosen(parameter: Parameter, value: Node, problems: Problems) -> Node:
    """Return what an argument's word stands for, with its placeholders."""
    word = value.value.name if isinstance(value.value, Call) else value.value
    if isinstance(word, str) and word in parameter.choices:
        return parameter.choices[word]
    known = tuple(parameter.choices)
    message = f"`{parameter.name}` is {kind(value)}, expected one of {', '.join(known)}"
    problems.misspelt("0123", message, value.span, ("recipe", parameter.name), str(word), known, None)
    return value


def _otherwise(parameter: Parameter, own: Node, recipe: str) -> Node | None:
    said = at(own, parameter.source) if parameter.source else None
    if said is not None or parameter.default is None:
        return said
    note = f"this is the default of an argument; write `{recipe}({parameter.name}=...)` for another"
    return _noted(parameter.default, note)


def _noted(node: Node, note: str) -> Node:
    """Return a node whose spans say what the text there does not."""
    value = node.value
    if isinstance(value, Mapping):
        value = {key: _noted(child, note) for key, child in value.items()}
    elif isinstance(value, tuple):
        value = tuple(_noted(child, note) for child in value)
    return replace(node, value=value, span=replace(node.span, note=note) if node.span else None)


def _fill(recipe: Recipe, arguments: Arguments, named: Node) -> Node:
    """Return the template with arguments in place of the placeholders.

    Raises:
        LpcError: 0103, if that is more than a spec may hold.
    """
    sizes = {name: sum(1 for _ in walk(node)) for name, node in arguments.items()}
    size = sum(sizes.get(placeholder(node) or "", 1) for _, node in walk(recipe.template))
    if size > MAX_NODES:
        raise _wrong("0103", f"`{recipe.name}` expands to more than {MAX_NODES} values", named.span)
    return _filled(recipe.template, arguments)


def _filled(node: Node, arguments: Arguments) -> Node:
    name = placeholder(node)
    if name is not None:
        argument = arguments[name]
        return replace(_rest(argument, name) if is_rest(node) else argument, key=node.key)
    value = node.value
    if isinstance(value, Mapping):
        return replace(node, value={key: _filled(child, arguments) for key, child in value.items()})
    if isinstance(value, tuple):
        return replace(node, value=tuple(_filled(child, arguments) for child in value))
    return node


def _rest(argument: Node, name: str) -> Node:
    """Return 1 minus an argument."""
    if isinstance(argument.value, bool) or not isinstance(argument.value, int | float) or not 0 <= argument.value <= 1:
        raise _wrong("0114", f"`{name}` is {kind(argument)}, expected a share from 0 to 1", argument.span)
    return replace(argument, value=1 - argument.value)


def _over(template: Node, own: Node) -> Node:
    """Return what the spec says laid over the filled template."""
    merged = merge(template, own)
    assert isinstance(merged.value, Mapping)
    assert isinstance(template.value, Mapping)
    assert isinstance(own.value, Mapping)
    if "learn" not in template.value or "learn" not in own.value:
        return merged
    said = own.value["learn"]
    both = replace(said, value=(*_entries(template.value["learn"]), *_entries(said)))
    return replace(merged, value={**merged.value, "learn": both})


def _entries(node: Node) -> tuple[Node, ...]:
    """Return the entries of a list, which one entry stands for and `none` empties."""
    if node.is_none():
        return ()
    return node.value if isinstance(node.value, tuple) else (replace(node, key=None),)


def _wrong(code: str, message: str, span: Span | None) -> LpcError:
    problems = Problems()
    problems.add(code, message, span, ("recipe",))
    return LpcError(problems.found)
