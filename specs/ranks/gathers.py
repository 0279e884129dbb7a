"""Where does a rank gather the parameters of its sharded blocks? Before the calls that read them.

One gather serves the calls up to those of another sharded block, so that one block is whole at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lpc.specs.plan.flow import made, read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import (
    Call,
    Due,
    Every,
    Free,
    Gather,
    Instruction,
    Lag,
    Later,
    Lend,
    Only,
    Part,
    ReduceScatter,
    Update,
)
from lpc.specs.ranks.makers import flat

Body = tuple[Instruction, ...]


@dataclass
class Gathers:
    """Puts gathers from a group of ranks into one section, and lends to others of them.

    `readers` are the kernels that read sharded parameters, with their blocks.
    """

    readers: Mapping[str, str]
    group: tuple[int, ...]
    lends: tuple[int, ...]
    counts: dict[str, int] = field(default_factory=dict)

    def placed(self, body: Sequence[Instruction]) -> Body:
        """Return a body with gathers; an inner one that calls a single sharded block is given it from around."""
        found: list[Instruction] = []
        open_block, value = "", ""
        for one in body:
            blocks = self.called(one)
            if isinstance(one, Free):
                continue
            if len(blocks) > 1 or (blocks and _apart(one, blocks)):
                open_block = ""
                found.append(replace(one, body=self.placed(one.body)))  # type: ignore[union-attr, arg-type]
                continue
            for block in blocks - {open_block}:
                open_block, value = block, self.name(block)
                found += [Lend(block, self.lends)] if self.lends else []
                found.append(Gather(value, block, self.group))
            open_block = "" if isinstance(one, Later | Lag | Update) else open_block
            found.append(self.given(one, value) if blocks else one)
        return tuple(with_frees(found, outliving(body)))

    def called(self, one: Instruction) -> set[str]:
        """Return the sharded blocks whose parameters an instruction, with its body, reads."""
        calls = (i.kernel for i in flat((one,)) if isinstance(i, Call))
        return {self.readers[kernel] for kernel in calls if kernel in self.readers}

    def name(self, block: str) -> str:
        self.counts[block] = self.counts.get(block, 0) + 1
        return f"{block}.gathered" + (f".{self.counts[block]}" if self.counts[block] > 1 else "")

    def given(self, one: Instruction, value: str) -> Instruction:
        if isinstance(one, Call):
            return replace(one, arguments=(*one.arguments, value)) if one.kernel in self.readers else one
        if (inner := getattr(one, "body", None)) is not None:
            return replace(one, body=tuple(self.given(i, value) for i in inner))  # type: ignore[arg-type]
        return one


def _apart(one: Instruction, blocks: set[str]) -> bool:
    """Does a body not run at each step, or change what it reads?"""
    return isinstance(one, Every | Due) or (
        not isinstance(one, Call) and any(isinstance(i, Update) and i.block in blocks for i in flat((one,)))
    )


def outliving(body: Sequence[Instruction]) -> set[str]:
    """Return the values that a body does not free."""
    freed = {value for one in body if isinstance(one, Free) for value in one.values}
    return {value for one in body if not isinstance(one, Free) for value in (*made(one), *read(one))} - freed


def lent(body: Sequence[Instruction], leader: int) -> Body:
    """Return what a rank lends to the leader of its group while that runs a section."""
    found: list[Instruction] = []
    for one in body:
        if isinstance(one, Gather):
            found.append(Lend(one.block, (leader,)))
        elif inner := lent(getattr(one, "body", ()), leader):
            empty = {"values": (), "sources": ()} if isinstance(one, Part) else {}
            found.append(replace(one, body=inner, **empty))  # type: ignore[arg-type]
    return tuple(found)


def transfers(body: Sequence[Instruction]) -> Body:
    """Return what a piece without samples still does with other ranks: it lends, gathers and reduces as others do."""
    found: list[Instruction] = []
    gathered = {one.value for one in body if isinstance(one, Gather)}
    for one in body:
        if isinstance(one, Lend | Gather | ReduceScatter | Later | Only):
            found.append(one)
        elif isinstance(one, Free) and not gathered.isdisjoint(one.values):
            found.append(Free(tuple(value for value in one.values if value in gathered)))
        elif inner := transfers(getattr(one, "body", ())):
            empty = {"values": (), "sources": ()} if isinstance(one, Part) else {}
            found.append(replace(one, body=inner, **empty))  # type: ignore[arg-type]
    return tuple(found) if any(not isinstance(one, Later | Only) for one in found) else ()
