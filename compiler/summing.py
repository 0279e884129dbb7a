"""How is a step whose gradients are sums written? Over batches, over shards of a batch, over pieces of a shard.

Each sum has one order, whoever adds it up: the pieces of a shard one after another, then the shards, then the batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lpc.specs.model import Run
from lpc.specs.plan.flow import made, values_made, values_read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import Accumulate, Adopt, Call, Clip, Instruction, Part, Repeat, Update, Write

PIECE, SHARD = "piece", "shard"  # what the batch's values are called after in a part, behind a dot
WHOLE = 1.0  # the share of a batch that a part takes


def summed_up(
    run: Run, begin: Sequence[Instruction], body: Sequence[Instruction], gradients: Mapping[str, Sequence[str]]
) -> list[Instruction]:
    """Return a step that adds up gradients and then updates each block once.

    `begin` loads a batch, `body` makes the `gradients` of each block from it.
    """
    sums = tuple(dict.fromkeys(g for values in gradients.values() for g in values))
    names = {value: value for value in sums}
    inner: list[Instruction] = [*begin, *body]
    if run.microbatches > 1 or run.replicas > 1:
        parts, names = _parts(run, body, sums)
        inner = [*begin, *parts]
    if run.accumulate > 1:
        totals = {value: f"{value}.sum" for value in sums}
        added = _with_sums(inner, {names[v]: totals[v] for v in sums}, 1.0 / run.accumulate)
        inner, names = [Repeat(run.accumulate, tuple(with_frees(added, keep=totals.values())))], totals
    else:
        inner = with_frees(inner, keep=names.values())
    clip = [Clip(tuple(names.values()), run.clip)] if run.clip is not None else []
    updates = [Update(b, tuple(names[g] for g in values)) for b, values in gradients.items()]
    return [*inner, *with_frees([*clip, *updates])]


def _parts(
    run: Run, body: Sequence[Instruction], sums: Sequence[str]
) -> tuple[list[Instruction], dict[str, str]]:
    """Return the pieces of a batch within its shards, if there are several, and the names of the sums."""
    fields = [value for value in values_read(body) if value not in values_made(body)]
    names = {value: f"{value}.pieces" for value in sums}
    pieces = _with_sums(_renamed(body, fields, PIECE), names, 1.0)
    if run.replicas == 1:
        return [_part(fields, fields, PIECE, run.microbatches, pieces, names.values())], names
    shards = {value: f"{value}.shards" for value in sums}
    adopted = [Adopt(i.value) if isinstance(i, Write) else i for i in pieces]
    sources = [f"{name}.{SHARD}" for name in fields]
    inner = _part(fields, sources, PIECE, run.microbatches, adopted, names.values())
    outer = _with_sums([inner], {names[v]: shards[v] for v in sums}, 1.0)
    return [_part(fields, fields, SHARD, run.replicas, outer, shards.values())], shards


def _part(
    fields: Sequence[str], sources: Sequence[str], what: str, count: int,
    body: Sequence[Instruction], keep: Iterable[str],
) -> Part:  # fmt: skip
    values = tuple(f"{name}.{what}" for name in fields)
    return Part(values, tuple(sources), WHOLE, count, tuple(with_frees([*body], keep=keep)))


def _renamed(body: Sequence[Instruction], fields: Iterable[str], what: str) -> list[Instruction]:
    """Let calls read pieces of the batch's fields in place of these."""
    names = {name: f"{name}.{what}" for name in fields}
    return [
        replace(i, arguments=tuple(names.get(value, value) for value in i.arguments)) if isinstance(i, Call) else i
        for i in body
    ]


def _with_sums(body: Sequence[Instruction], sums: Mapping[str, str], scale: float) -> list[Instruction]:
    """Add each value up right after it was made."""
    found: list[Instruction] = []
    for instruction in body:
        found.append(instruction)
        found += [Accumulate(sums[value], value, scale) for value in made(instruction) if value in sums]
    return found
