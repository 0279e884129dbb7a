"""Which values does an instruction make, and which does it read? One answer for whoever orders, frees or binds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lpc.specs.plan.instructions import (
    Accumulate,
    Adopt,
    Begin,
    Call,
    Clip,
    Correct,
    Due,
    Every,
    Fetch,
    Free,
    Gather,
    Instruction,
    Load,
    Norms,
    Offer,
    Offset,
    Parallel,
    Part,
    Random,
    Receive,
    Record,
    Reduce,
    ReduceScatter,
    Relax,
    Repeat,
    Return,
    Scale,
    Send,
    StepVariable,
    Store,
    Update,
    Visit,
    Weight,
    Write,
)


def made(instruction: Instruction) -> tuple[str, ...]:
    """Return the values that an instruction defines for what comes after it in its body."""
    match instruction:
        case Load(values=values) | Call(values=values) | Begin(values=values) | Fetch(values=values):
            return values
        case Random(value=value) | Weight(value=value) | Norms(value=value):
            return (value,)
        case Receive(value=value) | Gather(value=value):
            return (value,)
        case Reduce(target=target) | ReduceScatter(target=target):
            return (target,)
        case Part(body=body):
            return _sums(body)
        case _:
            return ()


def read(instruction: Instruction) -> tuple[str, ...]:
    """Return the values that an instruction reads; of a body, those from around it."""
    match instruction:
        case Call(arguments=values) | Update(gradients=values) | Clip(gradients=values) | Correct(gradients=values):
            return values
        case Norms(gradients=values):
            return values
        case Scale(gradients=values, norms=norms):
            return (*values, *norms)
        case Reduce(value=value) | ReduceScatter(value=value) | Offer(value=value):
            return (value,)
        case Write(value=value) | Adopt(value=value) | Record(value=value) | Return(value=value) | Send(value=value):
            return (value,)
        case Accumulate(target=target, value=value):
            return (target, value)
        case Offset(exact=exact, local=local):
            return (*exact, *local)
        case Part(values=values, sources=sources, body=body):
            own = {*values, *made(instruction)}
            return (*sources, *(v for v in _from_around(body) if v not in own))
        case Every(body=body) | Repeat(body=body) | Parallel(body=body):
            return _from_around(body)
        case Relax(variables=variables, body=body):
            return (*variables, *(v for v in _from_around(body) if v not in variables))
        case Due(index=index, body=body):
            return (index, *(v for v in _from_around(body) if v != index))
        case Begin(sources=values):
            return values
        case Fetch(index=value) | Visit(index=value):
            return (value,)
        case Store(index=index, values=values):
            return (index, *values)
        case StepVariable(variable=variable, slopes=slopes):
            return (variable, *slopes)
        case _:
            return ()


def values_made(body: Iterable[Instruction]) -> dict[str, None]:
    """Return the values that a body defines for what comes after, in order."""
    return dict.fromkeys(value for instruction in body for value in made(instruction))


def values_read(body: Iterable[Instruction]) -> dict[str, None]:
    """Return the values of its own or of what is around that a body reads, in order."""
    return dict.fromkeys(value for instruction in body for value in read(instruction))


def used_last(body: Sequence[Instruction], index: int) -> frozenset[str]:
    """Return the values that the instruction at `index` reads last before they are freed in the same body.

    A call takes these over, so that its kernel can drop them as soon as it has read them.
    """
    freed: set[str] = set()
    used: set[str] = set()
    for instruction in body[index + 1 :]:
        if isinstance(instruction, Free):
            freed |= set(instruction.values) - used
            used |= set(instruction.values)
        used |= {*made(instruction), *read(instruction)}
    return frozenset(freed)


def _sums(body: tuple[Instruction, ...]) -> tuple[str, ...]:
    """Return the sums that outlive a body: its own, and those of parts in it, which it does not free."""
    found = [i.target for i in body if isinstance(i, Accumulate | ReduceScatter)]
    found += [value for i in body if isinstance(i, Part) for value in made(i)]
    freed = {value for i in body if isinstance(i, Free) for value in i.values}
    return tuple(dict.fromkeys(value for value in found if value not in freed))


def _from_around(body: tuple[Instruction, ...]) -> tuple[str, ...]:
    own: set[str] = set()
    found: dict[str, None] = {}
    for instruction in body:
        found.update(dict.fromkeys(value for value in read(instruction) if value not in own))
        own |= set(made(instruction))
    return tuple(found)


def applied(body: Iterable[Instruction]) -> set[str]:
    """Return the values that become updates, as they are or added up."""
    found, sums = set[str](), list[tuple[str, str]]()
    stack = list(body)
    while stack:
        instruction = stack.pop()
        stack += getattr(instruction, "body", ())
        if isinstance(instruction, Update):
            found |= set(instruction.gradients)
        elif isinstance(instruction, Accumulate | Reduce | ReduceScatter):
            sums.append((instruction.target, instruction.value))
    while more := {value for target, value in sums if target in found} - found:
        found |= more
    return found
