"""What do the parts of a step with auxiliary variables cost? Their operations, and a row for each number of devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType

from lpc.specs.stages import StagedCost
from lpc.views.tables import table
from lpc.views.units import count


def shown(cost: StagedCost) -> Iterator[RenderableType]:
    """Yield the table of the stages by block, and that of the devices."""
    stages = cost.stages
    parts = {"init": stages.init, "variables": stages.solution, "weights": stages.weights}
    found = table("block", right=tuple(parts))
    for block in dict.fromkeys(b for part in parts.values() for b in part):
        found.add_row(block, *(count(part.get(block, 0)) for part in parts.values()))
    found.add_row("all", *(count(sum(part.values())) for part in parts.values()))
    yield found
    seldom = f"solved every {cost.period} visits"
    devices = table("devices", right=("solved each time", "faster", seldom, "faster ", "messages"))
    one = cost.rows[0]
    for row in cost.rows:
        gains = (f"{a / b:.2f}" for a, b in ((one.path, row.path), (one.seldom, row.seldom)) if b)
        first, second = (*gains, "-", "-")[:2]
        devices.add_row(
            str(row.devices), count(round(row.path)), first, count(round(row.seldom)), second,
            "-" if row.messages is None else f"{row.messages:g}",
        )  # fmt: skip
    yield ""
    yield devices
    yield "\nflops of a mean step that wait for each other: init, variables, and the device with most weights"


def plain(cost: StagedCost) -> dict[str, Any]:
    """Return everything as numbers."""
    return asdict(cost)
