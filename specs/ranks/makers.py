"""Which rank runs the kernels of readouts and of what else is no block? That of the last block it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from lpc.specs.plan.instructions import Call, Instruction, Part
from lpc.specs.plan.plan import Plan


def made_together(plan: Plan, blocks: Mapping[str, int]) -> dict[str, int]:
    """Return the placement of blocks, with a rank for each other owner of kernels."""
    kernels, found = plan.kernels["native"], dict(blocks)
    program = plan.program
    for body in (*program.steps, program.evaluate, program.predict):
        homes: dict[str, int] = {}
        for instruction in flat(body):
            if isinstance(instruction, Part):
                sources = zip(instruction.values, instruction.sources, strict=True)
                homes |= {value: homes[source] for value, source in sources if source in homes}
            if isinstance(instruction, Call) and instruction.kernel in kernels:
                owner = kernels[instruction.kernel].block
                if owner not in blocks:
                    read = [homes[value] for value in instruction.arguments if value in homes]
                    found[owner] = max([found.get(owner, 0), *read])
                homes |= dict.fromkeys(instruction.values, found[owner])
    return found | {name: 0 for name in chain(program.optimizers, program.corrections) if name not in found}


def flat(body: Sequence[Instruction]) -> Iterator[Instruction]:
    """Yield all instructions of a body, those of inner bodies after the one that holds them."""
    for instruction in body:
        yield instruction
        yield from flat(getattr(instruction, "body", ()))
