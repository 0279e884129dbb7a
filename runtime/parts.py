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
from lpc.specs.plan.instructions import Instruction, Later, Only, Part
from lpc.specs.ranks.gathers import transfers

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
    found = (Piece(n, first + a, first + b, (b - a) / max(whole, 1)) for n, (a, b) in enumerate(pairwise(bounds)))
    return [piece for piece in found if piece.last > piece.first]


def bind_part(section: Section, instruction: Part) -> Operation:
    """Bind a `part`: see `specs.plan.instructions.Part`, `Later` and `Only`."""
    pairs = tuple(zip(instruction.values, instruction.sources, strict=True))
    share, count = instruction.share, instruction.pieces
    own = next((i.piece for i in instruction.body if isinstance(i, Only)), None)
    halves, turns = _halves(section, instruction.body)
    empty, _ = _halves(section, transfers(instruction.body))
    meets = any(empty)
    sums = made(instruction)

    def part(frame: Frame) -> None:
        around = _Around(frame)
        pieces = cut(around.first, frame.size, share, count)
        pieces = with_empty(pieces, around.first, count) if meets else pieces
        pieces = [p for p in pieces if own is None or p.number == own]
        later = _Later(frame.env, sums) if len(halves) > 1 else None
        for turn in range(len(pieces) + turns):
            for half in range(len(halves)):
                index = turn - turns * half
                if 0 <= index < len(pieces):
                    around.enter(pieces[index])
                    run(frame, around, later, pieces[index], half)
        around.leave()

    def run(frame: Frame, around: _Around, later: _Later | None, piece: Piece, half: int) -> None:
        if later is not None:
            frame.env = later.begin(piece.number)
        operations = halves[half] if piece.last > piece.first else empty[half]
        if half == 0 and piece.last > piece.first:
            for value, source in pairs:
                frame.env[value] = [frame.env[source][0][piece.first - around.first : piece.last - around.first]]
        for operation in operations:
            operation(frame)
        if later is not None:
            frame.env = later.end(piece.number, half == 1)

    return part


def with_empty(pieces: Sequence[Piece], first: int, count: int) -> list[Piece]:
    """Return all pieces by number: those without samples take part in what ranks do together."""
    found = {piece.number: piece for piece in pieces}
    return [found.get(number, Piece(number, first, first, 0.0)) for number in range(count)]


def _halves(section: Section, body: Sequence[Instruction]) -> tuple[list[tuple[Operation, ...]], int]:
    """Return the operations of a body, in two where a `later` is in it, and how many pieces that says."""
    operations = section.bind(body)
    for index, instruction in enumerate(body):
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
