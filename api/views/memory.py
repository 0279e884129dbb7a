"""How much memory does a plan need? A row for each block, and what is alive at the peak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from lpc.specs.memory.outbox import Outbox
from lpc.specs.memory.prediction import BlockMemory, Memory
from lpc.views.units import size

COLUMNS = ("parameters", "gradients", "optimizer", "offsets", "activations", "peak")
SHOWN = 8  # of what is alive at the peak


def blocks(memory: Memory) -> Table:
    """Return one row for each block, and one for all: sums of what stays, and the largest of the rest."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("block", overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for block in memory.blocks:
        _row(table, block)
    _row(table, together(memory))
    return table


def together(memory: Memory) -> BlockMemory:
    """Return the row of all blocks: blocks' states live together, their activations one after the other."""
    rows = memory.blocks
    return BlockMemory(
        block="all",
        parameters=sum(row.parameters for row in rows),
        gradients=sum(row.gradients for row in rows),
        optimizer=sum(row.optimizer for row in rows),
        offsets=sum(row.offsets for row in rows),
        activations=max((row.activations for row in rows), default=0),
        peak=memory.peak,
    )


def peak(memory: Memory) -> str:
    """Return the total, the instruction at the peak, and the largest of what is alive then, a line each."""
    return "\n".join(_lines(memory)) + "\n"


def _lines(memory: Memory) -> Iterator[str]:
    named = ", ".join(f"{name} = {length}" for name, length in sorted(memory.lengths.items()))
    named += f", phase {memory.phase + 1}" if memory.phase else ""
    yield f"\nwith {named}: {size(memory.total)} at the peak"
    yield f"  {size(memory.resident)} stay from step to step, of which the batch is {size(memory.batch)}"
    yield f"  {size(memory.peak)} more in `{memory.line}`" + (f", at {memory.node}" if memory.node else "")
    yield from (f"not counted: {what}" for what in memory.unknown)
    yield from _kept(memory.outbox) if memory.outbox is not None else ()
    together = Counter[str]()
    for one in memory.alive:
        together[one.role] += one.size
    yield f"alive then: {', '.join(f'{role} {size(total)}' for role, total in together.most_common())}"
    yield from (f"  {size(one.size):>10}  {one.role}  {one.name}" for one in memory.alive[:SHOWN])
    if len(memory.alive) > SHOWN:
        rest = memory.alive[SHOWN:]
        yield f"  {size(sum(one.size for one in rest)):>10}  in {len(rest)} more"


def _kept(outbox: Outbox) -> Iterator[str]:
    """Say what is kept to be sent again, and when it is too much."""
    each = f"{size(outbox.step)} a step and {size(outbox.batch)} a batch of an evaluation"
    yield f"  beside it is kept what is sent, until the next checkpoint: {each}"
    limit = f"{size(outbox.limit)} (`lpc run --keep`)"
    if outbox.steps is None:
        yield f"  no more than {limit}, which hold {outbox.room} steps"
    else:
        yield f"  {size(outbox.most)} after {outbox.steps} steps, and no more than {limit}"


def shown(memory: Memory) -> Iterator[RenderableType]:
    """Yield the table of the blocks, and the peak."""
    yield blocks(memory)
    yield peak(memory).rstrip("\n")


def plain(memory: Memory) -> dict[str, Any]:
    """Return everything in bytes, with the sums `resident` and `total`, and `most` of what is kept to be sent again."""
    found = {**asdict(memory), "resident": memory.resident, "total": memory.total}
    if memory.outbox is None:
        del found["outbox"]
    else:
        found["outbox"]["most"] = memory.outbox.most
    return found


def _row(table: Table, block: BlockMemory) -> None:
    table.add_row(block.block, *(size(getattr(block, name)) for name in COLUMNS))
