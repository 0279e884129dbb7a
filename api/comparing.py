"""What does `lpc diff` do? It compares two plans, or the plans of two specs."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import lpc
from lpc.naming import is_plan
from lpc.output import say, show

if TYPE_CHECKING:
    from lpc.plan import Plan

Source = Annotated[Path, typer.Argument(metavar="SPEC|PLAN", help="a spec or a plan", show_default=False)]


def diff(
    before: Source,
    after: Source,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write a page for the browser", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the difference as JSON")] = False,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="samples in a batch", show_default=False)
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PACKAGE|PATH", help="let `module:` import from here as well", show_default=False),
    ] = None,
) -> None:
    """Show what differs between two specs or plans: blocks, links, gradients, memory, operations."""
    from lpc.views import difference

    found = lpc.diff(_plan(before, allow or ()), _plan(after, allow or ()), batch)
    if html is not None:
        from lpc.specs.files import write_atomically

        html.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(html, difference.page(found).encode())
        say(f"wrote {html}")
    elif json:
        say(json_text.dumps(difference.plain(found), indent=1))
    else:
        for view in difference.shown(found):
            say(view) if isinstance(view, str) else show(view)


def _plan(path: Path, allow: list[str] | tuple[str, ...]) -> Plan:
    return lpc.load(path) if is_plan(path) else lpc.build(path, allow=allow)
