"""How do the short ways of writing become the model's one way? Forms, arranged as the model is.

A form takes a node as written and returns it as the model wants it: a text becomes a term, a single value a
list, `links: stop` a mapping. What a form cannot read it leaves as it is, for the model to refuse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from lpc.specs.layer_text import read_layers
from lpc.specs.problems import Problems
from lpc.specs.signatures import BLOCKS, LINKS, VOCABULARIES
from lpc.specs.term_text import read_scalar_term
from lpc.specs.tree import Call, Node

Form = Callable[[Node, Problems], Node]

_CALL = re.compile(r"\s*[A-Za-z_][\w.]*\s*\(.*\)\s*", re.DOTALL)
# The arguments that may be terms: in none of the vocabularies is any of them a text of another kind.
_TERMS = frozenset(
    parameter.name
    for vocabulary in VOCABULARIES.values()
    for signature in vocabulary.values()
    for parameter in signature.parameters
    if "term" in parameter.alternatives
)


def normalize(root: Node, problems: Problems) -> Node:
    """Return the tree of a spec in the model's shape; terms that cannot be read are noted."""
    return _SPEC(root, problems)


def term(node: Node, problems: Problems) -> Node:
    """Read a term from text, or from `{name: {key: value}}`."""
    if isinstance(node.value, str):
        return problems.reading(read_scalar_term, node, replace(node, value=Call("?")))
    if isinstance(node.value, Mapping) and len(node.value) == 1:
        ((name, arguments),) = node.value.items()
        if isinstance(arguments.value, Mapping):
            forms = {key: _inner if key in _TERMS else argument for key in arguments.value}
            named = {key: forms[key](child, problems) for key, child in arguments.value.items()}
            return replace(node, value=Call(name, (), named))
    return node


def argument(node: Node, problems: Problems) -> Node:
    """Read an argument written in YAML: an unquoted `name(...)` is a term, an unquoted `none` is nothing."""
    if isinstance(node.value, tuple):
        return replace(node, value=tuple(argument(child, problems) for child in node.value))
    if isinstance(node.value, Mapping):
        return replace(node, value={key: argument(child, problems) for key, child in node.value.items()})
    return term(node, problems) if _is_call(node) else optional(node, problems)


def _inner(node: Node, problems: Problems) -> Node:
    """Read an argument that may be a term as `term` does, also in quotes; a bare word stays one."""
    nested = isinstance(node.value, Mapping) or (isinstance(node.value, str) and "(" in node.value)
    return term(node, problems) if nested else argument(node, problems)


def plain(node: Node, problems: Problems) -> Node:
    """Leave the value as it is."""
    return node


def optional(node: Node, problems: Problems) -> Node:
    """Read the bare word `none` as nothing."""
    return replace(node, value=None) if node.is_none() else node


def word(node: Node, problems: Problems) -> Node:
    """Read nothing as the word `none`, which it was in a term."""
    return replace(node, value="none") if node.is_none() else node


def section(forms: Mapping[str, Form]) -> Form:
    """Return the form of a mapping with known keys; unknown ones are left for the model to refuse."""

    def form(node: Node, problems: Problems) -> Node:
        if not isinstance(node.value, Mapping):
            return node
        items = {key: forms.get(key, plain)(child, problems) for key, child in node.value.items()}
        return replace(node, value=items)

    return form


def values(inner: Form) -> Form:
    """Return the form of a mapping with free keys."""

    def form(node: Node, problems: Problems) -> Node:
        if not isinstance(node.value, Mapping):
            return node
        return replace(node, value={key: inner(child, problems) for key, child in node.value.items()})

    return form


def many(inner: Form) -> Form:
    """Return the form of a list, which a single value stands for and `none` empties."""

    def form(node: Node, problems: Problems) -> Node:
        if node.is_none():
            return replace(node, value=())
        items = node.value if isinstance(node.value, tuple) else (replace(node, key=None),)
        return replace(node, value=tuple(inner(item, problems) for item in items), quoted=False)

    return form


def unless_none(inner: Form) -> Form:
    """Return the form of a value that may be `none`."""
    return lambda node, problems: replace(node, value=None) if node.is_none() else inner(node, problems)


def _is_call(node: Node) -> bool:
    return isinstance(node.value, str) and not node.quoted and _CALL.fullmatch(node.value) is not None


def _is_term(node: Node, names: Mapping[str, object]) -> bool:
    """Tell `{balanced: {count: 4}}` from a mapping of block names."""
    value = node.value
    if not isinstance(value, Mapping):
        return True
    return len(value) == 1 and all(
        name in names and isinstance(v.value, Mapping) for name, v in value.items()
    )


def _tensor(node: Node, problems: Problems) -> Node:
    return replace(node, value={"shape": replace(node, key=None)}) if isinstance(node.value, tuple) else node


def _selector(node: Node, problems: Problems) -> Node:
    return term(node, problems) if _is_call(node) else node


def _blocks(node: Node, problems: Problems) -> Node:
    return term(node, problems) if _is_term(node, BLOCKS) else values(many(_selector))(node, problems)


def _links(node: Node, problems: Problems) -> Node:
    if not _is_term(node, LINKS):
        return values(term)(node, problems)
    return replace(node, value={"*": replace(term(node, problems), key=None)})


def _schedule(node: Node, problems: Problems) -> Node:
    if node.is_none():
        return replace(node, value={})
    if isinstance(node.value, Mapping):
        return section({"then": term, "inner": term})(node, problems)
    return replace(node, value={"then": replace(term(node, problems), key=None)})


def _clip(node: Node, problems: Problems) -> Node:
    return replace(node, value=math.inf) if node.is_none() else node


def _shard(node: Node, problems: Problems) -> Node:
    """Read `true` as all blocks and `false` as none."""
    if isinstance(node.value, bool):
        return replace(node, value=(replace(node, value="*", key=None),) if node.value else ())
    return many(plain)(node, problems)


_RULE = section(
    {
        "blocks": many(plain),
        "params": many(plain),
        "head": term,
        "loss": many(term),
        "estimator": term,
        "correct": term,
        "optimizer": term,
        "solver": term,
        "prox": _clip,
        "outer": term,
        "schedule": _schedule,
        "clip": _clip,
    }
)

_READOUT = section(
    {
        "from": many(plain),
        "with": unless_none(term),
        "classes": optional,
        "head": term,
        "loss": term,
        "optimizer": term,
        "schedule": _schedule,
        "clip": _clip,
        "normalize": word,
    }
)

_SPEC = section(
    {
        "network": section(
            {
                "inputs": values(_tensor),
                "layers": unless_none(read_layers),
                "module": optional,
                "config": argument,
                "zoo": optional,
                "args": argument,
                "output": optional,
                "init": values(term),
            }
        ),
        "adapters": many(term),
        "data": unless_none(
            section(
                {
                    "source": term,
                    "root": optional,
                    "transforms": many(term),
                    "contrast": unless_none(term),
                    "test": optional,
                    "validation": optional,
                }
            )
        ),
        "fields": values(_tensor),
        "decompose": section({"blocks": _blocks, "links": _links, "units": unless_none(section({"patches": word}))}),
        "learn": many(_RULE),
        "loss": many(term),
        "readouts": values(_READOUT),
        "run": section(
            {
                "epochs": optional,
                "steps": optional,
                "phases": many(section({"train": many(plain), "epochs": optional, "steps": optional})),
                "memory": optional,
                "precision": word,
                "clip": optional,
                "log": term,
                "checkpoint": term,
                "validate": term,
                "early_stop": unless_none(term),
                "metrics": many(plain),
                "predict": term,
                "workers": optional,
                "shard": _shard,
            }
        ),
    }
)
