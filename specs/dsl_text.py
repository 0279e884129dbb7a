"""How is the DSL read? Text to the tree that YAML gives too, by the grammar in grammar.lark.

Layers, links and the rest come out in the forms that a YAML spec would have: everything after reading is shared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from lark import Token, Tree

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.dsl_parse import moved, parse_dsl
from lpc.specs.signatures import LAYERS, STRUCTURES
from lpc.specs.source import Locate, Source, Span, locate_in
from lpc.specs.term import unquote
from lpc.specs.term_text import read_tree
from lpc.specs.tree import Call, Node

Branch: TypeAlias = Tree[Token]
Items: TypeAlias = dict[str, Node]


def read_dsl(source: Source) -> Node:
    """Return the tree of a DSL text.

    Raises:
        LpcError: 0108 for each statement that cannot be read, 0102 what is given twice, 0103 nested too deep,
            0104 a term, 0140 layers that make no structure.
    """
    locate = locate_in(source)
    statements = parse_dsl(source, locate)
    root: Items = {}
    found: list[Diagnostic] = []
    for statement in statements:
        _Reader(statement.text, moved(locate, statement.start), found).read(statement.tree, root)
    if found:
        raise LpcError(found)
    return Node(root, locate(0, len(source.text)))


class _Reader:
    """Turns the parse tree of a statement into nodes; holds its text and the problems that reading goes on after."""

    def __init__(self, text: str, locate: Locate, found: list[Diagnostic]) -> None:
        self.text = text
        # The parser's text has one more line break in front.
        self.locate: Locate = lambda start, end: locate(start - 1, end - 1)
        self.found = found
        self.statements: dict[str, Callable[[Branch, Items], None]] = {
            "spec": lambda tree, root: self.add(root, "name", self.bare(tree.children[0]), self.word(tree)),
            "entry": self._entry,
            "section": self._section,
            "network": self._network,
            "data": self._data,
            "sourced": self._data,
            "field": lambda tree, root: self._tensor(tree, self._inner(root, "fields", tree)),
            "decompose": self._decompose,
            "learn": self._learn,
            "nothing": lambda tree, root: self._entries(root, tree, ()),
        }

    def read(self, tree: Branch, root: Items) -> None:
        """Add to the mapping `root` what a statement says."""
        for statement in tree.children:
            assert isinstance(statement, Tree)
            self.statements[statement.data](statement, root)

    # ---- places

    def span(self, part: Any) -> Span | None:
        """Return where a token or tree stands, without the line break and comments at its end."""
        if isinstance(part, Token):
            return self.locate(part.start_pos or 0, part.end_pos or 0)
        start = part.meta.start_pos
        return self.locate(start, start + len(self.text[start - 1 : part.meta.end_pos - 1].rstrip()))

    def word(self, tree: Branch) -> Span | None:
        """Return where the first word of a statement stands."""
        start = tree.meta.start_pos
        match = re.compile(r"\w*").match(self.text, start - 1)
        return self.locate(start, start + len(match[0] if match else ""))

    # ---- parts

    def add(self, items: Items, name: str, node: Node, key: Span | None) -> None:
        """Put a node under a key, which must be new."""
        if name in items:
            note = f"first given at {items[name].key}"
            self.found.append(Diagnostic("0102", f"`{name}` is given twice", key, notes=(note,)))
        items[name] = replace(node, key=key)

    def text_of(self, part: Any) -> Node:
        """Return a name, selector, dtype or dimension as a text."""
        token = part.children[0] if isinstance(part, Tree) else part
        assert isinstance(token, Token)
        if token.type != "STRING":
            return Node(str(token), self.span(token))
        try:
            return Node(unquote(token), self.span(token), quoted=True)
        except ValueError:
            message = f"{token} has an escape that JSON does not have"
            self.found.append(Diagnostic("0104", message, self.span(token)))
            return Node("", self.span(token), quoted=True)

    def value(self, tree: Any) -> Node:
        """Return a value; the problems inside a term are noted."""
        try:
            return read_tree(tree, self.text, self.locate)
        except LpcError as error:
            self.found.extend(error.diagnostics)
            return Node(Call("?"), self.span(tree))

    def bare(self, tree: Any) -> Node:
        """Return the value of a key, in which `none` stays the word, for the key to say what it means."""
        node = self.value(tree)
        written = self.text[tree.meta.start_pos - 1 : tree.meta.end_pos - 1]
        return replace(node, value="none") if node.value is None and written == "none" else node

    def pairs(self, tree: Any, items: Items) -> None:
        """Add the keys of `props`, of a `body`, or of nothing."""
        if tree is None:
            return
        if tree.data == "body":
            for line in tree.children:
                self.pairs(line, items)
            return
        for prop in tree.children:
            key, value = prop.children
            self.add(items, str(key), self.bare(value), self.span(key))

    def _inner(self, items: Items, name: str, tree: Branch) -> Items:
        """Return the mapping that statements such as `field` fill together."""
        node = items.setdefault(name, Node({}, self.span(tree), self.word(tree)))
        if not isinstance(node.value, dict):
            message = f"`{name}` is given as a whole already"
            self.found.append(Diagnostic("0102", message, self.word(tree), notes=(f"at {node.key}",)))
            return {}
        return node.value

    # ---- statements

    def _entry(self, tree: Branch, root: Items) -> None:
        key, value = tree.children
        assert isinstance(key, Token)
        self.add(root, str(key), self.bare(value), self.span(key))

    def _section(self, tree: Branch, root: Items) -> None:
        key, *parts = tree.children
        assert isinstance(key, Token)
        items: Items = {}
        for part in parts:
            self.pairs(part, items)
        self.add(root, str(key), Node(items, self.span(tree)), self.span(key))

    def _data(self, tree: Branch, root: Items) -> None:
        items: Items = {}
        parts = list(tree.children)
        if tree.data == "sourced":
            source = self.bare(parts.pop(0))
            if source.is_none() and not any(parts):
                self.add(root, "data", source, self.word(tree))
                return
            self.add(items, "source", source, source.span)
        for part in parts:
            self.pairs(part, items)
        self.add(root, "data", Node(items, self.span(tree)), self.word(tree))

    def _network(self, tree: Branch, root: Items) -> None:
        items: Items = {}
        layers: list[Node] = []
        for line in filter(None, tree.children):
            assert isinstance(line, Tree)
            if line.data == "props":
                self.pairs(line, items)
            elif line.data == "layer":
                layers += self._layers(line)
            elif line.data == "input":
                self._tensor(line, self._inner(items, "inputs", line))
            else:
                self._named(line, self._inner(items, "init", line))
        if layers:
            first = layers[0].span
            self.add(items, "layers", Node(tuple(layers), first), first)
        self.add(root, "network", Node(items, self.span(tree)), self.word(tree))

    def _decompose(self, tree: Branch, root: Items) -> None:
        items: Items = {}
        for line in filter(None, tree.children):
            assert isinstance(line, Tree)
            if line.data == "props":
                self.pairs(line, items)
            elif line.data == "link":
                self._link(line, self._inner(items, "links", line))
            else:
                self._block(line, self._inner(items, "blocks", line))
        self.add(root, "decompose", Node(items, self.span(tree)), self.word(tree))

    def _learn(self, tree: Branch, root: Items) -> None:
        blocks, params, props, body = tree.children
        items: Items = {}
        for key, selectors in (("blocks", blocks), ("params", params)):
            if isinstance(selectors, Tree):
                self.add(items, key, self._selectors(selectors), self.span(selectors))
        self.pairs(props, items)
        self.pairs(body, items)
        self._entries(root, tree, (Node(items, self.span(tree)),))

    def _entries(self, root: Items, tree: Branch, new: tuple[Node, ...]) -> None:
        node = root.get("learn", Node((), self.span(tree), self.word(tree)))
        earlier = node.value if isinstance(node.value, tuple) else ()
        root["learn"] = replace(node, value=(*earlier, *new))

    # ---- lines

    def _tensor(self, tree: Branch, items: Items) -> None:
        """Read `NAME: dtype[shape]`."""
        name, tensor = tree.children
        assert isinstance(tensor, Tree)
        parts: Items = {}
        for part in filter(None, tensor.children):
            assert isinstance(part, Tree)
            node = self.text_of(part) if part.data == "dtype" else self._shape(part)
            self.add(parts, "shape" if part.data == "shape" else "dtype", node, node.span)
        text = self.text_of(name)
        self.add(items, str(text.value), Node(parts, self.span(tensor)), text.span)

    def _shape(self, tree: Branch) -> Node:
        return Node(tuple(self._dimension(part) for part in filter(None, tree.children)), self.span(tree))

    def _dimension(self, tree: Any) -> Node:
        (token,) = tree.children
        if token.type != "NUMBER":
            return self.text_of(token)
        return Node(int(token) if token.lstrip("+-").isdigit() else str(token), self.span(token))

    def _named(self, tree: Branch, items: Items) -> None:
        """Read `KEY = value`."""
        name, value = tree.children
        text = self.text_of(name)
        self.add(items, str(text.value), self.bare(value), text.span)

    def _link(self, tree: Branch, items: Items) -> None:
        start, end, value = tree.children
        ends = [self.text_of(part) for part in (start, end) if part is not None]
        first, last = ends[0].span, ends[-1].span
        key = replace(first, end_line=last.end_line, end_column=last.end_column) if first and last else first
        self.add(items, "->".join(str(part.value) for part in ends), self.bare(value), key)

    def _block(self, tree: Branch, items: Items) -> None:
        name, *choices = tree.children
        text = self.text_of(name)
        nodes = tuple(self._choice(choice) for choice in choices)
        alone = len(nodes) == 1 and nodes[0].is_none()
        node = nodes[0] if alone else Node(nodes, nodes[0].span)
        self.add(items, str(text.value), node, text.span)

    def _choice(self, tree: Any) -> Node:
        (part,) = tree.children
        return self.text_of(part) if isinstance(part, Token) else self.value(part)

    def _selectors(self, tree: Branch) -> Node:
        nodes = tuple(self.text_of(part) for part in tree.children)
        return nodes[0] if len(nodes) == 1 and nodes[0].is_none() else Node(nodes, self.span(tree))

    # ---- layers

    def _layers(self, tree: Branch) -> list[Node]:
        """Return the layers of one line, the first with the line's name and body."""
        name, chain, *inner = tree.children
        assert isinstance(chain, Tree)
        operators = [self._operator(part) for part in chain.children]
        head = operators[0]
        body = list(filter(None, inner))
        call = head.value
        assert isinstance(call, Call)
        if body or call.name in STRUCTURES:
            head = self._structure(head, chain, body)
        if name is not None:
            text = self.text_of(name)
            self._named_well(text, head)
            head = Node({str(text.value): replace(head, key=text.span)}, self.span(tree))
        for other in operators[1:]:
            self._plain(other)
        return [head, *operators[1:]]

    def _operator(self, tree: Any) -> Node:
        (part,) = tree.children
        if isinstance(part, Token):
            return Node(Call(str(part)), self.span(part))
        return self.value(part)

    def _structure(self, head: Node, chain: Branch, body: list[Any]) -> Node:
        """Return `{repeat(3): [...]}` as YAML has it."""
        assert isinstance(head.value, Call)
        if head.value.name not in STRUCTURES:
            self._wrong(
                f"`{head.value.name}` has layers under it, and is none of {', '.join(STRUCTURES)}", head
            )
        if len(chain.children) > 1:
            self._plain(head)
        first = chain.children[0]
        assert isinstance(first, Tree)
        text = self.text[first.meta.start_pos - 1 : first.meta.end_pos - 1]
        inside = self._paths(body) if head.value.name == "branch" else self._body(body)
        return Node({text: replace(inside, span=inside.span or head.span, key=head.span)}, head.span)

    def _body(self, body: list[Any]) -> Node:
        layers: list[Node] = []
        for part in body:
            if part.data == "path":
                self._wrong("`path` stands under `branch` only", Node(None, self.span(part)))
            else:
                layers += self._layers(part)
        return Node(tuple(layers), layers[0].span if layers else None)

    def _paths(self, body: list[Any]) -> Node:
        paths: Items = {}
        for part in body:
            if part.data != "path":
                self._wrong(
                    "a branch consists of paths: `path NAME`, its layers under it",
                    Node(None, self.span(part)),
                )
                continue
            name, *layers = part.children
            text = self.text_of(name)
            self.add(paths, str(text.value), self._body(list(filter(None, layers))), text.span)
        return Node(paths)

    def _plain(self, node: Node) -> None:
        if isinstance(node.value, Call) and node.value.name in STRUCTURES:
            self._wrong(f"`{node.value.name}` stands alone on its line, its layers under it", node)

    def _named_well(self, text: Node, head: Node) -> None:
        """Refuse the names that mean something else before a `:` in YAML."""
        word = str(text.value)
        taken = word.split("(")[0].strip() in STRUCTURES
        if taken or (word in LAYERS and isinstance(head.value, dict)):
            self._wrong(f"`{word}` is a word of the language and cannot name this layer", text)

    def _wrong(self, message: str, node: Node) -> None:
        self.found.append(Diagnostic("0140", message, node.span))
