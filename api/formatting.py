"""What does `lpc fmt` do? It lays a spec out, or prints it in the other spelling."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lpc.output import say

NOT_FORMATTED = 1


class To(StrEnum):
    """The spellings of the language."""

    dsl = "dsl"
    yaml = "yaml"


def fmt(
    file: Annotated[Path, typer.Argument(metavar="SPEC", help="a spec", show_default=False)],
    to: Annotated[To | None, typer.Option(help="print it in this spelling", show_default=False)] = None,
    check: Annotated[
        bool, typer.Option("--check", help="change nothing; end with 1 if it would change")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="show the changes only")] = False,
) -> None:
    """Lay a spec out in the canonical way, comments kept; or print it in the other spelling."""
    from difflib import unified_diff

    from lpc.specs.files import write_atomically
    from lpc.specs.formatting import format_spec
    from lpc.specs.spelling import is_dsl
    from lpc.specs.texts import read_text

    before = read_text(file)
    after = format_spec(file, before, None if to is None else to.value)
    if to is not None and (to is To.dsl) != is_dsl(str(file)):
        say(after, end="")
        return
    if diff:
        for line in unified_diff(before.splitlines(), after.splitlines(), str(file), str(file), lineterm=""):
            say(line)
    elif check:
        say(f"{file}: {'is' if after == before else 'is not'} in canonical layout")
    elif after != before:
        write_atomically(file, after.encode())
        say(f"{file}: formatted")
    if check and after != before:
        raise typer.Exit(NOT_FORMATTED)
