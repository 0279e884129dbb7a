"""How does a kernel read? Its signature and one operator a line; what prints also parses.

kernel b1.local, block b1, device any
argument x, input
  %a0 = x, float32["B", 784]
node %n0 = aten.mm.default(%a0, %a1) from fc1 as float32["B", 512]
result h1, output
  %n0 = h1, float32["B", 512]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.kernel import ROLES, Bundle, Json, Kernel, Node, Port, Role, TensorType
from lpc.specs.plan.lexer import Cursor, fail, lines, quote
from lpc.specs.source import Source

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WORDS: dict[str, Json] = {"none": None, "true": True, "false": False}
_SPELLING = {None: "none", True: "true", False: "false"}


def kernel_text(kernel: Kernel) -> str:
    """Return the kernel as text."""
    return "\n".join(_lines(kernel)) + "\n"


def _lines(kernel: Kernel) -> Iterator[str]:
    yield f"kernel {quote(kernel.name)}, block {quote(kernel.block)}, device {quote(kernel.device)}"
    for word, bundles in (("argument", kernel.arguments), ("result", kernel.results)):
        if word == "result":
            yield from map(_node, kernel.nodes)
        for bundle in bundles:
            yield f"{word} {quote(bundle.name)}, {bundle.role}"
            for port in bundle.ports:
                yield f"  %{quote(port.value)} = {quote(port.source)}, {_type(port.type)}"


def _type(kind: TensorType) -> str:
    lengths = [str(length) if isinstance(length, int) else json.dumps(length) for length in kind.shape]
    return f"{quote(kind.dtype)}[{', '.join(lengths)}]"


def _node(node: Node) -> str:
    arguments = [_value(value) for value in node.args]
    arguments += [f"{quote(name)}={_value(value)}" for name, value in node.kwargs.items()]
    origin = f" from {quote(node.origin)}" if node.origin else ""
    types = f" as {', '.join(map(_type, node.types))}" if node.types else ""
    return f"node %{quote(node.name)} = {quote(node.op)}({', '.join(arguments)}){origin}{types}"


def _value(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return _SPELLING[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        ((kind, name),) = value.items()
        return f"%{quote(str(name))}" if kind == "ref" else f"{{{kind} {quote(str(name))}}}"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def parse_kernel(text: str, name: str = "kernel") -> Kernel:
    """Read a kernel from its text, called `name` in messages. Raises LpcError (0520) with line and column."""
    rows = [Cursor(tokens) for tokens in lines(Source(name, text))]
    if not rows:
        raise LpcError(Diagnostic("0520", "there is no kernel in this text", place=name))
    title = _header(rows[0])
    bundles: dict[str, list[Bundle]] = {"argument": [], "result": []}
    nodes: list[Node] = []
    position = 1
    while position < len(rows):
        row = rows[position]
        position += 1
        if row.at("node"):
            nodes.append(_parse_node(row))
            continue
        word = row.take()
        if word.text not in bundles:
            fail(f"expected `argument`, `node` or `result`, found `{word.text}`", word.span)
        bundle, role = row.name(), _parse_role(row)
        start = position
        while position < len(rows) and rows[position].at("%"):
            position += 1
        bundles[word.text].append(Bundle(bundle, role, tuple(map(_parse_port, rows[start:position]))))
    return Kernel(
        title[0], title[1], tuple(bundles["argument"]), tuple(nodes), tuple(bundles["result"]), title[2]
    )


def _header(row: Cursor) -> tuple[str, str, str]:
    found = []
    for index, word in enumerate(("kernel", "block", "device")):
        if index:
            row.expect(",")
        row.expect(word)
        found.append(row.name())
    row.end()
    return found[0], found[1], found[2]


def _parse_role(row: Cursor) -> Role:
    row.expect(",")
    token = row.take()
    if token.text not in ROLES:
        fail(f"expected a role, found `{token.text}`", token.span)
    row.end()
    return token.text


def _parse_port(row: Cursor) -> Port:
    row.expect("%")
    value = row.name()
    row.expect("=")
    source = row.name()
    row.expect(",")
    kind = _parse_type(row)
    row.end()
    return Port(value, kind, source)


def _parse_type(row: Cursor) -> TensorType:
    dtype = row.name()
    row.expect("[")
    return TensorType(dtype, tuple(_until(row, "]", _parse_length)))


def _parse_length(row: Cursor) -> int | str:
    token = row.take()
    if token.kind == "quoted":
        return token.text
    if not token.text.lstrip("-").isdecimal():
        fail(f"expected a length, found `{token.text}`", token.span)
    return int(token.text)


def _parse_node(row: Cursor) -> Node:
    row.expect("node")
    row.expect("%")
    name = row.name()
    row.expect("=")
    operator = row.name()
    row.expect("(")
    given = _until(row, ")", _parse_argument)
    origin = ""
    if row.at("from"):
        row.take()
        origin = row.name()
    types: list[TensorType] = []
    while row.at("," if types else "as"):
        row.take()
        types.append(_parse_type(row))
    row.end()
    arguments = tuple(value for key, value in given if key is None)
    keywords = {key: value for key, value in given if key is not None}
    return Node(name, operator, arguments, keywords, origin, tuple(types))


def _until(row: Cursor, sign: str, parse: Any) -> list[Any]:
    """Read things with commas between them, up to a closing sign."""
    found: list[Any] = []
    while not row.at(sign):
        if found:
            row.expect(",")
        found.append(parse(row))
    row.expect(sign)
    return found


def _parse_argument(row: Cursor) -> tuple[str | None, Json]:
    if not row.at("=", ahead=1):
        return None, _parse_value(row)
    name = row.name()
    row.expect("=")
    return name, _parse_value(row)


def _parse_value(row: Cursor) -> Json:
    token = row.take()
    if token.kind == "quoted":
        return token.text
    if token.text == "%":
        return {"ref": row.name()}
    if token.text == "[":
        return _until(row, "]", _parse_value)
    if token.text == "{":
        form: dict[str, Json] = {row.name(): row.name()}
        row.expect("}")
        return form
    if token.text in _WORDS:
        return _WORDS[token.text]
    if token.kind != "name" or not _NUMBER.fullmatch(token.text):
        fail(f"expected a value, found `{token.text}`", token.span)
    return int(token.text) if token.text.lstrip("+-").isdecimal() else float(token.text)
