"""How is a spec printed in the DSL? A statement a line, in one order, which reads back to an equal spec."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from lpc.specs.comments import Comments, Line, join
from lpc.specs.expanding import UNBOUNDED
from lpc.specs.model import Spec
from lpc.specs.model_tree import model_tree
from lpc.specs.term import RESERVED, WORD, Term, Value, print_value, quote
from lpc.specs.tree import Node, Path, lower

WIDTH = 100

_GLOB = re.compile(r"(?=[\w.]*[*?\[])[\w.*?]([\w.*?]|\[[^\]\s\"'#,]+\])*", re.ASCII)
# Words that begin a line or stand inside one, and so name nothing without quotes.
_KEYWORDS = RESERVED | {"input", "init", "path", "block", "link", "params"}
# Keys whose lists hold terms, so that a bare word there is one.
_TERMS = ("loss", "transforms", "adapters")
_SECTIONS = ("network", "adapters", "data", "fields", "loss", "decompose", "learn", "run")


def print_dsl(spec: Spec) -> str:
    """Return the spec as DSL text without defaults; reading it gives an equal spec."""
    return print_tree(model_tree(spec), Comments())


def print_tree(root: Node, comments: Comments) -> str:
    """Return a tree in the model's shape as DSL text: what it holds and no more, its comments kept."""
    return join(list(_Printer(comments).spec(root)), comments)


class _Printer:
    """Prints a tree line by line; holds the comments, which break lines that would join."""

    def __init__(self, comments: Comments) -> None:
        self.comments = comments
        self.sections: dict[str, Callable[[Node, Path], Iterator[Line]]] = {
            "network": self._network,
            "data": self._data,
            "fields": self._fields,
            "decompose": self._decompose,
            "learn": self._learn,
            "run": self._section,
        }

    def spec(self, root: Node) -> Iterator[Line]:
        """Yield the lines of a spec."""
        items = _items(root)
        head = [key for key in ("lpc", "name", "extends") if key in items]
        rest = [key for key in items if key not in (*head, *_SECTIONS)]
        for key in (*head, *rest, *(key for key in _SECTIONS if key in items)):
            node = items[key]
            if key in self.sections and isinstance(node.value, Mapping | tuple):
                yield from self.sections[key](node, (key,))
            else:
                yield Line(f"{'spec' if key == 'name' else key} {_value(key, node)}", ((key,),))

    def _section(self, node: Node, path: Path) -> Iterator[Line]:
        yield from self._props(str(path[-1]), _items(node), path)

    def _props(self, head: str, items: Mapping[str, Node], path: Path, more: bool = False) -> Iterator[Line]:
        """Yield a statement with its keys, on its own line if they fit and nothing follows under it."""
        props = [(key, f"{key} {_value(key, child)}") for key, child in items.items()]
        glue = ", " if head.startswith("learn") else " "
        start = f"{head}: " if glue == ", " else f"{head} "
        line = start + glue.join(text for _, text in props)
        split = more or len(line) > WIDTH or any(self.comments.at((*path, key)) for key, _ in props[1:])
        if not split or not props:
            yield Line(line if props else head, (path, *((*path, key) for key, _ in props)))
            return
        yield Line(head, (path,))
        yield from (Line(f"  {text}", ((*path, key),)) for key, text in props)

    def _network(self, node: Node, path: Path) -> Iterator[Line]:
        items = _items(node)
        own = {"inputs", "layers", "init"} & {key for key, child in items.items() if child.value}
        rest = {key: child for key, child in items.items() if key not in own}
        yield from self._props("network", rest, path, more=bool(own))
        if "inputs" in own:
            yield from self._tensors("  input", items["inputs"], (*path, "inputs"))
        if "layers" in own:
            yield from self._layers(items["layers"], (*path, "layers"), 2)
        for key, child in _items(items["init"]).items() if "init" in own else ():
            yield Line(f"  init {_selector(key)} = {_value('init', child)}", ((*path, "init", key),))

    def _tensors(self, head: str, node: Node, path: Path) -> Iterator[Line]:
        for name, child in _items(node).items():
            yield Line(f"{head} {_name(name)}: {_tensor(child)}", ((*path, name),))

    def _fields(self, node: Node, path: Path) -> Iterator[Line]:
        yield from self._tensors("field", node, path)

    def _data(self, node: Node, path: Path) -> Iterator[Line]:
        items = dict(_items(node))
        if "source" not in items:
            yield from self._props("data", items, path, more=True)
            return
        yield from self._props(f"data {_value('source', items.pop('source'))}", items, path)

    def _decompose(self, node: Node, path: Path) -> Iterator[Line]:
        items = _items(node)
        blocks, links = items.get("blocks"), items.get("links")
        own = {key for key, child in items.items() if key in ("blocks", "links") and _by_name(child)}
        rest = {
            key: _one(key, child) if key not in own else child
            for key, child in items.items()
            if key not in own
        }
        yield from self._props("decompose", rest, path, more=bool(own))
        for name, group in _items(blocks).items() if blocks and "blocks" in own else ():
            yield Line(f"  block {_selector(name)} = {_choices(group)}", ((*path, "blocks", name),))
        for name, child in _items(links).items() if links and "links" in own else ():
            yield Line(f"  link {_ends(name)} = {_value('links', child)}", ((*path, "links", name),))

    def _learn(self, node: Node, path: Path) -> Iterator[Line]:
        assert isinstance(node.value, tuple)
        if not node.value:
            yield Line("learn []", (path,))
        for number, entry in enumerate(node.value):
            items = dict(_items(entry))
            blocks, params = items.pop("blocks", None), items.pop("params", None)
            head = ["learn", *([] if blocks is None else [_selectors(blocks)])]
            head += [] if params is None else ["params", _selectors(params)]
            yield from self._props(" ".join(head), items, (*path, number))

    # ---- layers

    def _layers(self, node: Node, path: Path, indent: int) -> Iterator[Line]:
        """Yield layers; one without a name follows on the line of the one before, where it fits."""
        assert isinstance(node.value, tuple)
        pad, line = " " * indent, None
        for number, layer in enumerate(node.value):
            items, place = _items(layer), (*path, number)
            op = _operator(items["op"])
            name = items.get("name")
            inside = "body" in items or "branches" in items or _is_structure(items["op"])
            text = op if name is None or name.value is None else f"{_name(str(name.value))} = {op}"
            joins = line is not None and text is op and not inside and not self.comments.at(place)
            if line and joins and len(line.text) + len(op) + 4 <= WIDTH:
                line = Line(f"{line.text} >> {op}", (*line.paths, place))
                continue
            if line:
                yield line
            line = Line(pad + text, (place,))
            if inside:
                yield line
                line = None
                yield from self._inside(items, place, indent + 2)
        if line:
            yield line

    def _inside(self, items: Mapping[str, Node], path: Path, indent: int) -> Iterator[Line]:
        if "body" in items:
            yield from self._layers(items["body"], (*path, "body"), indent)
        for name, body in _items(items["branches"]).items() if "branches" in items else ():
            place = (*path, "branches", name)
            yield Line(f"{' ' * indent}path {_name(name)}", (place,))
            yield from self._layers(body, place, indent + 2)


def _items(node: Node) -> Mapping[str, Node]:
    assert isinstance(node.value, Mapping)
    return node.value


def _by_name(node: Node) -> bool:
    """Tell whether blocks or links are written by name, a line each."""
    return isinstance(node.value, Mapping) and bool(node.value) and not _short(node)


def _short(node: Node) -> bool:
    """Tell whether links were written as one term, which replaces what an extended spec says."""
    only = node.value.get("*") if isinstance(node.value, Mapping) and len(node.value) == 1 else None
    return only is not None and only.span is not None and only.key is None


def _one(key: str, node: Node) -> Node:
    return _items(node)["*"] if key == "links" and _short(node) else node


def _value(key: str, node: Node) -> str:
    """Return the text of a key's value."""
    value = lower(node)
    if key in ("loss", "adapters") and isinstance(value, list) and len(value) < 2:
        value = value[0] if value else None
    if key in UNBOUNDED and value == math.inf:
        value = None
    if key == "schedule" and isinstance(value, dict) and set(value) == {"then"}:
        value = value["then"]
    if key == "precision" and value == "none":
        value = None
    if key in _TERMS and isinstance(value, list):
        return f"[{', '.join(map(_term, value))}]"
    if key == "schedule" and isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_term(part)}' for name, part in value.items())}}}"
    return _term(value)


def _term(value: Value) -> str:
    """Print a value; a term alone needs no parentheses, unless its name means something else."""
    if isinstance(value, Term):
        bare = not value.args and not value.kwargs and value.name.lower() not in RESERVED
        return value.name if bare else print_value(value)
    return print_value(value)


def _operator(node: Node) -> str:
    return _term(lower(node))


def _is_structure(node: Node) -> bool:
    value = lower(node)
    return isinstance(value, Term) and value.name in ("residual", "repeat", "branch")


def _name(text: str) -> str:
    return text if WORD.fullmatch(text) and text.lower() not in _KEYWORDS else quote(text)


def _selector(text: str) -> str:
    return text if _GLOB.fullmatch(text) else _name(text)


def _ends(text: str) -> str:
    parts = text.split("->")
    return "->".join(map(_selector, parts)) if len(parts) == 2 else _selector(text)


def _selectors(node: Node) -> str:
    assert isinstance(node.value, tuple)
    return ", ".join(_selector(str(child.value)) for child in node.value) or "none"


def _choices(node: Node) -> str:
    """Return what a block holds: module paths and terms."""
    assert isinstance(node.value, tuple)
    values = map(lower, node.value)
    return ", ".join(print_value(v) if isinstance(v, Term) else _selector(str(v)) for v in values) or "none"


def _tensor(node: Node) -> str:
    items = _items(node)
    dtype = _name(str(items["dtype"].value)) if "dtype" in items else ""
    if "shape" not in items:
        return dtype
    shape = lower(items["shape"])
    dims: Sequence[Value] = shape if isinstance(shape, list) else [shape]
    return f"{dtype}[{', '.join(_name(d) if isinstance(d, str) else print_value(d) for d in dims)}]"
