"""When does each value die? A `free` before the first call after a value's last use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lpc.specs.plan.flow import made, read
from lpc.specs.plan.instructions import (
    Begin,
    Call,
    Due,
    Every,
    Fetch,
    Free,
    Gather,
    Instruction,
    Lag,
    Later,
    Load,
    Norms,
    Parallel,
    Part,
    Random,
    Receive,
    Reduce,
    ReduceScatter,
    Relax,
    Repeat,
)

MAKERS = (
    Load, Random, Call, Part, Every, Repeat, Begin, Relax, Parallel, Due, Fetch, Receive, Later, Reduce, Lag,
    Gather, ReduceScatter, Norms,
)  # fmt: skip


def with_frees(body: Sequence[Instruction], keep: Iterable[str] = ()) -> list[Instruction]:
    """Free each value before the first call after its last use; values in `keep` outlive the body.

    Nothing between two calls makes tensors of any size, so one `free` for each call is enough.
    """
    kept = set(keep)
    last: dict[str, int] = {}
    for index, instruction in enumerate(body):
        for value in (*made(instruction), *read(instruction)):
            last[value] = index
    result: list[Instruction] = []
    dead: list[str] = []
    for index, instruction in enumerate(body):
        if dead and isinstance(instruction, MAKERS):
            result.append(Free(tuple(dead)))
            dead = []
        result.append(instruction)
        dead += [v for v, end in last.items() if end == index and v not in kept]
    return [*result, Free(tuple(dead))] if dead else result
