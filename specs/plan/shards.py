"""Which parameters does a rank hold a part of, and what is each part?

A parameter's numbers, in order, are cut between units of so many numbers that torch's vectorised kernels step each
part as they step the whole: what they do at the end of a tensor may differ in the last bit from what they do before.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod

from lpc.specs.diagnostics import Diagnostic
from lpc.specs.memory.sizes import nbytes
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.plan import Program, StateEntry

UNIT = 128  # numbers: a multiple of all that a vector register holds, four at a time


def cuts(size: int, count: int) -> tuple[int, ...] | None:
    """Return where so many numbers are cut into `count` parts of about equal size; None where they are too few."""
    units = -(-size // UNIT)
    if size < count * UNIT:
        return None
    return tuple(min(units * index // count * UNIT, size) for index in range(count + 1))


def sharded(program: Program, block: str) -> list[StateEntry]:
    """Return the parameters of a block of which a rank holds a part each, in order."""
    return [entry for name, entry in program.state.items() if entry.block == block and name in program.shards]


def held(program: Program) -> dict[str, TensorType]:
    """Return the types of the state's tensors as a rank holds them: of a sharded one, the numbers of its part."""
    found = {name: entry.type for name, entry in program.state.items()}
    parts = ((n, s) for n, s in program.shards.items() if n in found)
    return found | {name: TensorType(found[name].dtype, (shard.last - shard.first,)) for name, shard in parts}


def part_size(program: Program, name: str, index: int) -> int:
    """Return the bytes of one of the parts of a sharded parameter."""
    first, last = program.shards[name].bounds[index : index + 2]
    return nbytes(TensorType(program.state[name].type.dtype, (last - first,)), {})


def check_bound(kernel: Kernel, program: Program) -> Iterator[Diagnostic]:
    """Yield parameters (0565) that a kernel reads whole from the state, of which there is a part only."""
    ports = (port for bundle in kernel.arguments if bundle.role == "state" for port in bundle.ports)
    for name in (port.source for port in ports if port.source in program.shards):
        message = f"kernel `{kernel.name}` reads `{name}` from the state, which has a part of it"
        yield Diagnostic("0565", message, place=f"kernel {kernel.name}")


def check_shards(program: Program) -> Iterator[Diagnostic]:
    """Yield parts (0565) of what is no parameter, or that are not all of it."""
    for name, shard in program.shards.items():
        entry, bounds = program.state.get(name), shard.bounds
        if entry is None or entry.kind != "parameter":
            message = f"`{name}` is sharded, and no parameter of the program's state"
        elif bounds[:1] != (0,) or bounds[-1:] != (prod(map(int, entry.type.shape)),):
            message = f"the shards of `{name}` are not all of it"
        elif any(first >= last for first, last in pairwise(bounds)) or not 0 <= shard.index < len(bounds) - 1:
            message = f"the shards of `{name}` are not in order, or there is none of number {shard.index}"
        else:
            continue
        yield Diagnostic("0565", message, place=f"shard {name}")
