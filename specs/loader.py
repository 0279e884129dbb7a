"""How does a spec come in? From a file, a text or a dict, through `extends` and overrides, to a Spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.normalize import normalize
from lpc.specs.overrides import Overrides, read_overrides, set_values
from lpc.specs.problems import Problems
from lpc.specs.source import Source
from lpc.specs.spelling import read_given, read_source
from lpc.specs.texts import read_text
from lpc.specs.tree import Node, kind, merge, raise_value
from lpc.specs.validate import validate

MAX_EXTENDS = 16


def load_spec(
    source: str | Path | Mapping[str, Any] | Spec, overrides: Overrides = (), text: str | None = None
) -> Spec:
    """Return the spec in `source`: a path, text (with a line break or `: `), a mapping or a Spec.

    Text is read as the DSL where it begins with a statement such as `spec NAME`, and as YAML otherwise.

    `overrides` is `{"learn[0].optimizer.lr": 0.1}` or `["learn[0].optimizer.lr=0.1"]`. `text` is read in place of
    what the file at a path holds: an editor's unsaved one, for example.

    Raises:
        LpcError: every problem found in reading, 0100 to 0114. Rules across fields are `check`'s.
    """
    if isinstance(source, Spec) and not overrides:
        return source
    root = set_values(_root(source, text), read_overrides(overrides), _without_recipe)
    problems = Problems()
    root = normalize(root, problems)
    return validate(root, problems)


def whole_tree(written: Node, path: Path, problems: Problems) -> Node:
    """Return what a file says that has been read: with what it extends and its recipe, in the model's shape.

    Terms that cannot be read are noted in `problems`.
    """
    return normalize(_without_recipe(_extended(written, path.parent, (path.resolve(),))), problems)


def _root(source: str | Path | Mapping[str, Any] | Spec, text: str | None) -> Node:
    """Return the tree of a source with everything it extends."""
    if isinstance(source, Spec):
        from lpc.specs.expanding import expand
        from lpc.specs.yaml_text import read_yaml

        return read_yaml(Source(source.name, expand(source)))
    if isinstance(source, Mapping):
        return _extended(_given(source), Path(), ())
    if isinstance(source, str) and ("\n" in source or ": " in source):
        return _extended(read_given(Source("<spec>", source)), Path(), ())
    return _file(Path(source), (), text=text)


def _without_recipe(root: Node) -> Node:
    """Return the tree with its recipe, if it names one, written out."""
    if not isinstance(root.value, Mapping) or not {"recipe", "recipes"} & root.value.keys():
        return root
    from lpc.specs.recipes.expansion import expand_recipe

    return expand_recipe(root)


def _given(source: Mapping[str, Any]) -> Node:
    try:
        return raise_value(source)
    except TypeError as error:
        raise LpcError(Diagnostic("0113", str(error), place="spec")) from None


def _file(path: Path, inside: tuple[Path, ...], origin: str | None = None, text: str | None = None) -> Node:
    """Read a file and what it extends; `inside` are the files that lead to it, `origin` says how they do."""
    text = read_text(path) if text is None else text
    return _extended(read_source(Source(str(path), text, origin)), path.parent, (*inside, path.resolve()))


def _extended(node: Node, folder: Path, inside: tuple[Path, ...]) -> Node:
    """Return the node merged over the spec that it extends."""
    if not isinstance(node.value, Mapping) or "extends" not in node.value:
        return node
    name = node.value["extends"]
    own = replace(node, value={key: child for key, child in node.value.items() if key != "extends"})
    if not isinstance(name.value, str):
        raise _cannot(f"`extends` is {kind(name)}, expected a path", name)
    path = folder / name.value
    if path.resolve() in inside:
        raise _cannot(f"`{name.value}` extends itself", name, *(str(p) for p in inside))
    if len(inside) >= MAX_EXTENDS:
        raise _cannot(f"more than {MAX_EXTENDS} specs extend one another", name)
    if not path.is_file():
        raise _cannot(f"there is no file `{path}`", name)
    where = f" at {name.span}" if name.span else ""
    base = _file(path, inside, f"this file is extended{where}")
    if not isinstance(base.value, Mapping):
        raise _cannot(f"`{path}` holds {kind(base)}, and a spec is a mapping", name)
    return merge(base, own)


def _cannot(message: str, node: Node, *chain: str) -> LpcError:
    notes = (f"the chain is {' -> '.join(chain)}",) if chain else ()
    place = None if node.span else "spec: extends"
    return LpcError(Diagnostic("0106", message, node.span, place, notes))
