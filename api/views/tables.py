"""How is a table laid out? No lines, bold heads, numbers to the right."""

from __future__ import annotations

from rich.table import Table


def table(*left: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table with columns of texts, then columns of numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in left:
        made.add_column(name, overflow="fold")
    for name in right:
        made.add_column(name, justify="right")
    return made
