"""When does a rank go back through a piece of the batch? As many pieces later as its cotangents need to come: 1F1B.

A rank's body is cut before the first value that it receives which follows from one of its own: over gradient links
between forward and backward. Both halves take the pieces in the order of one process, so no number changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpc.specs.plan.flow import made, read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import Free, Instruction, Later, Receive

Bodies = list[list[Instruction]]  # by rank


def pipelined(body: Sequence[Instruction], ranks: Bodies, homes: Mapping[str, int]) -> Bodies:
    """Return the ranks' bodies of a part with a `later` in each that waits for what it has sent.

    `body` is the whole part's, `homes` tells which rank makes each value.
    """
    behind = _ancestors(body, homes)
    cuts = [_returning(own, rank, behind) for rank, own in enumerate(ranks)]
    turns = _turns(ranks, cuts)
    return [
        own if cut is None else _cut(own, cut, turns[rank])
        for rank, (own, cut) in enumerate(zip(ranks, cuts, strict=True))
    ]


def _ancestors(body: Sequence[Instruction], homes: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """Return for each value the ranks that it went through."""
    found: dict[str, frozenset[int]] = {}
    for instruction in body:
        before = frozenset[int]().union(*(found.get(value, frozenset()) for value in read(instruction)))
        for value in made(instruction):
            found[value] = before | {homes.get(value, -1)}
    return found


def _returning(own: Sequence[Instruction], rank: int, behind: Mapping[str, frozenset[int]]) -> int | None:
    """Return where a body first receives what follows from a value of its rank."""
    back = (i for i, one in enumerate(own) if isinstance(one, Receive) and rank in behind.get(one.value, ()))
    return next(back, None)


def _turns(ranks: Bodies, cuts: Sequence[int | None]) -> list[int]:
    """Return how far each second half is behind: one piece more than those of the ranks that it waits for."""
    found = [0] * len(ranks)
    for _ in ranks:  # the longest way has no more ranks than there are; in a circle the check decides
        for rank, cut in enumerate(cuts):
            if cut is not None:
                sources = [i.rank for i in ranks[rank][cut:] if isinstance(i, Receive)]
                later = [found[source] for source in sources if source > rank and cuts[source] is not None]
                found[rank] = 1 + max(later, default=0)
    return found


def _cut(own: Sequence[Instruction], cut: int, turns: int) -> list[Instruction]:
    kept = frozenset(value for one in own for value in (*made(one), *read(one))) - frozenset(
        value for one in own if isinstance(one, Free) for value in one.values
    )
    plain = [(i, one) for i, one in enumerate(own) if not isinstance(one, Free)]
    marked: list[Instruction] = []
    for index, one in plain:
        marked += [Later(turns), one] if index == cut else [one]
    return with_frees(marked, kept)
