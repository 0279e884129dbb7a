"""Do the ranks' sends and receives meet? Every send in its receive, and no ranks that wait in a circle."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.instructions import (
    Due,
    Every,
    Gather,
    Instruction,
    Lag,
    Later,
    Lend,
    Offer,
    Only,
    Parallel,
    Part,
    Receive,
    Reduce,
    ReduceScatter,
    Relax,
    Repeat,
    Send,
)
from lpc.specs.plan.text import line

Edge = tuple[int, int]  # from rank, to rank
Transfer = Send | Receive
MOST_ROOM = 256  # values on an edge
OF_SAMPLES = -1  # in place of the phase of a period: visits of samples, not steps, are counted
TURNS = 2  # of a body that is repeated: what meets in two turns meets in all, each being like the other


def edges(bodies: Sequence[Sequence[Instruction]]) -> list[Edge]:
    """Return the pairs of ranks between which something is sent, in order."""
    found = {(rank, i.rank) for rank, body in enumerate(bodies) for i in _all(body) if isinstance(i, Send)}
    lent = ((rank, i) for rank, body in enumerate(bodies) for i in _all(body) if isinstance(i, Lend))
    found |= {(rank, other) for rank, lend in lent for other in lend.ranks}
    groups = (i.ranks for body in bodies for i in _all(body) if isinstance(i, Reduce | ReduceScatter))
    return sorted(found | {pair for group in groups for pair in permutations(group, 2)})


def parameters(block: str) -> str:
    """Return what a part of a block's parameters is called on its way."""
    return f"the parameters of {block}"


def check_wiring(place: str, bodies: Sequence[Sequence[Instruction]], room: int = 1) -> list[Diagnostic]:
    """Return what is wrong between the ranks of one section (0582, 0583), with room for so many values on each edge.

    Ranks are deterministic and edges keep order, so that one way of running them tells of all. Where steps overlap,
    values are received by name, in any order.
    """
    ordered = not _lag(bodies)
    periods = {_period(i) for body in bodies for i in _all(body) if isinstance(i, Every | Due)}
    for due in (frozenset(periods), frozenset[tuple[int, int]]()):
        found = _run(place, [list(_transfers(body, rank, due)) for rank, body in enumerate(bodies)], room, ordered)
        if found:
            return found
    return []


def room_needed(bodies: Sequence[Sequence[Instruction]]) -> int:
    """Return how many values an edge has to hold so that no ranks of a section wait in a circle; at least 1.

    Where steps overlap: all of a rank's values of the steps that can have begun. When a rank is the first to stand in
    the order of steps and halves, others have taken what stands before it, and no more than that is on an edge.

    Raises LpcError (0582, 0583) where no room helps.
    """
    if steps := _lag(bodies):
        if problems := check_wiring("ranks", bodies, MOST_ROOM):
            raise LpcError(problems)
        return (steps + 1) * (_most(bodies) + 1) + 1  # and a mark after each first half
    room = 1
    while problems := check_wiring("ranks", bodies, room):
        if room >= MOST_ROOM or problems[0].code != "0583":
            raise LpcError(problems)
        room *= 2
    return room


def _lag(bodies: Sequence[Sequence[Instruction]]) -> int:
    return max((one.steps for body in bodies for one in body if isinstance(one, Lag)), default=0)


def _most(bodies: Sequence[Sequence[Instruction]]) -> int:
    """Return how many values of one section an edge carries, at most."""
    due = frozenset(_period(i) for body in bodies for i in _all(body) if isinstance(i, Every | Due))
    transfers = (_transfers(body, rank, due, -1) for rank, body in enumerate(bodies))
    sent = (Counter(one.rank for one in own if isinstance(one, Send)) for own in transfers)
    return max((count for own in sent for count in own.values()), default=0)


def _all(body: Sequence[Instruction]) -> Iterator[Instruction]:
    for instruction in body:
        yield instruction
        yield from _all(getattr(instruction, "body", ()))


def _transfers(
    body: Sequence[Instruction], rank: int, due: frozenset[tuple[int, int]], turns: int = TURNS
) -> Iterator[Transfer]:
    """Yield the sends and receives of a body as a rank executes them when what is in `due` is due.

    What is repeated is repeated `turns` times at most, -1: as often as it says.
    """
    offered = {instruction.value for instruction in body if isinstance(instruction, Offer)}
    for instruction in body:
        match instruction:
            case Send() | Receive():
                yield instruction
            case Offer(value=value, ranks=ranks):
                yield from (Send(value, other) for other in ranks if other != rank)
            case Lend(block=block, ranks=ranks):
                yield from (Send(parameters(block), other) for other in ranks)
            case Gather(block=block, ranks=ranks):
                yield from (Receive(parameters(block), other) for other in ranks if other != rank)
            case Reduce(value=value, ranks=ranks) | ReduceScatter(value=value, ranks=ranks):
                yield from (Send(value, other) for other in ranks if other != rank and value not in offered)
                yield from (Receive(value, other) for other in ranks if other != rank)
            case Part():
                yield from _in_pieces(instruction, rank, due, turns)
            case Repeat(count=count, body=inner):
                for _ in range(count if turns < 0 else min(count, turns)):
                    yield from _transfers(inner, rank, due, turns)
            case Every(body=inner) | Due(body=inner):
                yield from _transfers(inner, rank, due, turns) if _period(instruction) in due else ()
            case Parallel(body=inner) | Relax(body=inner):
                yield from _transfers(inner, rank, due, turns)


def _period(instruction: Every | Due) -> tuple[int, int]:
    """Return when a body runs: what is due for the same samples is so on all ranks, as they count the same visits."""
    return instruction.period, instruction.phase if isinstance(instruction, Every) else OF_SAMPLES


def _in_pieces(part: Part, rank: int, due: frozenset[tuple[int, int]], repeats: int) -> Iterator[Transfer]:
    """Yield the transfers of all pieces; what follows a `later` comes that many pieces behind."""
    cut = next((i for i, one in enumerate(part.body) if isinstance(one, Later)), len(part.body))
    turns = sum(one.turns for one in part.body if isinstance(one, Later))
    count = 1 if any(isinstance(one, Only) for one in part.body) else part.pieces
    halves = [list(_transfers(half, rank, due, repeats)) for half in (part.body[:cut], part.body[cut:])]
    for turn in range(count + turns):
        yield from halves[0] if turn < count else ()
        yield from halves[1] if turn >= turns else ()


@dataclass
class _Ranks:
    """All ranks on their way through a section."""

    ahead: list[deque[Transfer]]
    room: int
    held: dict[Edge, deque[str]] = field(default_factory=dict)
    ordered: bool = True
    wrong: list[str] = field(default_factory=list)

    def advance(self, rank: int) -> bool:
        """Let a rank go one transfer on, if it can."""
        transfer = self.ahead[rank][0]
        if isinstance(transfer, Send):
            queue = self.held.setdefault((rank, transfer.rank), deque())
            if len(queue) == self.room:
                return False
            queue.append(transfer.value)
        else:
            queue = self.held.setdefault((transfer.rank, rank), deque())
            if not queue or not (self.ordered or transfer.value in queue):
                return False
            if not self.ordered:
                queue.remove(transfer.value)
            elif (found := queue.popleft()) != transfer.value:
                self.wrong.append(f"rank {rank} receives `{transfer.value}` where rank {transfer.rank} sends `{found}`")
        self.ahead[rank].popleft()
        return True


def _run(place: str, transfers: Sequence[Sequence[Transfer]], room: int, ordered: bool) -> list[Diagnostic]:
    problem = _outside(transfers)
    if problem is not None:
        return [Diagnostic("0582", problem, place=place)]
    ranks = _Ranks([deque(own) for own in transfers], room, ordered=ordered)
    while any(ranks.advance(rank) for rank in range(len(transfers)) if ranks.ahead[rank]):
        if ranks.wrong:
            return [Diagnostic("0582", ranks.wrong[0], place=place)]
    waiting = {rank: own[0] for rank, own in enumerate(ranks.ahead) if own}
    if waiting:
        return [_stuck(place, waiting)]
    left = next(((edge, queue) for edge, queue in ranks.held.items() if queue), None)
    if left is None:
        return []
    (source, target), queue = left
    message = f"rank {source} sends `{queue[0]}` to rank {target}, which does not receive it"
    return [Diagnostic("0582", message, place=place)]


def _outside(transfers: Sequence[Sequence[Transfer]]) -> str | None:
    for rank, own in enumerate(transfers):
        for transfer in own:
            if transfer.rank == rank or not 0 <= transfer.rank < len(transfers):
                return f"rank {rank} has `{line(transfer)}`, and the other ranks are 0 to {len(transfers) - 1}"
    return None


def _stuck(place: str, waiting: Mapping[int, Transfer]) -> Diagnostic:
    """Name the circle, or the rank that waits for one that has nothing more to do."""
    rank, seen = min(waiting), list[int]()
    while rank in waiting and rank not in seen:
        seen.append(rank)
        rank = waiting[rank].rank
    what = ", ".join(f"rank {r} at `{line(waiting[r])}`" for r in (seen[seen.index(rank):] if rank in seen else seen))
    if rank in seen:
        return Diagnostic("0583", f"ranks wait for each other: {what}", place=place)
    return Diagnostic("0582", f"rank {rank} is done, and others wait for it: {what}", place=place)
