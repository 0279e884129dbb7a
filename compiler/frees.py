"""When does each value die? A `free` before the first call after a value's last use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lpc.specs.plan.instructions import (
    Accumulate,
    Call,
    Clip,
    Correct,
    Every,
    Free,
    Instruction,
    Load,
    Offset,
    Part,
    Random,
    Record,
    Repeat,
    Return,
    Update,
    Write,
)


def with_frees(body: Sequence[Instruction], keep: Iterable[str] = ()) -> list[Instruction]:
    """Free each value before the first call after its last use; values in `keep` outlive the body.

    Nothing between two calls makes tensors of any size, so one `free` for each call is enough.
    """
    kept = set(keep)
    last: dict[str, int] = {}
    for index, instruction in enumerate(body):
        for value in (*_defined(instruction), *_used(instruction)):
            last[value] = index
    result: list[Instruction] = []
    dead: list[str] = []
    for index, instruction in enumerate(body):
        if dead and isinstance(instruction, Load | Random | Call | Part | Every | Repeat):
            result.append(Free(tuple(dead)))
            dead = []
        result.append(instruction)
        dead += [v for v, end in last.items() if end == index and v not in kept]
    return [*result, Free(tuple(dead))] if dead else result


def values_made(body: Iterable[Instruction]) -> dict[str, None]:
    """Return the values that a body defines for what comes after, in order."""
    return dict.fromkeys(value for instruction in body for value in _defined(instruction))


def values_read(body: Iterable[Instruction]) -> dict[str, None]:
    """Return the values of its own or of what is around that a body reads, in order."""
    return dict.fromkeys(value for instruction in body for value in _used(instruction))


def _defined(instruction: Instruction) -> tuple[str, ...]:
    match instruction:
        case Load(values=values) | Call(values=values):
            return values
        case Random(value=value):
            return (value,)
        case Part(body=body):
            return tuple(i.target for i in body if isinstance(i, Accumulate))
        case _:
            return ()


def _used(instruction: Instruction) -> tuple[str, ...]:
    match instruction:
        case Call(arguments=values) | Update(gradients=values) | Clip(gradients=values):
            return values
        case Write(value=value) | Record(value=value) | Return(value=value):
            return (value,)
        case Accumulate(target=target, value=value):
            return (target, value)
        case Offset(exact=exact, local=local):
            return (*exact, *local)
        case Correct(gradients=values):
            return values
        case Part(sources=sources):
            return sources
        case Every(body=body) | Repeat(body=body):
            inside = {v for i in body for v in _defined(i)}
            return tuple(v for i in body for v in _used(i) if v not in inside)
        case _:
            return ()
