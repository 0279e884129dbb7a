"""Where does a rank add up its part of a sharded block's gradients? As soon as they are there.

A batch that is not cut into pieces below its shards needs no sum over these, and a block's gradient is then whole for
a moment only. Pieces are added up first, as one process does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import (
    Accumulate,
    Call,
    Free,
    Gather,
    Instruction,
    Part,
    Reduce,
    ReduceScatter,
    Repeat,
    Update,
)
from lpc.specs.ranks.gathers import outliving
from lpc.specs.ranks.makers import flat

Body = tuple[Instruction, ...]
Owners = Mapping[str, Mapping[int, str]]  # kernel -> which of its results are gradients of which sharded block


def scattered(body: Sequence[Instruction], gradients: Owners) -> Body:
    """Return a body in which sums over ranks of sharded blocks' gradients are scattered, each as early as it can be."""
    return _early(_Scatters(gradients, {}).body(body))


def _early(body: Body) -> Body:
    early = {one.value: one for one in body if isinstance(one, ReduceScatter)}
    moved = _Moved(early)
    found = [
        moved.inside(one) if isinstance(one, Part) else
        replace(one, body=_early(one.body)) if isinstance(one, Repeat) else one
        for one in body
    ]  # fmt: skip
    return _without(found, {early[value] for value in moved.done}, moved.done)


@dataclass
class _Scatters:
    """Turns sums over ranks into scattered ones; `blocks` tells of each value whose gradients it holds."""

    gradients: Owners
    blocks: dict[str, str]

    def body(self, body: Sequence[Instruction]) -> Body:
        return tuple(map(self.one, body))

    def one(self, one: Instruction) -> Instruction:
        if isinstance(one, Call):
            self.blocks |= {one.values[i]: block for i, block in self.gradients.get(one.kernel, {}).items()}
        elif isinstance(one, Accumulate | Reduce) and one.value in self.blocks:
            self.blocks[one.target] = self.blocks[one.value]
            return ReduceScatter(one.target, one.value, one.ranks) if isinstance(one, Reduce) else one
        elif (inner := getattr(one, "body", None)) is not None:
            return replace(one, body=self.body(inner))  # type: ignore[arg-type]
        return one


@dataclass
class _Moved:
    """Moves scattered sums of one piece to where its gradient is made; `early` are they by what they add up."""

    early: Mapping[str, ReduceScatter]
    done: set[str] = field(default_factory=set)

    def inside(self, part: Part) -> Part:
        """Of a part of one piece, and of the shards, of which a rank has one."""
        sums = [(i.target, i.scale) for i in part.body if isinstance(i, Accumulate)] if part.pieces == 1 else []
        targets = [target for target, _ in sums]
        alone = {target for target, scale in sums if targets.count(target) == 1 and scale == 1.0}
        found: list[Instruction] = []
        for one in part.body:
            if isinstance(one, Part):
                one = self.inside(one)
            elif isinstance(one, Accumulate) and one.target in alone & self.early.keys():
                self.done.add(one.target)
                one = replace(self.early[one.target], value=one.value)
            found.append(one)
        body = [one for one in found if not isinstance(one, Free)]
        return replace(part, body=tuple(with_frees(body, outliving(part.body) | self.targets)))

    @property
    def targets(self) -> set[str]:
        return {self.early[value].target for value in self.done}


def _without(body: Sequence[Instruction], scatters: set[ReduceScatter], values: set[str]) -> Body:
    """Leave out what was moved, and frees of what is not made any more."""
    found: list[Instruction] = []
    for one in body:
        if isinstance(one, Free):
            left = tuple(value for value in one.values if value not in values)
            found += [Free(left)] if left else []
        elif one not in scatters:
            found.append(one)
    return tuple(found)


def ensure_taken(body: Sequence[Instruction], gradients: Owners) -> None:
    """Refuse (0581) an update while other ranks may still take from the parameters: these are lent as they are.

    A rank that gives its gradients has gathered what they were computed with; an update comes after those of all.
    """
    blocks = _Scatters(gradients, {})
    open_blocks = set[str]()
    for one in flat(body):
        if not hasattr(one, "body"):
            blocks.one(one)
        if isinstance(one, Gather):
            open_blocks.add(one.block)
        elif isinstance(one, ReduceScatter):
            open_blocks.discard(blocks.blocks.get(one.value, ""))
        elif isinstance(one, Update) and one.block in open_blocks:
            message = f"block `{one.block}` is read after its gradients were given, and then updated"
            raise LpcError(Diagnostic("0581", message, place="program", help="leave the block out of `shard`"))
