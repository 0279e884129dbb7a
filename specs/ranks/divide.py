"""What does each rank do in a section? Its own instructions in their order, with sends and receives between.

A value is sent right after it was made, and received at the same point of the common order. All ranks follow one
order, so that no ranks can wait for each other in a circle, whatever room there is on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.flow import made, read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import (
    Accumulate,
    Call,
    Clip,
    Every,
    Free,
    Instruction,
    Load,
    Part,
    Random,
    Receive,
    Record,
    Repeat,
    Return,
    Send,
    Write,
)
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.text import line
from lpc.specs.ranks.placement import Placement

Bodies = list[list[Instruction]]  # by rank
EVERYWHERE = -1  # the home of what each rank makes for itself: batch fields, noise, pieces of them


def divide(
    body: Sequence[Instruction],
    placement: Placement,
    ranks: int,
    kernels: Mapping[str, Kernel],
    fields: Mapping[str, TensorType],
) -> list[tuple[Instruction, ...]]:
    """Return a section's instructions for each rank. Raises LpcError (0581) for what no one rank can do."""
    found = _Divider(placement, ranks, kernels, fields).bodies(body)
    return [tuple(own) for own in found]


@dataclass
class _Divider:
    placement: Placement
    ranks: int
    kernels: Mapping[str, Kernel]
    fields: Mapping[str, TensorType]
    homes: dict[str, int] = field(default_factory=dict)  # value -> rank that makes it

    def bodies(self, body: Sequence[Instruction], keep: frozenset[str] = frozenset()) -> Bodies:
        """Divide a body, with frees of each rank's own; values in `keep` outlive it."""
        split = [self.split(instruction) for instruction in body if not isinstance(instruction, Free)]
        crossing = self.crossing(split)
        found: Bodies = [[] for _ in range(self.ranks)]
        for index, parts in enumerate(split):
            for rank, part in enumerate(parts):
                found[rank] += [] if part is None else [part]
            for value, home, wanting in crossing.get(index, ()):
                found[home] += [Send(value, rank) for rank in wanting]
                for rank in wanting:
                    found[rank].append(Receive(value, home))
        return [with_frees(self.needed(own), keep) for own in found]

    def split(self, instruction: Instruction) -> list[Instruction | None]:
        """Return what each rank does of an instruction; homes of what it makes are noted."""
        match instruction:
            case Load() | Random():
                self.homes |= dict.fromkeys(made(instruction), EVERYWHERE)
                return [instruction] * self.ranks
            case Return():
                return [instruction] * self.ranks
            case Repeat() | Every() | Part():
                return self.around(instruction)
            case _:
                rank = self.rank_of(instruction)
                self.homes |= dict.fromkeys(made(instruction), rank)
                if isinstance(instruction, Accumulate):
                    self.homes[instruction.target] = rank
                return [instruction if own == rank else None for own in range(self.ranks)]

    def rank_of(self, instruction: Instruction) -> int:
        """Return the one rank that an instruction runs on: its block's, else that of what it reads."""
        match instruction:
            case Call(kernel=kernel):
                return self.placement[self.kernels[kernel].block]
            case Write(value=value) | Record(value=value) | Accumulate(value=value):
                return max(self.homes[value], 0)
            case Clip(gradients=gradients):
                homes = {self.homes[value] for value in gradients}
            case _ if isinstance(block := getattr(instruction, "block", None), str):
                rank = self.placement[block]
                homes = {rank, *(home for v in read(instruction) if (home := self.homes[v]) != EVERYWHERE)}
            case _:
                homes = set()
        if len(homes) == 1:
            return homes.pop()
        where = f"it takes values of ranks {', '.join(map(str, sorted(homes)))}" if homes else "it has no rank"
        raise LpcError(Diagnostic("0581", f"`{line(instruction)}` cannot be divided: {where}", place="program"))

    def around(self, instruction: Repeat | Every | Part) -> list[Instruction | None]:
        """Sums of an inner body outlive it, and so does what it reads from around."""
        if isinstance(instruction, Part):
            self.homes |= dict.fromkeys(instruction.values, EVERYWHERE)
        sums = (i.target for i in instruction.body if isinstance(i, Accumulate))
        bodies = self.bodies(instruction.body, frozenset((*sums, *read(instruction))))
        return [_around(instruction, tuple(own)) if own else None for own in bodies]

    def crossing(self, split: Sequence[Sequence[Instruction | None]]) -> dict[int, list[tuple[str, int, list[int]]]]:
        """Return, after which instruction, which values go from which rank to which others."""
        current: dict[str, int] = {}
        wanted: dict[tuple[int, str], tuple[int, set[int]]] = {}
        for index, parts in enumerate(split):
            for rank, part in enumerate(parts):
                for value in read(part) if part is not None else ():
                    if value in current and (index_of := (current[value], value)) in wanted:
                        wanted[index_of][1].add(rank)
            for rank, part in enumerate(parts):
                for value in made(part) if part is not None else ():
                    if self.homes.get(value, EVERYWHERE) == rank:
                        current[value] = index
                        wanted[index, value] = (rank, set())
        found: dict[int, list[tuple[str, int, list[int]]]] = {}
        for (index, value), (home, ranks) in wanted.items():
            if away := sorted(ranks - {home}):
                found.setdefault(index, []).append((value, home, away))
        return found

    def needed(self, body: Sequence[Instruction]) -> list[Instruction]:
        """Leave out draws that nobody reads, and fields that say nothing that the rank needs."""
        wanted = {value for instruction in body for value in read(instruction)}
        kept = [i for i in body if not isinstance(i, Random) or i.value in wanted]
        return [self.narrowed(i, wanted) if isinstance(i, Load) else i for i in kept]

    def narrowed(self, load: Load, wanted: set[str]) -> Load:
        """Keep what is read, and as many other fields as tell all lengths: noise and metrics need these."""
        pairs = list(zip(load.values, load.fields, strict=True))
        own = [pair for pair in pairs if pair[0] in wanted]
        known = {length for _, name in own for length in self.lengths(name)}
        for pair in pairs:
            if not known.issuperset(self.lengths(pair[1])):
                own.append(pair)
                known.update(self.lengths(pair[1]))
        ordered = [pair for pair in pairs if pair in own]
        return Load(tuple(value for value, _ in ordered), tuple(name for _, name in ordered))

    def lengths(self, name: str) -> set[str]:
        return {axis for axis in self.fields[name].shape if isinstance(axis, str) and re.fullmatch(r"\w+", axis)}


def _around(instruction: Repeat | Every | Part, body: tuple[Instruction, ...]) -> Instruction:
    if not isinstance(instruction, Part):
        return replace(instruction, body=body)
    wanted = {value for inner in body for value in read(inner)}
    pairs = [p for p in zip(instruction.values, instruction.sources, strict=True) if p[0] in wanted]
    values, sources = tuple(value for value, _ in pairs), tuple(source for _, source in pairs)
    return replace(instruction, values=values, sources=sources, body=body)
