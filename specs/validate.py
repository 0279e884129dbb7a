"""Does a tree fit the model? Builds the Spec, or tells every misfit at the place where it was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lpc.specs.diagnostics import without_quotes
from lpc.specs.model import Spec
from lpc.specs.problems import Problems, dotted
from lpc.specs.spelling import is_dsl
from lpc.specs.tree import Node, Path, at, children, kind, lower, walk

# What was expected, by pydantic's kind of error; {names} come from the error's context.
_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "`true` or `false`",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
    "is_instance_of": "a term such as `name(key=value)`",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
    "greater_than": "a value above {gt:g}",
    "greater_than_equal": "a value of at least {ge:g}",
    "less_than": "a value below {lt:g}",
    "less_than_equal": "a value of at most {le:g}",
}
# Keys that are gone when the model is built: what they say has been merged into the others.
_BEFORE = ("extends", "recipe", "recipes")
_NUMBERS = frozenset({"int_type", "float_type"})
LARGEST = 2**63 - 1
_RANGES = frozenset(
    {"finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error"}
)


def validate(root: Node, problems: Problems) -> Spec:
    """Return the spec with its spans.

    Raises:
        LpcError: all problems noted so far, and 0110 to 0114 for what does not fit the model.
    """
    if not isinstance(root.value, Mapping):
        problems.at("0113", f"a spec is a mapping, this is {kind(root)}", root, "begin with `network:`")
    else:
        _whole(root, problems)
        try:
            spec = Spec.model_validate(lower(root))
        except ValidationError as error:
            _note(error.errors(include_url=False), root, problems)
    problems.raise_any()
    spec._spans = {path: node.span for path, node in walk(root) if node.span is not None}
    spec._keys = {path: node.key for path, node in walk(root) if node.key is not None}
    return spec


def _whole(root: Node, problems: Problems) -> None:
    """Note whole numbers that no tensor's size and no seed can be."""
    for path, node in walk(root):
        value = node.value
        if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            message = f"`{dotted(path)}` is {value:.2e}, and whole numbers go up to {LARGEST:.2e} (64 bits)"
            problems.add("0114", message, node.span, path)


def _note(errors: list[ErrorDetails], root: Node, problems: Problems) -> None:
    """Note errors, those at one place together; an error inside a value hides those about the value."""
    places: dict[Path, list[ErrorDetails]] = {}
    for error in errors:
        places.setdefault(_path(error["loc"], root), []).append(error)
    for path, group in places.items():
        for error in (e for e in group if e["type"] == "missing"):
            _missing(path, str(error["loc"][-1]), root, problems)
        group = [e for e in group if e["type"] != "missing"]
        inner = any(other[: len(path)] == path and len(other) > len(path) for other in places)
        if group and not (inner and len(group) > 1):
            _misfit(path, group, root, problems)


def _path(loc: tuple[str | int, ...], root: Node) -> Path:
    """Return pydantic's location as a path of the tree: its names of union branches left out."""
    path: list[str | int] = []
    node = root
    for key in loc:
        child = dict(children(node)).get(key)
        if child is not None:
            path.append(key)
            node = child
    return tuple(path)


def _missing(path: Path, key: str, root: Node, problems: Problems) -> None:
    node = at(root, path)
    assert node is not None
    where = f"`{dotted(path)}`" if path else "the spec"
    problems.add("0112", f"{where} lacks the key `{key}`", node.key or node.span, path)


def _misfit(path: Path, group: list[ErrorDetails], root: Node, problems: Problems) -> None:
    node = at(root, path)
    assert node is not None
    kinds = {error["type"] for error in group}
    if kinds == {"extra_forbidden"}:
        _unknown(path, node, root, problems)
        return
    expected = " or ".join(dict.fromkeys(map(_expected, group)))
    message = f"`{dotted(path)}` is {kind(node)}, expected {expected}"
    found = node.value if isinstance(node.value, str) else ""
    code = "0114" if kinds <= _RANGES else "0113"
    otherwise = without_quotes(found) if kinds & _NUMBERS else None
    problems.misspelt(code, message, node.span, path, found, _choices(group), otherwise)


def _expected(error: ErrorDetails) -> str:
    known = _EXPECTED.get(error["type"])
    if known is None:
        return error["msg"]
    context = error.get("ctx", {})
    return known.format(**context).replace("'", "`")


def _choices(group: list[ErrorDetails]) -> list[str]:
    texts = (str(error.get("ctx", {}).get("expected", "")) for error in group)
    words = (word.strip("' ") for text in texts for word in text.replace(" or ", ", ").split(", "))
    return [word for word in words if word]


def _unknown(path: Path, node: Node, root: Node, problems: Problems) -> None:
    """Note a key that the model does not have."""
    key = str(path[-1])
    where = f"`{dotted(path[:-1])}`" if path[:-1] else "the top level"
    dsl = node.key is not None and is_dsl(node.key.source.name)
    known = (dsl and _first_words(path[:-1])) or _keys(path[:-1])
    message, otherwise = f"{where} has no key `{key}`", f"the keys here are {', '.join(sorted(known))}"
    problems.misspelt("0110", message, node.key or node.span, path, key, known, otherwise)


def _first_words(path: Path) -> list[str]:
    """Return the words of the DSL at a path; only mistakes need them."""
    from lpc.specs.dsl_words import first_words

    return list(first_words(path))


def _keys(path: Path) -> list[str]:
    """Return the keys that the model has at a path, spelt as in the text."""
    model = model_at(path)
    assert model is not None
    known = [f.alias or n for n, f in model.model_fields.items()]
    return [*known, *_BEFORE] if model is Spec else known


def model_at(path: Path) -> type[BaseModel] | None:
    """Return the model of the mapping at a path; None where its keys are free, or it is no mapping."""
    model: Any = Spec
    for key in path:
        if isinstance(key, int) or not hasattr(model, "model_fields"):
            continue
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == key), None)
        model = model if field is None else _inner(field.annotation)
    found: type[BaseModel] | None = model
    return found


def _inner(annotation: Any) -> Any:
    """Return the model inside an annotation such as `tuple[Rule, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _inner(part)
        if found is not None:
            return found
    return None
