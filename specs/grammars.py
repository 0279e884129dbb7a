"""How does a grammar become a parser? From its table in `tables/`, or worked out anew.

Working out the parser of a grammar takes ten times as long as reading it, and every command needs one. So the
tables are shipped; `python -m lpc.specs.grammars` writes them. A table of another grammar or another lark than the
ones at hand is passed over.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import lark
from lark.grammar import Rule
from lark.indenter import Indenter
from lark.lexer import TerminalDef

from lpc.specs.texts import shipped_text

_START = {"term": ["start", "top"], "grammar": ["start"]}


class Blocks(Indenter):
    """Turns the indentation of the DSL into the tokens that open and close bodies."""

    NL_type = "_NL"
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 8

    @property
    def OPEN_PAREN_types(self) -> list[str]:  # noqa: N802 - lark's name
        """The brackets inside which lines may be broken."""
        return ["LPAR", "LSQB", "LBRACE"]

    @property
    def CLOSE_PAREN_types(self) -> list[str]:  # noqa: N802 - lark's name
        """The brackets that end that."""
        return ["RPAR", "RSQB", "RBRACE"]


def parser(name: str) -> lark.Lark:
    """Return the parser of the grammar `term` or `grammar`."""
    held = json.loads(shipped_text("lpc.specs", f"tables/{name}.json"))
    if held["of"] != _identity(name):
        return built(name)
    table = _numbered(held["table"])
    table["data"]["options"]["postlex"] = _postlex(name)
    return lark.Lark.load(table)


def built(name: str) -> lark.Lark:
    """Return the parser of a grammar, worked out from its text."""
    return lark.Lark(
        shipped_text("lpc.specs", f"{name}.lark"),
        parser="lalr",
        start=_START[name],
        postlex=_postlex(name),
        propagate_positions=True,
        maybe_placeholders=True,
    )


def table(name: str) -> dict[str, Any]:
    """Return what `parser` reads: the table, and the grammar and the lark that it is of."""
    data, memo = built(name).memo_serialize([TerminalDef, Rule])
    data["options"]["postlex"] = None
    return {"of": _identity(name), "table": {"data": data, "memo": memo}}


def _identity(name: str) -> dict[str, str]:
    text = shipped_text("lpc.specs", f"{name}.lark")
    return {"lark": lark.__version__, "grammar": sha256(text.encode()).hexdigest()}


def _postlex(name: str) -> Indenter | None:
    return Blocks() if name == "grammar" else None


def _numbered(value: Any) -> Any:
    """Return a JSON value with the keys that are numbers as numbers: states, tokens and places in the memo."""
    if isinstance(value, dict):
        return {int(key) if key.isdigit() else key: _numbered(item) for key, item in value.items()}
    return [_numbered(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    """Write the tables."""
    for name in _START:
        path = Path(__file__).parent / "tables" / f"{name}.json"
        path.write_text(json.dumps(table(name), separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
