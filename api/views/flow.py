"""Which losses reach which parameters? A matrix in text: a dot where one does, a ring where it is another block's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType

from lpc.flow import Flow, Row
from lpc.views.tables import table

OWN, OTHER, INDIRECT, NONE = "●", "○", "~", "·"


def shown(flow: Flow) -> Iterator[RenderableType]:
    """Yield the matrix, a row for the parameters of a block that the same losses reach, and what the signs mean."""
    matrix = table("block", "parameters", *flow.losses)
    for row in flow.rows:
        matrix.add_row(row.block, _names(row), *(_sign(row, loss) for loss in flow.losses))
    yield matrix
    through = f" {INDIRECT} does through auxiliary variables alone," if any(row.indirect for row in flow.rows) else ""
    yield f"\n{OWN} the block's own loss reaches them, {OTHER} another block's does,{through} {NONE} does not"


def plain(flow: Flow) -> dict[str, Any]:
    """Return the matrix as lists."""
    return {"losses": list(flow.losses), "rows": list(map(_plain, flow.rows))}


def _plain(row: Row) -> dict[str, Any]:
    found = {**asdict(row), "losses": sorted(row.losses)}
    indirect = found.pop("indirect")
    return {**found, "indirect": sorted(indirect)} if indirect else found


def _sign(row: Row, loss: str) -> str:
    if loss not in row.losses:
        return INDIRECT if loss in row.indirect else NONE
    return OWN if loss.rpartition(".")[0] == row.block else OTHER


def _names(row: Row) -> str:
    names = row.parameters
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, ... {names[-1]} ({len(names)})"
