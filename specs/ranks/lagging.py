"""What may wait for other ranks while the next steps begin? The second half of a step: what follows from their values.

A rank waits where it receives what follows from a value of its own (a variable that another rank has solved), and
where it reduces gradients. Such instructions and all that depend on them come last in its step, behind a `lag`; what
is before it needs other ranks' first halves alone. Dependences are kept, so that without any lag no number changes.
A second half that goes back through a forward pass has this one anew, so that its gradient is of the weights as they
are.

Nobody waits in a circle: take the order by step, then half, then place. What a rank waits for stands before it in this
order on another rank, and a rank begins a step ahead of a second half only when what it will receive is there. What
an edge has to hold: see `wiring.room_needed`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lpc.specs.plan.flow import made, read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import (
    Accumulate,
    Adopt,
    Call,
    Clip,
    Free,
    Instruction,
    Lag,
    Load,
    Offer,
    Random,
    Receive,
    Reduce,
    Send,
    StepVariable,
    Update,
    Write,
)
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Program
from lpc.specs.ranks.makers import flat

Body = tuple[Instruction, ...]
Names: TypeAlias = set[str]
Place = tuple[int, str]  # rank, value


def lagged(bodies: Sequence[Body], steps: int, kernels: Mapping[str, Kernel], program: Program) -> list[Body]:
    """Return the ranks' steps with a `lag` of so many steps in each that waits for other ranks."""
    ranks = [[_Act(i, _acts(i, kernels, program, body)) for i in body if not isinstance(i, Free)] for body in bodies]
    _mark(ranks)
    return [_divided(own, steps, kernels) or body for own, body in zip(ranks, bodies, strict=True)]


def halves(body: Body) -> tuple[Body, Body]:
    """Return what a step does before its `lag` and after it; without one all of it comes first."""
    cut = next((index for index, one in enumerate(body) if isinstance(one, Lag)), len(body))
    return body[:cut], body[cut + 1 :]


def neighbours(half: Body) -> tuple[list[int], list[int]]:
    """Return the ranks that a half of a step receives from, and those that it gives values to."""
    inside = list(flat(half))
    sources = {one.rank for one in inside if isinstance(one, Receive)}
    targets = {one.rank for one in inside if isinstance(one, Send)}
    targets |= {rank for one in inside if isinstance(one, Offer) for rank in one.ranks}
    return sorted(sources), sorted(targets)


def awaited(late: Body, offered: Collection[str]) -> Receive | Reduce | None:
    """Return what a second half waits for first; None where it waits for nothing, or gives something before.

    `offered`: values that the first half has given to those who add them up.
    """
    match next((one for one in flat(late) if isinstance(one, Receive | Reduce | Send)), None):
        case Receive() as found:
            return found
        case Reduce() as found if found.value in offered:
            return found
        case _:
            return None


@dataclass
class _Effects:
    """What an instruction, with its body, reads and changes: values, and tensors of the state; and its transfers."""

    reads: Names = field(default_factory=set)
    changes: Names = field(default_factory=set)
    sends: set[Place] = field(default_factory=set)
    receives: set[Place] = field(default_factory=set)
    loads: bool = False
    reduces: bool = False

    def before(self, later: _Effects) -> bool:
        """Must `later` come after this?"""
        return bool(self.changes & (later.reads | later.changes) or self.reads & later.changes)


@dataclass
class _Act:
    """One instruction of a step on its way to one of the halves."""

    instruction: Instruction
    effects: _Effects
    late: bool = False


def _acts(instruction: Instruction, kernels: Mapping[str, Kernel], program: Program, body: Body) -> _Effects:
    found = _Effects()
    calls = [i for i in flat(body) if isinstance(i, Call)]
    buffers = {
        value: {f"state {port.source}" for port in bundle.ports}
        for call in calls
        for value, bundle in zip(call.values, kernels[call.kernel].results, strict=True)
        if bundle.role == "buffers"
    }
    for one in flat((instruction,)):
        found.reads.update(read(one))
        found.changes.update(made(one))
        match one:
            case Call(kernel=kernel):
                bundles = (bundle for bundle in kernels[kernel].arguments if bundle.role == "state")
                found.reads.update(f"state {port.source}" for bundle in bundles for port in bundle.ports)
            case Update(block=block):
                groups = program.optimizers[block].groups
                found.changes.update(f"state {name}" for group in groups for name in group.parameters)
            case Write(value=value) | Adopt(value=value):
                found.changes.update(buffers.get(value, ()))
            case Accumulate(target=target):
                found.changes.add(target)
            case StepVariable(variable=variable):
                found.changes.add(variable)
            case Clip(gradients=gradients):
                found.changes.update(gradients)
            case Send(value=value, rank=rank):
                found.sends.add((rank, value))
            case Receive(value=value, rank=rank):
                found.receives.add((rank, value))
            case Load():
                found.loads = True
            case Reduce():
                found.reduces = True
            case _:
                pass
    return found


def _mark(ranks: Sequence[Sequence[_Act]]) -> None:
    """Find what is late: reductions, values that come back, what others send late, and what depends on any of it."""
    origins = _origins(ranks)
    for rank, own in enumerate(ranks):
        for act in own:
            back = any(rank in origins.get(place, ()) for place in act.effects.receives)
            act.late = back or act.effects.reduces
    while sum(_spread(own, rank, ranks) for rank, own in enumerate(ranks)):
        pass


def _spread(own: Sequence[_Act], rank: int, ranks: Sequence[Sequence[_Act]]) -> bool:
    """Mark what follows in a rank from what is late, there or elsewhere; tell whether there was anything."""
    changed, before = False, list[_Act]()
    for act in own:
        if not act.late:
            act.late = (
                any(one.effects.before(act.effects) for one in before)
                or (act.effects.loads and bool(before))
                or any(one.effects.loads for one in before)
                or any(_sent_late(ranks[source], value, rank) for source, value in act.effects.receives)
            )
            changed |= act.late
        before += [act] if act.late else []
    return changed


def _sent_late(source: Sequence[_Act], value: str, rank: int) -> bool:
    return any(act.late and (rank, value) in act.effects.sends for act in source)


def _origins(ranks: Sequence[Sequence[_Act]]) -> dict[Place, set[int]]:
    """Return for each value on each rank the ranks whose own values it follows from."""
    found: dict[Place, set[int]] = {}
    size = -1
    while size != (size := sum(map(len, found.values()))):
        for rank, own in enumerate(ranks):
            for act in own:
                for one in flat((act.instruction,)):
                    for value, origin in _made(one, rank, found):
                        found.setdefault((rank, value), set()).update(origin)
    return found


def _made(one: Instruction, rank: int, found: Mapping[Place, set[int]]) -> Iterator[tuple[str, set[int]]]:
    """Yield the values that an instruction makes or changes, with their origins; fields and noise are nobody's."""
    if isinstance(one, Receive):
        yield one.value, found.get((one.rank, one.value), set())
        return
    if isinstance(one, Load | Random):
        return
    before = {rank}.union(*(found.get((rank, value), set()) for value in read(one)))
    targets = [getattr(one, "target", None), getattr(one, "variable", None)]
    for value in (*made(one), *(target for target in targets if isinstance(target, str))):
        yield value, before


def _divided(own: Sequence[_Act], steps: int, kernels: Mapping[str, Kernel]) -> Body | None:
    """Return a step in two halves; None where nothing in it is late."""
    late = [act.instruction for act in own if act.late]
    if not late:
        return None
    changed = {value for act in own if act.late for value in act.effects.changes}
    early = [act.instruction for act in own if not act.late]
    late = [*_anew(early, late, kernels), *late]
    reduces = [one for one in late if isinstance(one, Reduce)]
    early += [Offer(one.value, one.ranks) for one in reduces if one.value not in changed]
    return (*with_frees(early, _wanted(late)), Lag(steps), *with_frees(late))


def _anew(
    early: Sequence[Instruction], late: Sequence[Instruction], kernels: Mapping[str, Kernel]
) -> list[Instruction]:
    """Return the forward passes that the second half goes back through: it has them anew."""
    wanted = {value for one in flat(late) for value in read(one)}
    return [one for one in early if isinstance(one, Call) and not wanted.isdisjoint(_residuals(one, kernels))]


def _residuals(call: Call, kernels: Mapping[str, Kernel]) -> list[str]:
    bundles = zip(call.values, kernels[call.kernel].results, strict=True)
    return [value for value, bundle in bundles if bundle.role == "residuals"]


def _wanted(body: Sequence[Instruction]) -> Names:
    """Return the values that a half takes from the one before it."""
    found, own = Names(), Names()
    for one in body:
        found |= set(read(one)) - own
        own |= set(made(one))
    return found
