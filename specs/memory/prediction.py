"""What does a plan need at its peak? What stays in memory, the most that a step holds beside it, and of which block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lpc.specs.memory.heap import Mark
from lpc.specs.memory.optimizers import kept
from lpc.specs.memory.outbox import Outbox
from lpc.specs.memory.relaxing import lasting, walked
from lpc.specs.memory.sizes import Lengths, nbytes, wide
from lpc.specs.plan.instructions import Instruction, Load, Offset, Repeat, Update
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import Program
from lpc.specs.plan.shards import held


@dataclass(frozen=True)
class Alive:
    """Memory that is alive at the peak: what it is, the role of the value, bytes."""

    name: str
    role: str
    size: int


@dataclass(frozen=True)
class BlockMemory:
    """One block's bytes.

    `parameters` counts buffers too; `gradients` are those its optimizer takes; `activations` and `peak` are the
    most that any of the block's instructions holds beside what is resident, without and with gradients.
    """

    block: str
    parameters: int
    gradients: int
    optimizer: int
    offsets: int
    activations: int
    peak: int


@dataclass(frozen=True)
class Memory:
    """The bytes of a training step: `total` at its peak, of which `resident` stay from step to step.

    `resident` are parameters, buffers, optimizer states and offsets, of all blocks, and the batch. `line` and `node`
    are the instruction and the operator at the peak, `alive` what the step holds then, largest first. `phase` counts
    the run's phases from 0; `unknown` says what is not counted. `outbox`, which is in no sum, is what one of several
    processes keeps of what it has sent; None for a plan that sends nothing.
    """

    lengths: Lengths
    phase: int
    blocks: tuple[BlockMemory, ...]
    batch: int
    peak: int
    block: str | None
    line: str
    node: str
    alive: tuple[Alive, ...]
    unknown: tuple[str, ...] = ()
    outbox: Outbox | None = None

    @property
    def resident(self) -> int:
        """Bytes that stay from step to step."""
        return self.batch + sum(b.parameters + b.optimizer + b.offsets for b in self.blocks)

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.resident + self.peak


def predict(
    program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, phase: int | None = None
) -> Memory:
    """Return the memory of a training step, once optimizers and offsets have their state.

    `lengths` gives the batch size `B` of one `load`, and every other symbolic length. `phase` counts from 0; without
    one it is that which needs most. Errors: 0562 where something's size is not known.
    """
    phases = range(len(program.steps)) if phase is None else (phase,)
    return max((_predicted(program, kernels, lengths, index) for index in phases), key=lambda memory: memory.total)


def _predicted(program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, phase: int) -> Memory:
    walk, step = walked(program, kernels, lengths, phase), program.steps[phase]
    peak, alive = walk.heap.peak, sorted(walk.heap.alive, key=lambda storage: -storage.size)
    foreign = {program.optimizers[block].name: None for block in _stepped(program, phase)}
    foreign |= {variable.optimizer: None for variable in program.variables.values()}
    return Memory(
        lengths=dict(lengths),
        phase=phase,
        blocks=tuple(_blocks(program, phase, walk.heap.marks, lengths)),
        batch=_loads(step) * sum(nbytes(program.fields[name], lengths) for name in _fields(step)),
        peak=peak.size,
        block=peak.block,
        line=peak.line,
        node=peak.node,
        alive=tuple(Alive(storage.name, storage.role, storage.size) for storage in alive),
        unknown=tuple(f"what `{name}` keeps" for name in foreign if is_class(name)),
    )


def _blocks(program: Program, phase: int, marks: list[Mark], lengths: Lengths) -> list[BlockMemory]:
    names = dict.fromkeys([entry.block for entry in program.state.values()])
    names.update(dict.fromkeys(mark.block for mark in marks if mark.block is not None))
    optimizers = {name: program.optimizers[name] for name in _stepped(program, phase)}
    corrections = {name: program.corrections[name] for name in _blocks_of(program.steps[phase], Offset)}
    now = replace(program, optimizers=optimizers, corrections=corrections)
    return [_block(name, now, [mark for mark in marks if mark.block == name], lengths) for name in names]


def _block(name: str, program: Program, marks: list[Mark], lengths: Lengths) -> BlockMemory:
    types = held(program)
    optimizer, correction = program.optimizers.get(name), program.corrections.get(name)
    trained = [p for group in optimizer.groups for p in group.parameters] if optimizer else []
    return BlockMemory(
        block=name,
        parameters=sum(nbytes(types[entry.name], {}) for entry in program.state.values() if entry.block == name),
        gradients=sum(nbytes(types[parameter], {}) for parameter in trained),
        optimizer=(kept(optimizer, types) if optimizer else 0) + lasting(program, name, lengths),
        offsets=sum(wide(types[parameter]) for parameter in correction.parameters) if correction else 0,
        activations=max((mark.size - mark.gradients for mark in marks), default=0),
        peak=max((mark.size for mark in marks), default=0),
    )


def _stepped(program: Program, phase: int) -> dict[str, None]:
    """Return the blocks whose optimizers have a state by then."""
    return dict.fromkeys(block for body in program.steps[: phase + 1] for block in _blocks_of(body, Update))


def _blocks_of(body: tuple[Instruction, ...], kind: type[Update | Offset]) -> Iterator[str]:
    """Yield the blocks of a body's instructions of one kind."""
    for instruction in body:
        if isinstance(instruction, kind):
            yield instruction.block
        yield from _blocks_of(getattr(instruction, "body", ()), kind)


def _loads(body: tuple[Instruction, ...]) -> int:
    return sum(i.count * _loads(i.body) if isinstance(i, Repeat) else int(isinstance(i, Load)) for i in body)


def _fields(body: tuple[Instruction, ...]) -> dict[str, None]:
    names: dict[str, None] = {}
    for instruction in body:
        if isinstance(instruction, Load):
            names.update(dict.fromkeys(instruction.fields))
        names.update(_fields(getattr(instruction, "body", ())))
    return names
