"""How do two plans differ? What moved between blocks, gradients gained and lost, memory, operations and traffic."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import TypeVar

from lpc.flow import flow
from lpc.plan import Plan
from lpc.specs.plan.plan import Optimizer, links

K = TypeVar("K", bound=Hashable)
Pair = tuple[int, int]


@dataclass(frozen=True)
class Moved:
    """Parameters that are in another block; a block is empty where they did not exist before, or do no more."""

    before: str
    after: str
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Gradients:
    """Parameters of one block whose gradients changed in the same way: the losses gained, and those lost."""

    block: str
    parameters: tuple[str, ...]
    gained: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """What differs; every pair is before and after.

    `links` and `optimizers` are texts by boundary and by block, empty where there is none. `flops` and `memory` are by
    block where they differ; `memory` is the most that a block's instructions hold. `totals` are those of a step, and
    `spec` is a unified diff of the two specs with every default written out.
    """

    names: tuple[str, str]
    same: bool
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    moved: tuple[Moved, ...] = ()
    links: dict[str, tuple[str, str]] = field(default_factory=dict)
    gradients: tuple[Gradients, ...] = ()
    optimizers: dict[str, tuple[str, str]] = field(default_factory=dict)
    flops: dict[str, Pair] = field(default_factory=dict)
    memory: dict[str, Pair] = field(default_factory=dict)
    totals: dict[str, Pair] = field(default_factory=dict)
    spec: tuple[str, ...] = ()


def diff(before: Plan, after: Plan, batch: int | None = None, lengths: Mapping[str, int] | None = None) -> Difference:
    """Compare two plans; parameters, losses and blocks are the same where their names are.

    `batch` and `lengths` are as in `Plan.memory`. Raises LpcError (0562) where a size is not known.
    """
    costs = [plan.cost(batch, lengths) for plan in (before, after)]
    memories = [plan.memory(batch, lengths) for plan in (before, after)]
    peaks = [{row.block: row.peak for row in memory.blocks} for memory in memories]
    return Difference(
        names=(before.spec.name, after.spec.name),
        same=before.hash == after.hash,
        blocks=_blocks(before, after),
        moved=tuple(_moved(_owners(before), _owners(after))),
        links=_changed(_links(before), _links(after), ""),
        gradients=tuple(_gradients(before, after)),
        optimizers=_changed(_optimizers(before), _optimizers(after), ""),
        flops=_changed(costs[0].blocks, costs[1].blocks, 0),
        memory=_changed(peaks[0], peaks[1], 0),
        totals={
            "flops": (costs[0].flops, costs[1].flops),
            "traffic": (costs[0].traffic, costs[1].traffic),
            "memory": (memories[0].total, memories[1].total),
            "resident": (memories[0].resident, memories[1].resident),
        },
        spec=tuple(_spec(before, after)),
    )


def _blocks(before: Plan, after: Plan) -> dict[str, tuple[str, ...]]:
    one, other = list(before.partition), list(after.partition)
    found = {"gone": tuple(b for b in one if b not in other), "new": tuple(b for b in other if b not in one)}
    return {word: names for word, names in found.items() if names}


def _owners(plan: Plan) -> dict[str, str]:
    return {entry.name: entry.block for entry in plan.data.program.state.values() if entry.kind == "parameter"}


def _moved(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[Moved]:
    pairs = {name: (before.get(name, ""), after.get(name, "")) for name in (*before, *after)}
    for (one, other), names in _grouped({name: pair for name, pair in pairs.items() if pair[0] != pair[1]}).items():
        yield Moved(one, other, names)


def _gradients(before: Plan, after: Plan) -> Iterable[Gradients]:
    """Yield changes of parameters that both have; of others all is new or gone, as `moved` says."""
    reached = [{n: row.losses for row in flow(plan.data).rows for n in row.parameters} for plan in (before, after)]
    owners = _owners(after)
    changes = {
        name: (owners[name], tuple(sorted(reached[1][name] - losses)), tuple(sorted(losses - reached[1][name])))
        for name, losses in reached[0].items()
        if name in reached[1] and reached[1][name] != losses
    }
    for (block, gained, lost), names in _grouped(changes).items():
        yield Gradients(block, names, gained, lost)


def _links(plan: Plan) -> dict[str, str]:
    return {f"{one} -> {other}": link for (one, other), link in links(plan.data.partition).items()}


def _optimizers(plan: Plan) -> dict[str, str]:
    return {block: _told(optimizer) for block, optimizer in plan.data.program.optimizers.items()}


def _told(optimizer: Optimizer) -> str:
    options = ", ".join(f"{name}={value}" for name, value in optimizer.options.items())
    schedule = {key: value for key, value in optimizer.schedule.items() if value not in (0, "constant", "step")}
    extra = [f"schedule {schedule}"] if schedule else []
    extra += [f"clip {optimizer.clip}"] if optimizer.clip is not None else []
    extra += [f"{optimizer.steps} inner steps"] if optimizer.steps != 1 else []
    extra += [f"state {optimizer.state}"] if optimizer.state != "persistent" else []
    extra += [f"prox {optimizer.prox}"] if optimizer.prox is not None else []
    extra += [f"outer {optimizer.outer}"] if optimizer.outer else []
    return ", ".join([f"{optimizer.name}({options})", *extra])


T = TypeVar("T")


def _changed(before: Mapping[str, T], after: Mapping[str, T], nothing: T) -> dict[str, tuple[T, T]]:
    pairs = {name: (before.get(name, nothing), after.get(name, nothing)) for name in (*before, *after)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _grouped(found: Mapping[str, K]) -> dict[K, tuple[str, ...]]:
    groups: dict[K, list[str]] = {}
    for name, key in found.items():
        groups.setdefault(key, []).append(name)
    return {key: tuple(names) for key, names in groups.items()}


def _spec(before: Plan, after: Plan) -> Iterable[str]:
    one, other = before.data.spec.splitlines(), after.data.spec.splitlines()
    return list(unified_diff(one, other, "before", "after", lineterm="", n=1))[2:]
