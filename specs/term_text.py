"""How is a term read from text? The grammar in term.lark, with the position of every part kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import NoReturn

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.grammars import parser
from lpc.specs.source import Locate, Source, Span, locate_in
from lpc.specs.term import Term, Value, unquote
from lpc.specs.tree import Call, Node, Scalar, lower

_WORDS: dict[str, Scalar] = {"true": True, "false": False, "none": None, "null": None}
MAX_DEPTH = 32


def parse_term(text: str) -> Term:
    """Return the term that `text` writes.

    Raises:
        LpcError: 0104, at the first character that cannot continue a term.
    """
    term = lower(read_term(text, locate_in(Source("<term>", text))))
    assert isinstance(term, Term)
    return term


def parse_value(text: str) -> Value:
    """Return the argument value that `text` writes: number, word, quoted text, list, dict or nested term."""
    return lower(_Reader(locate_in(Source("<value>", text)), text).value(_parse(text, "start")))


def read_term(text: str, locate: Locate) -> Node:
    """Return the term as a node whose parts carry spans; `locate(start, end)` places offsets of `text`."""
    return _Reader(locate, text).top(_parse(text, "top", locate))


def read_tree(tree: Tree[Token], text: str, locate: Locate) -> Node:
    """Return the value whose parse tree, by the rules of term.lark, lies in `text`."""
    return _Reader(locate, text).value(tree)


@cache
def _grammar() -> Lark:
    return parser("term")


# Specs say the same few terms again and again. A parse tree is only read, never changed.
@lru_cache(maxsize=1024)
def _tree_of(text: str, start: str) -> Tree[Token]:
    return _grammar().parse(text, start=start)


def _parse(text: str, start: str, locate: Locate | None = None) -> Tree[Token]:
    locate = locate or locate_in(Source("<value>", text))
    if _depth(text) > MAX_DEPTH:
        raise LpcError(
            Diagnostic("0103", f"a term nests deeper than {MAX_DEPTH} levels", locate(0, len(text)))
        )
    try:
        return _tree_of(text, start)
    except UnexpectedInput as error:
        _fail(text, error, locate)


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _fail(text: str, error: UnexpectedInput, locate: Locate) -> NoReturn:
    """Raise 0104 at the character where reading stopped."""
    token = getattr(error, "token", None)
    ended = isinstance(error, UnexpectedEOF) or (isinstance(token, Token) and token.type == "$END")
    start = len(text) if ended else max(error.pos_in_stream or 0, 0)
    found = "the end of the text" if ended else f"`{text[start : start + 1]}`"
    if isinstance(error, UnexpectedCharacters) or not isinstance(token, Token) or ended:
        end = min(start + 1, len(text))
    else:
        found, end = f"`{token}`", start + len(token)
    if ended and start:
        start -= 1
    message = f"`{text}` is no term: unexpected {found}"
    raise LpcError(Diagnostic("0104", message, locate(start, max(end, start + 1))))


class _Reader:
    """Turns parse trees into nodes; holds the text's place in its source."""

    def __init__(self, locate: Locate, text: str) -> None:
        self.locate = locate
        self.text = text

    def top(self, tree: Tree[Token]) -> Node:
        name, arguments = tree.children
        return self._call(name, arguments, self.locate(0, len(self.text)))

    def value(self, tree: Tree[Token]) -> Node:
        """Read one `value`, unwrapped down to its kind."""
        while tree.data in ("value", "start"):
            tree = _tree(tree.children[0])
        span = self.locate(tree.meta.start_pos, tree.meta.end_pos)
        if tree.data == "call":
            name, arguments = tree.children
            return self._call(name, arguments, span)
        if tree.data == "list":
            return Node(tuple(self.value(_tree(child)) for child in filter(None, tree.children)), span)
        if tree.data == "dict":
            return Node(self._pairs(tree), span)
        return self._scalar(str(tree.data), str(tree.children[0]), span)

    def _scalar(self, kind: str, text: str, span: Span | None) -> Node:
        if kind == "word":
            return Node(_WORDS.get(text, text), span)
        if kind == "number":
            return Node(_number(text), span)
        try:
            return Node(unquote(text), span, quoted=True)
        except ValueError as error:
            raise LpcError(
                Diagnostic("0104", f"{text} has an escape that JSON does not have", span)
            ) from error

    def _pairs(self, tree: Tree[Token]) -> dict[str, Node]:
        pairs: dict[str, Node] = {}
        for pair in filter(None, tree.children):
            key, value = (_tree(part) for part in _tree(pair).children)
            span = self.locate(key.meta.start_pos, key.meta.end_pos)
            text = str(key.children[0])
            name = str(self._scalar("string", text, span).value) if key.data == "string" else text
            self._add(pairs, name, value, span)
        return pairs

    def _add(self, table: dict[str, Node], name: str, value: Tree[Token], key: Span | None) -> None:
        if name in table:
            raise LpcError(Diagnostic("0102", f"`{name}` is given twice", key))
        node = self.value(value)
        table[name] = Node(node.value, node.span, key, node.quoted)

    def _call(self, name: object, arguments: object, span: Span | None) -> Node:
        positional: list[Node] = []
        named: dict[str, Node] = {}
        parts = arguments.children if isinstance(arguments, Tree) else ()
        for part in filter(None, parts):
            key, value = _tree(part).children
            if isinstance(key, Token):
                start = key.start_pos or 0
                self._add(named, str(key), _tree(value), self.locate(start, start + len(key)))
            elif named:
                node = self.value(_tree(value))
                raise LpcError(
                    Diagnostic("0104", "an argument without a name follows one with a name", node.span)
                )
            else:
                positional.append(self.value(_tree(value)))
        return Node(Call(str(name), tuple(positional), named), span)


def _tree(part: object) -> Tree[Token]:
    assert isinstance(part, Tree)
    return part


def _number(text: str) -> int | float:
    if text.lstrip("+-").isdigit():
        return int(text)
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def read_scalar_term(node: Node) -> Node:
    """Return the term that a YAML text writes, its parts placed inside the text.

    Raises:
        LpcError: 0104, where the text stops being a term.
    """
    assert isinstance(node.value, str)
    term = read_term(node.value, _within(node))
    return replace(node, value=term.value, quoted=False)


def _within(node: Node) -> Locate:
    """Return a function from offsets in a node's text to spans; escaped text is placed as a whole."""
    span, text = node.span, node.value
    assert isinstance(text, str)
    if span is None:
        return lambda start, end: None
    base = span.source.offset(span.line, span.column)
    lead = next((o for o in (base, base + 1) if span.source.text.startswith(text, o)), None)
    if lead is None:
        return lambda start, end: span
    locate = locate_in(span.source)
    return lambda start, end: locate(lead + start, lead + end)
