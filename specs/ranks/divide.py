"""What does each rank do in a section? Its own instructions in their order, with sends and receives between.

A value is sent right after it was made, and received at the same point of the common order. All ranks follow one
order, so that no ranks can wait for each other in a circle, whatever room there is on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.flow import made, read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import (
    Accumulate,
    Adopt,
    Begin,
    Call,
    Clip,
    Due,
    Every,
    Fetch,
    Free,
    Instruction,
    Load,
    Norms,
    Only,
    Parallel,
    Part,
    Random,
    Receive,
    Record,
    Reduce,
    Relax,
    Repeat,
    Return,
    Scale,
    Send,
    StepVariable,
    Store,
    Visit,
    Weight,
    Write,
)
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Program
from lpc.specs.plan.text import line
from lpc.specs.ranks.clipping import spread
from lpc.specs.ranks.pipeline import pipelined
from lpc.specs.ranks.placement import Placement

Bodies = list[list[Instruction]]  # by rank
Body = Repeat | Every | Part | Parallel | Relax | Due
EVERYWHERE = -1  # the home of what each rank makes for itself: batch fields, noise, pieces of them


def divide(
    body: Sequence[Instruction],
    placement: Placement,
    ranks: int,
    kernels: Mapping[str, Kernel],
    program: Program,
    shared: bool = False,
    pipelined: bool = False,
) -> list[tuple[Instruction, ...]]:
    """Return a section's instructions for each rank; what it gives to the caller is `shared` with all of them, or not.

    `pipelined`: what waits for other ranks in the pieces of a batch lags behind what does not.

    Raises LpcError (0581) for what no one rank can do.
    """
    found = _Divider(placement, ranks, kernels, program, shared, pipelined).bodies(body)
    return [tuple(own) for own in found]


@dataclass
class _Divider:
    placement: Placement
    ranks: int
    kernels: Mapping[str, Kernel]
    program: Program
    shared: bool
    pipelined: bool
    homes: dict[str, int] = field(default_factory=dict)  # value -> rank that makes it

    def bodies(self, body: Sequence[Instruction], keep: frozenset[str] = frozenset(), loops: bool = False) -> Bodies:
        """Divide a body, with frees of each rank's own; values in `keep` outlive it."""
        split = [self.split(one) for instruction in body if not isinstance(instruction, Free)
                 for one in self.spread(instruction, body)]  # fmt: skip
        crossing = self.crossing(split, loops)
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
            case Only():
                return [instruction] * self.ranks
            case Load() | Random() | Weight():
                self.homes |= dict.fromkeys(made(instruction), EVERYWHERE)
                return [instruction] * self.ranks
            case Return() if self.shared:
                return [instruction] * self.ranks
            case Begin(values=names) | Fetch(values=names) | Store(variables=names):
                homes = {name: self.home_of(name) for name in names}
                self.homes |= {} if isinstance(instruction, Store) else homes
                here = ([homes[name] == rank for name in names] for rank in range(self.ranks))
                return [_of_variables(instruction, own) for own in here]
            case Visit():
                return [instruction, *[replace(instruction, metrics=())] * (self.ranks - 1)]
            case Repeat() | Every() | Part() | Parallel() | Relax() | Due():
                return self.around(instruction)
            case _:
                rank = self.rank_of(instruction)
                self.homes |= dict.fromkeys(made(instruction), rank)
                if isinstance(instruction, Accumulate):
                    self.homes[instruction.target] = rank
                return [instruction if own == rank else None for own in range(self.ranks)]

    def spread(self, instruction: Instruction, body: Sequence[Instruction]) -> Sequence[Instruction]:
        """Return what stands for an instruction whose values are on several ranks, as far as there is anything."""
        return spread(instruction, self.homes, body) if isinstance(instruction, Clip) else [instruction]

    def rank_of(self, instruction: Instruction) -> int:
        """Return the one rank that an instruction runs on: its block's, else that of what it reads."""
        match instruction:
            case Call(kernel=kernel):
                return self.placement[self.kernels[kernel].block]
            case Adopt(value=value) | Reduce(value=value):
                return self.homes[value]
            case Write(value=value) | Record(value=value) | Accumulate(value=value) | Return(value=value):
                return max(self.homes[value], 0)
            case StepVariable(variable=variable):
                return self.homes[variable]
            case Clip(gradients=gradients) | Norms(gradients=gradients) | Scale(gradients=gradients):
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

    def home_of(self, variable: str) -> int:
        """A variable is solved where it is read, by the block behind its first boundary."""
        return self.placement[self.program.variables[variable].reader]

    def around(self, instruction: Body) -> list[Instruction | None]:
        """Sums of an inner body outlive it, and so does what it reads from around."""
        if isinstance(instruction, Part):
            self.homes |= dict.fromkeys(instruction.values, EVERYWHERE)
        sums = [i.target for i in instruction.body if isinstance(i, Accumulate)]
        sums += made(instruction)
        loops = isinstance(instruction, Repeat | Part)
        bodies = self.bodies(instruction.body, frozenset((*sums, *read(instruction))), loops)
        if isinstance(instruction, Part) and self.pipelined and instruction.pieces > 1:
            bodies = pipelined(instruction.body, bodies, self.homes)
        bodies = [own if any(not isinstance(i, Only) for i in own) else [] for own in bodies]
        return [self.part_of(instruction, tuple(own), rank) if own else None for rank, own in enumerate(bodies)]

    def part_of(self, instruction: Body, body: tuple[Instruction, ...], rank: int) -> Instruction:
        """Put a rank's body into the instruction, with what of it is the rank's."""
        if isinstance(instruction, Part):
            wanted = {value for inner in body for value in read(inner)}
            pairs = [p for p in zip(instruction.values, instruction.sources, strict=True) if p[0] in wanted]
            values, sources = tuple(value for value, _ in pairs), tuple(source for _, source in pairs)
            return replace(instruction, values=values, sources=sources, body=body)
        if isinstance(instruction, Relax):
            own = tuple(v for v in instruction.variables if self.homes[v] == rank)
            return replace(instruction, variables=own, body=body) if own else Repeat(1, body)
        return replace(instruction, body=body)

    def crossing(
        self, split: Sequence[Sequence[Instruction | None]], loops: bool
    ) -> dict[int, list[tuple[str, int, list[int]]]]:
        """Return, after which instruction, which values go from which rank to which others.

        A variable goes once more whenever it was stepped; in a loop, to all who will read it in the next turn.
        """
        current: dict[str, int] = {}
        wanted: dict[tuple[int, str], tuple[int, set[int]]] = {}
        for index, parts in enumerate(split):
            for rank, part in enumerate(parts):
                for value in read(part) if part is not None else ():
                    if value in current and (index_of := (current[value], value)) in wanted:
                        wanted[index_of][1].add(rank)
            for rank, part in enumerate(parts):
                for value in (*made(part), *_stepped(part)) if part is not None else ():
                    if self.homes.get(value, EVERYWHERE) == rank:
                        current[value] = index
                        wanted[index, value] = (rank, set())
        changed = {value for parts in split for part in parts if part is not None for value in _stepped(part)}
        for value in changed if loops else ():
            wanted[current[value], value][1].update(_readers(split, value))
        found: dict[int, list[tuple[str, int, list[int]]]] = {}
        for (index, value), (home, ranks) in wanted.items():
            if away := sorted(ranks - {home}):
                found.setdefault(index, []).append((value, home, away))
        return found

    def needed(self, body: Sequence[Instruction]) -> list[Instruction]:
        """Leave out draws that nobody reads, and fields that say nothing that the rank needs."""
        wanted = {value for instruction in body for value in read(instruction)}
        kept = [i for i in body if not isinstance(i, Random | Weight) or i.value in wanted]
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
        shape = self.program.fields[name].shape
        return {axis for axis in shape if isinstance(axis, str) and re.fullmatch(r"\w+", axis)}


def _of_variables(instruction: Begin | Fetch | Store, own: Sequence[bool]) -> Instruction | None:
    """Return an instruction on variables for those of a rank, if it has any."""
    if not any(own):
        return None

    def of_rank(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(compress(names, own))

    match instruction:
        case Begin(values, sources):
            return Begin(of_rank(values), of_rank(sources))
        case Fetch(values, index):
            return Fetch(of_rank(values), index)
        case Store(variables, index, values):
            return Store(of_rank(variables), index, of_rank(values))


def _stepped(instruction: Instruction) -> set[str]:
    """Return the variables that an instruction changes."""
    if isinstance(instruction, StepVariable):
        return {instruction.variable}
    return {value for inner in getattr(instruction, "body", ()) for value in _stepped(inner)}


def _readers(split: Sequence[Sequence[Instruction | None]], value: str) -> set[int]:
    return {rank for parts in split for rank, part in enumerate(parts) if part is not None and value in read(part)}
