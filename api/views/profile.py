"""Where did a step spend its time? A row for each instruction, the blocks, and the three largest costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.markup import escape

from lpc.views.tables import table
from lpc.views.units import count, size

if TYPE_CHECKING:
    from lpc.profiling import Profile

WIDTH = 70  # of an instruction


def shown(found: Profile) -> Iterator[RenderableType]:
    """Yield the table of instructions, that of blocks, and what takes longest."""
    rows = table("instruction", right=("time", "share", "flops", "flops/s", "held"))
    for row in found.rows:
        rate = count(round(row.flops / row.seconds)) if row.flops and row.seconds else ""
        flops = count(row.flops) if row.flops else ""
        told = _short(row.line)
        rows.add_row(escape(told), _time(row.seconds), _share(row.seconds, found.seconds), flops, rate, size(row.held))
    yield rows
    blocks = table("block", right=("time", "share"))
    for block, seconds in found.blocks.items():
        blocks.add_row(block or "-", _time(seconds), _share(seconds, found.seconds))
    yield ""
    yield blocks
    yield f"\n{_time(found.seconds)} a step of {found.batch} samples on {found.device}, median of {found.steps} steps"
    for index, row in enumerate(found.largest, 1):
        yield f"{index}. {_share(row.seconds, found.seconds)} in `{_short(row.line)}`"


def plain(found: Profile) -> dict[str, Any]:
    """Return everything but the single events."""
    told = asdict(found)
    told.pop("events")
    return {**told, "seconds": found.seconds, "blocks": found.blocks, "largest": [row.line for row in found.largest]}


def _short(line: str) -> str:
    """Return an instruction without the names of what it makes."""
    told = line.partition(" = ")[2] or line
    return told if len(told) <= WIDTH else f"{told[: WIDTH - 4]} ..."


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _share(one: float, all_: float) -> str:
    return f"{100 * one / all_:.1f} %" if all_ else "-"
