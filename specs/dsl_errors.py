"""What does a mistake in the DSL look like? Bad examples, from which the parser learns its messages."""

from __future__ import annotations

from lark import Token
from lark.exceptions import UnexpectedInput, UnexpectedToken

# By kind of mistake: the message, with {found}, and one thing to try.
_KINDS: dict[str, tuple[str, str]] = {
    "dedent": ("the indentation fits no line above", "indent a body by two spaces, and all its lines alike"),
    "indent": ("this line is indented, but the line above takes no body", "remove the indentation"),
    "line": (
        "unexpected {found} after a word",
        "write `NAME = linear(256)` for a layer, `zoo mlp` for a key",
    ),
    "comma": ("a key should follow the comma, found {found}", "remove the comma, or go on with `key value`"),
    "colon": ("unexpected {found} after a key", "the DSL has no colon there: `epochs 20`"),
    "equals": ("unexpected {found} after a key", "the DSL has no `=` there: `epochs 20`"),
    "value": ("a key lacks its value, found {found}", "write `key value`"),
    "statement": (
        "a statement begins with a word, found {found}",
        "begin with `network`, `data`, `learn` or another key",
    ),
    "learn": (
        "expected `:` after what the entry is about, found {found}",
        "write `learn *: head linear, optimizer sgd(lr=0.1)`",
    ),
    "block": ("a block lacks what it holds, found {found}", "write `block NAME = module, module`"),
    "block_equals": (
        "expected `=` after the block's name, found {found}",
        "write `block NAME = module, module`",
    ),
    "link": ("a link lacks its term, found {found}", "write `link a->b = stop`"),
    "link_equals": ("expected `=` after the link's ends, found {found}", "write `link a->b = stop`"),
    "tensor": ("expected a dtype and a shape, found {found}", "write `NAME: float32[1, 28, 28]`"),
    "tensor_colon": ("expected `:` after the name, found {found}", "write `NAME: float32[1, 28, 28]`"),
    "layer": ("an operator should follow, found {found}", "write `NAME = linear(256) >> relu`"),
    "chain": ("layers in a row are joined by `>>`, found {found}", "write `fc1 = linear(256) >> relu`"),
    "argument": ("an argument should follow, found {found}", "write `name(value, key=value)`"),
    "closing": ("a bracket is not closed before {found}", "close it, or put a comma between the parts"),
    "quote": (
        "this quote is not closed on its line, or its text has a wrong escape",
        "close it, or write `\\\\` for a backslash",
    ),
    "path": ("a path has a name, found {found}", "write `path NAME`, with its layers under it"),
}

MESSAGES = {kind: message for kind, (message, _) in _KINDS.items()}
HELP = {kind: help for kind, (_, help) in _KINDS.items()}

# These speak of one wrong token, and say nothing about others at the same place.
PARTICULAR = frozenset({"indent", "line", "colon", "equals", "closing"})

# Each example stops the parser in the state, and at the kind of token, for which the message is right.
TEACHING: dict[str, list[str]] = {
    "indent": ["spec a\n  b 1", "  spec a", "loss a\n  b 1", "network\n  input a: [1]\n    b 1"],
    "line": ["network\n  a: b"],
    "comma": ["learn *: a b,", "run a b,", "run a b,\n"],
    "colon": [
        "run\n  epochs: 1",
        "run epochs: 1",
        "network: a",
        "data: a",
        "decompose\n  at: a",
        "run:",
        "loss: a",
        "network\n  zoo: a",
        "decompose: a",
        "data a b: 1",
        "spec: a",
    ],
    "equals": [
        "run epochs = 1",
        "run\n  epochs = 1",
        "loss = a",
        "spec = a",
        "decompose\n  at = a",
        "data a b = 1",
        "data = a",
        "run = a",
    ],
    "value": ["run epochs 1 seed", "run\n  epochs", "data a b", "spec", "run epochs, seed 1", "decompose at"],
    "statement": ["= a", "1", "[a]", '"a" 1', ": a", ", a", "- a", ") a"],
    "learn": [
        "learn * head linear",
        "learn a b",
        "learn params * weight_decay 0",
        "learn a 1",
        "learn * = a",
    ],
    "block": [
        "decompose\n  block a =",
        "decompose\n  block a = 1",
        "decompose\n  block a = b,",
        "decompose\n  block a = [b]",
    ],
    "block_equals": ["decompose\n  block a: b", "decompose\n  block a b", "decompose\n  block a\n"],
    "link": [
        "decompose\n  link a =",
        "decompose\n  link a->b =",
        "decompose\n  link a = =",
        "network\n  init a =",
    ],
    "link_equals": [
        "decompose\n  link a->b stop",
        "decompose\n  link a: stop",
        "decompose\n  link a\n",
        "decompose\n  link a -> b\n",
    ],
    "tensor": [
        "network\n  input a:",
        "network\n  input a: 3",
        "field a:",
        "field a: 3",
        "network\n  input a: (1)",
    ],
    "tensor_colon": [
        "network\n  input a [1]",
        "network\n  input a = float32[1]",
        "field a [1]",
        "field a = [1]",
        "field a\n",
    ],
    "layer": [
        "network\n  a =",
        "network\n  a = >> b",
        "network\n  a = b >>",
        "network\n  a = 3",
        "network\n  a = [b]",
    ],
    "chain": [
        "network\n  a = b c",
        "network\n  a = b, c",
        "network\n  b(1) c",
        "network\n  a = b(1) c",
        "network\n  a = b(1), c",
        "network\n  b(1), c",
        "network\n  b, c",
    ],
    "argument": ["loss a(,", "loss a(b=", "loss a(b=)", "loss a(b,,", "network\n  a = b(,"],
    "closing": [
        "loss a(b",
        "loss a(b c",
        "loss [a",
        "loss [a b",
        "loss {a: b",
        "loss {a: b c",
        "loss a(b=1 c",
        "network\n  input a: [1",
        "network\n  a = b(1",
        "loss a(b=c",
        "loss [a\n",
        "loss a(1 2",
        "loss a(b 1",
        "loss [a 1",
        "loss {a: b 1",
    ],
    "path": ["network\n  branch\n    path\n", "network\n  branch\n    path = a"],
}

_END = frozenset({"_NL", "_INDENT", "_DEDENT", "$END"})


def stopped(text: str, error: UnexpectedInput) -> tuple[int, int, str]:
    """Return from where to where in `text` reading stopped, and what was found there, in words.

    The parser's text has one more line break in front.
    """
    token = getattr(error, "token", None)
    if isinstance(error, UnexpectedToken) and isinstance(token, Token):
        start = (token.start_pos or 0) - 1
        if token.type == "_INDENT":
            start = start + len(token) if text[start : start + 1] in "\r\n" else start
            start += len(text[start:]) - len(text[start:].lstrip())
            return start, start + 1, "an indented line"
        if token.type in _END:
            start = min(max(start, 0), len(text))
            return start, start + 1, "the end of the line" if text[start:].strip() else "the end of the text"
        return start, start + len(token), f"`{token}`"
    start = (error.pos_in_stream or 1) - 1
    character = text[start : start + 1]
    return start, start + 1, f"`{character}`" if character.strip() else "the end of the text"
