"""What do the commands do that are about the language itself? explain, fix and schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import lpc
from lpc.output import say, tell

USER_MISTAKE = 2


def explain(code: Annotated[str, typer.Argument(metavar="CODE", help="a code, such as LPC0120")]) -> None:
    """Explain a diagnostic code, with a wrong and a right example."""
    from lpc.views.explanation import explanation

    say(explanation(code), end="")


def fix(
    file: Annotated[Path, typer.Argument(metavar="SPEC", help="a spec", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the changes only")] = False,
) -> None:
    """Mend misspelt keys, names and arguments of a spec, and show the changes."""
    from difflib import unified_diff

    from lpc.specs.files import write_atomically
    from lpc.specs.fixing import fix as mended

    before, after, left = mended(file)
    for line in unified_diff(before.splitlines(), after.splitlines(), str(file), str(file), lineterm=""):
        say(line)
    if after != before and not dry_run:
        write_atomically(file, after.encode())
    for problem in left:
        tell(problem)
    if left:
        raise typer.Exit(USER_MISTAKE)
    if after == before:
        say(f"{file}: nothing to mend")


def schema() -> None:
    """Print the JSON Schema of the YAML spelling, for completion and hover in an editor."""
    from lpc.views.schema import page

    say(page(), end="")


def report(found: lpc.Spec | lpc.LpcError) -> str:
    """Return the outcome of a check as JSON: `ok`, the spec's `name`, and the `diagnostics`."""
    problems = found.diagnostics if isinstance(found, lpc.LpcError) else ()
    name = None if isinstance(found, lpc.LpcError) else found.name
    return json.dumps({"ok": not problems, "name": name, "diagnostics": [p.as_dict() for p in problems]}, indent=2)
