"""What does one replica do in a step? Its shard of the batch; then its sums are reduced with those of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import Accumulate, Adopt, Free, Instruction, Only, Part, Receive, Reduce, Repeat, Send
from lpc.specs.ranks.mesh import Mesh


def of_replica(body: Sequence[Instruction], mesh: Mesh, replica: int) -> tuple[Instruction, ...]:
    """Return a step in which the part of shards, which has a part in it, runs one of them.

    Its ranks stand for stages yet: see `on_mesh`.
    """
    if mesh.replicas == 1:
        return tuple(body)
    found: list[Instruction] = []
    for instruction in body:
        if isinstance(instruction, Repeat):
            inner = of_replica(instruction.body, mesh, replica)
            found.append(replace(instruction, body=inner))
        elif isinstance(instruction, Part) and any(isinstance(inner, Part) for inner in instruction.body):
            found += _shard(instruction, mesh, replica)
        elif not isinstance(instruction, Free):
            found.append(instruction)
    keep = [i.target for i in body if isinstance(i, Accumulate)]
    return tuple(with_frees([i for i in found if not isinstance(i, Free)], keep))


def _shard(part: Part, mesh: Mesh, replica: int) -> list[Instruction]:
    sums = [i for i in part.body if isinstance(i, Accumulate)]
    body = [i for i in part.body if not isinstance(i, Accumulate | Free)]
    kept = [i.value for i in sums]
    inner = (Only(replica), *with_frees([_quiet(i) if replica else i for i in body], kept))
    return [replace(part, body=inner), *(Reduce(i.target, i.value, (mesh.replicas,)) for i in sums)]


def _quiet(instruction: Instruction) -> Instruction:
    """The first replica alone keeps statistics."""
    if not isinstance(instruction, Part):
        return instruction
    left = [i for i in instruction.body if not isinstance(i, Adopt | Free)]
    return replace(instruction, body=tuple(with_frees(left, [i.target for i in left if isinstance(i, Accumulate)])))


def on_mesh(body: Sequence[Instruction], mesh: Mesh, replica: int, stage: int) -> tuple[Instruction, ...]:
    """Return a stage's step with the ranks of its replica, and of its group where it reduces."""
    first = replica * mesh.stages

    def placed(instruction: Instruction) -> Instruction:
        if isinstance(instruction, Send | Receive):
            return replace(instruction, rank=first + instruction.rank)
        if isinstance(instruction, Reduce):
            return replace(instruction, ranks=mesh.group(stage))
        if (inner := getattr(instruction, "body", None)) is not None:
            return replace(instruction, body=tuple(map(placed, inner)))  # type: ignore[arg-type]
        return instruction

    return tuple(map(placed, body))
