"""What would a plan need? Its blocks, the memory and the operations of a step, and what each device would hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from lpc.views import building, cost, memory
from lpc.views.tables import table
from lpc.views.units import count, size

if TYPE_CHECKING:
    from lpc.estimating import Estimate


def shown(found: Estimate) -> Iterator[RenderableType]:
    """Yield how the network was traced, then a row for each block, the peak, and a row for each device."""
    yield building.trace(found.report)
    yield memory.blocks(found.memory)
    yield memory.peak(found.memory)
    yield f"{count(found.cost.flops)} flops a step, {size(found.cost.traffic)} cross boundaries"
    if len(found.devices) > 1:
        yield ""
        yield _devices(found)


def plain(found: Estimate) -> dict[str, Any]:
    """Return the estimate as plain data."""
    devices = [{**vars(device), "total": device.total} for device in found.devices]
    partition: Mapping[str, Any] = found.partition
    return {
        "name": found.name,
        "memory": memory.plain(found.memory),
        "cost": cost.plain(found.cost),
        "devices": devices,
        "blocks": [node["id"] for node in partition["nodes"]],
    }


def text(found: Estimate) -> str:
    """Return the estimate as JSON."""
    return json.dumps(plain(found), indent=1)


def _devices(found: Estimate) -> RenderableType:
    made = table("device", "blocks", right=("stays", "held by a block", "peak"))
    for index, device in enumerate(found.devices):
        ends = device.blocks if len(device.blocks) < 3 else (device.blocks[0], "...", device.blocks[-1])
        cells = (size(device.resident), size(device.peak), size(device.total))
        made.add_row(str(index), f"{', '.join(ends)} ({len(device.blocks)})", *cells)
    return made
