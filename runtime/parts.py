"""How does a body run on pieces of a batch? One piece after another, or its second half some pieces behind the first.

A piece behind has values of its own until it is done. Sums belong to all pieces, and grow in the order of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lpc.runtime.resources import Frame
from lpc.specs.plan.flow import made
from lpc.specs.plan.instructions import Later, Only, Part

if TYPE_CHECKING:
    from lpc.runtime.handlers import Section

Operation = Callable[[Frame], None]
Env = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some samples of a batch, counted from its first: the number of the piece, and its share of all pieces."""

    number: int
    first: int
    last: int
    share: float


def cut(first: int, size: int, share: float, count: int) -> list[Piece]:
    """Return the pieces of `size` samples from `first` on, as equal as they can be; empty ones are left out."""
    whole = min(max(round(share * size) if share <= 1 else int(share), 1), size)
    bounds = [whole * index // count for index in range(count + 1)]
    found = (Piece(n, first + a, first + b, (b - a) / whole) for n, (a, b) in enumerate(pairwise(bounds)))
    return [piece for piece in found if piece.last > piece.first]


def bind_part(section: Section, instruction: Part) -> Operation:
    """Bind a `part`: see `specs.plan.instructions.Part`, `Later` and `Only`."""
    pairs = tuple(zip(instruction.values, instruction.sources, strict=True))
    share, count = instruction.share, instruction.pieces
    own = next((i.piece for i in instruction.body if isinstance(i, Only)), None)
    halves, turns = _halves(section, instruction)
    sums = made(instruction)

    def part(frame: Frame) -> None:
        around = _Around(frame)
        pieces = [p for p in cut(around.first, frame.size, share, count) if own is None or p.number == own]
        later = _Later(frame.env, sums) if len(halves) > 1 else None
        for turn in range(len(pieces) + turns):
            for half, operations in enumerate(halves):
                index = turn - turns * half
                if 0 <= index < len(pieces):
                    around.enter(pieces[index])
                    run(frame, around, operations, later, pieces[index], half)
        around.leave()

    def run(
        frame: Frame, around: _Around, operations: Sequence[Operation], later: _Later | None, piece: Piece, half: int
    ) -> None:
        if later is not None:
            frame.env = later.begin(piece.number)
        if half == 0:
            for value, source in pairs:
                frame.env[value] = [frame.env[source][0][piece.first - around.first : piece.last - around.first]]
        for operation in operations:
            operation(frame)
        if later is not None:
            frame.env = later.end(piece.number, half == 1)

    return part


def _halves(section: Section, part: Part) -> tuple[list[tuple[Operation, ...]], int]:
    """Return the operations of the body, in two where a `later` is in it, and how many pieces that says."""
    operations = section.bind(part.body)
    for index, instruction in enumerate(part.body):
        if isinstance(instruction, Later):
            return [operations[:index], operations[index + 1 :]], instruction.turns
    return [operations], 0


class _Around:
    """What a frame says outside a part, which is given back when the part is over."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.size, self.weight = frame, frame.size, frame.weight
        self.window, self.shard = frame.window, frame.shard
        self.first = frame.window[0] if frame.window is not None else 0

    def enter(self, piece: Piece) -> None:
        frame = self.frame
        frame.window, frame.size, frame.weight = (piece.first, piece.last), piece.last - piece.first, piece.share
        if self.window is None:
            frame.shard = piece.number

    def leave(self) -> None:
        frame = self.frame
        frame.window, frame.size, frame.weight, frame.shard = self.window, self.size, self.weight, self.shard


@dataclass
class _Later:
    """The values of pieces of which the second half is still to come."""

    outer: Env
    sums: Sequence[str]
    waiting: dict[int, Env] = field(default_factory=dict)

    def begin(self, piece: int) -> Env:
        """Return a piece's values, with what is around and the sums as they are."""
        own = self.waiting.pop(piece) if piece in self.waiting else dict(self.outer)
        own.update((name, self.outer[name]) for name in self.sums if name in self.outer)
        self.current = own
        return own

    def end(self, piece: int, done: bool) -> Env:
        """Keep a piece's values until its second half, and give the sums to all; return what is around."""
        self.outer.update((name, self.current[name]) for name in self.sums if name in self.current)
        if not done:
            self.waiting[piece] = self.current
        return self.outer
