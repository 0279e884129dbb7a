"""What does a step cost? A row for each block and for each kernel: operations, and the bytes that cross boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType

from lpc.specs.cost import Cost
from lpc.views.tables import table
from lpc.views.units import count, size


def shown(cost: Cost) -> Iterator[RenderableType]:
    """Yield the table of the blocks, that of the kernels, and the sums."""
    blocks = table("block", right=("flops", "share"))
    for block, flops in cost.blocks.items():
        blocks.add_row(block, count(flops), _share(flops, cost.flops))
    yield blocks
    kernels = table("kernel", right=("calls", "flops", "share", "sends"))
    for row in cost.kernels:
        kernels.add_row(
            row.kernel, f"{row.calls:g}", count(row.flops), _share(row.flops, cost.flops), size(row.traffic)
        )
    yield ""
    yield kernels
    named = ", ".join(f"{name} = {length}" for name, length in sorted(cost.lengths.items()))
    phase = f", phase {cost.phase + 1}" if cost.phase else ""
    yield f"\nwith {named}{phase}: {count(cost.flops)} flops a step, {size(cost.traffic)} cross boundaries"


def plain(cost: Cost) -> dict[str, Any]:
    """Return everything as numbers, with the sums."""
    return {**asdict(cost), "blocks": cost.blocks, "flops": cost.flops, "traffic": cost.traffic}


def _share(one: int, all_: int) -> str:
    return f"{100 * one / all_:.1f} %" if all_ else "-"
