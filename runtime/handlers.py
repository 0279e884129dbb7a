"""What does each instruction do? One function a kind, which binds it once to what it works with.

Binding happens when a section is linked; what is left for each step is the bound function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lpc.runtime.batch import Gate
from lpc.runtime.corrections import Offset as Measured
from lpc.runtime.decode import dtype_of
from lpc.runtime.gradients import Gradients, Route, clip, collect, route
from lpc.runtime.link import node_at
from lpc.runtime.meter import Reading
from lpc.runtime.optimizers import BlockOptimizer, gradients_by_name
from lpc.runtime.parts import bind_part
from lpc.runtime.resources import Frame, Resources
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.flow import used_last
from lpc.specs.plan.instructions import (
    Accumulate,
    Adopt,
    Call,
    Clip,
    Correct,
    Every,
    Free,
    Instruction,
    Lag,
    Later,
    Load,
    Offset,
    Only,
    Part,
    Random,
    Record,
    Repeat,
    Return,
    Shift,
    Update,
    Write,
)
from lpc.specs.plan.kernel import Bundle, Kernel

Operation = Callable[[Frame], None]
Binder = Callable[["Section", Any], Operation]


class Section:
    """Binds the instructions of one section in order; `ports` are the outside names in each bundle."""

    def __init__(self, resources: Resources, binders: Mapping[type, Binder]) -> None:
        self.resources = resources
        self.binders = binders
        self.ports: dict[str, tuple[str, ...]] = {}
        self.taken: frozenset[str] = frozenset()
        self.offered: set[str] = set()  # what the ranks of a `reduce` have already

    def bind(self, body: Sequence[Instruction]) -> tuple[Operation, ...]:
        operations = []
        for index, instruction in enumerate(body):
            self.taken = used_last(body, index) if isinstance(instruction, Call) else frozenset()
            operations.append(self.binders[type(instruction)](self, instruction))
        return tuple(operations)

    def names(self, values: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the outside names of the tensors in some gradient or buffer bundles."""
        return {value: self.ports[value] for value in values}


def _bind_load(section: Section, instruction: Load) -> Operation:
    gate = Gate(section.resources.program.fields, instruction.fields, section.resources.device)
    pairs = tuple(zip(instruction.values, instruction.fields, strict=True))

    def load(frame: Frame) -> None:
        loaded = gate.admit(next(frame.batches))
        frame.symbols, frame.size = loaded.symbols, loaded.size
        frame.part += 1
        for value, name in pairs:
            frame.env[value] = [loaded.fields[name]]

    return load


def _bind_random(section: Section, instruction: Random) -> Operation:
    value, site, seed = instruction.value, instruction.site, section.resources.seed
    source = section.resources.noise[site]

    def random(frame: Frame) -> None:
        symbols = frame.symbols
        given = frame.noise[frame.part].get(site) if frame.noise else None
        if given is not None:
            drawn = source.admit(given, symbols)
        else:
            drawn = source.draw(seed, frame.step, frame.part, symbols)
        window = frame.window
        frame.env[value] = [drawn if window is None else source.rows(drawn, *window, symbols["B"])]

    return random


def _bind_call(section: Section, instruction: Call) -> Operation:
    kernel = section.resources.kernel(instruction.kernel)
    function = section.resources.function(kernel)
    segments = _segments(section, kernel, instruction.arguments)
    results: list[tuple[str, int, int]] = []
    start = 0
    for value, bundle in zip(instruction.values, kernel.results, strict=True):
        results.append((value, start, start + len(bundle.ports)))
        start += len(bundle.ports)
        section.ports[value] = tuple(port.source for port in bundle.ports)

    def call(frame: Frame) -> None:
        env = frame.env
        values: list[Any] = []
        for constant, name, taken in segments:
            values += constant if name is None else env.pop(name) if taken else env[name]
        try:
            found = function(values)
        except FAILURES as error:
            raise LpcError(_failure(kernel, error)) from error
        for value, first, last in results:
            env[value] = found[first:last]

    return call


def _segments(
    section: Section, kernel: Kernel, arguments: Sequence[str]
) -> tuple[tuple[list[Tensor], str | None, bool], ...]:
    """Return what a kernel's flat argument list consists of: constant tensors, or a value of the frame."""
    segments: list[tuple[list[Tensor], str | None, bool]] = []
    remaining = list(arguments)
    for bundle in kernel.arguments:
        if bundle.role in CONSTANTS:
            segments.append((CONSTANTS[bundle.role](section.resources, bundle), None, False))
        else:
            name = remaining.pop(0)
            segments.append(([], name, name in section.taken and name not in remaining))
    return tuple(segments)


def _seeds(resources: Resources, bundle: Bundle) -> list[Tensor]:
    types = [port.type for port in bundle.ports]
    dtypes = [dtype_of(one.dtype, f"seed {bundle.name}") for one in types]
    shapes = [[int(axis) for axis in one.shape] for one in types]
    return [torch.ones(s, dtype=d, device=resources.device) for s, d in zip(shapes, dtypes, strict=True)]


CONSTANTS: dict[str, Callable[[Resources, Bundle], list[Tensor]]] = {
    "state": lambda resources, bundle: [resources.state[port.source] for port in bundle.ports],
    "seed": _seeds,
}


# What torch's operators raise for values that do not fit: a class index that is too large is an IndexError.
FAILURES = (RuntimeError, IndexError, ValueError, TypeError)


def _failure(kernel: Kernel, error: Exception) -> Diagnostic:
    node = node_at(kernel, error.__traceback__)
    where = f", node {node.name} ({node.op}, from {node.origin or 'glue'})" if node else ""
    first = (str(error).splitlines() or ["no message"])[0]
    return Diagnostic("0662", f"torch failed in a kernel: {first}", place=f"kernel {kernel.name}{where}")


def _bind_accumulate(section: Section, instruction: Accumulate) -> Operation:
    target, value, scale = instruction.target, instruction.value, instruction.scale
    ports = section.ports[value]
    section.ports.setdefault(target, ports)

    def accumulate(frame: Frame) -> None:
        env = frame.env
        if target in env:
            torch._foreach_add_(env[target], env[value], alpha=scale * frame.weight)
        else:
            env[target] = list(torch._foreach_mul(env[value], scale * frame.weight))

    return accumulate


def _bind_clip(section: Section, instruction: Clip) -> Operation:
    return replaced(section, instruction.gradients, lambda frame, gradients: clip(gradients, instruction.norm))


def replaced(section: Section, values: Sequence[str], change: Callable[[Frame, Gradients], Gradients]) -> Operation:
    """Return what changes gradients; one that is spread over bundles is their sum, kept in the first of them."""
    found = gathered(section, values)
    empty = {bundle: [None] * len(ports) for bundle, ports in section.names(values).items()}

    def replace(frame: Frame) -> None:
        changed = change(frame, collect(frame.env, found))
        frame.env.update({bundle: list(nothing) for bundle, nothing in empty.items()})
        for places, gradient in zip(found, changed, strict=True):
            frame.env[places[0][0]][places[0][1]] = gradient

    return replace


def gathered(section: Section, values: Sequence[str]) -> Route:
    """Return where the gradients of some bundles are, each once."""
    sources = section.names(values)
    return route(list(dict.fromkeys(name for ports in sources.values() for name in ports)), sources)


def _bind_update(section: Section, instruction: Update) -> Operation:
    optimizer, found = _update_route(section, instruction)
    moments = route(optimizer.moments, section.names(instruction.gradients))

    def update(frame: Frame) -> None:
        if moments:
            optimizer.observe(collect(frame.env, moments))
        optimizer.step(collect(frame.env, found), frame.time)

    return update


def _bind_handover(section: Section, instruction: Update) -> Operation:
    optimizer, found = _update_route(section, instruction)

    def hand_over(frame: Frame) -> None:
        for name, gradient in gradients_by_name(optimizer, collect(frame.env, found)).items():
            frame.gradients.setdefault(name, gradient)  # of several steps on one batch the first

    return hand_over


def _update_route(section: Section, instruction: Update) -> tuple[BlockOptimizer, Any]:
    optimizer = section.resources.optimizers[instruction.block]
    owner = section.resources.state.owner
    sources = {
        value: [owner.get(name, name) for name in ports]
        for value, ports in section.names(instruction.gradients).items()
    }
    return optimizer, route([owner[name] for name in optimizer.names], sources)


def _bind_write(section: Section, instruction: Write) -> Operation:
    """One batched copy for each dtype: torch copies tensors of mixed dtypes one by one."""
    value = instruction.value
    targets = [section.resources.state[name] for name in section.ports[value]]
    groups: dict[torch.dtype, list[int]] = {}
    for index, tensor in enumerate(targets):
        groups.setdefault(tensor.dtype, []).append(index)
    copies = [([targets[i] for i in group], group) for group in groups.values()]

    def write(frame: Frame) -> None:
        bundle = frame.env[value]
        for into, indices in copies:
            torch._foreach_copy_(into, [bundle[i] for i in indices])

    return write


def _bind_adopt(section: Section, instruction: Adopt) -> Operation:
    write = _bind_write(section, Write(instruction.value))

    def adopt(frame: Frame) -> None:
        if frame.shard == 0:
            write(frame)

    return adopt


def _bind_free(section: Section, instruction: Free) -> Operation:
    values = instruction.values

    def free(frame: Frame) -> None:
        for value in values:
            frame.env.pop(value, None)  # a call may have taken it already

    return free


def _bind_record(section: Section, instruction: Record) -> Operation:
    metric, value = instruction.metric, instruction.value

    def record(frame: Frame) -> None:
        frame.readings.append(Reading(metric, frame.env[value][0], frame.size))

    return record


def _bind_return(section: Section, instruction: Return) -> Operation:
    name, value = instruction.name, instruction.value

    def give(frame: Frame) -> None:
        frame.returned[name] = frame.env[value][0]

    return give


def _bind_repeat(section: Section, instruction: Repeat) -> Operation:
    body, count = section.bind(instruction.body), instruction.count

    def repeat(frame: Frame) -> None:
        for _ in range(count):
            for operation in body:
                operation(frame)

    return repeat


def _bind_every(section: Section, instruction: Every) -> Operation:
    body, period, phase = section.bind(instruction.body), instruction.period, instruction.phase

    def every(frame: Frame) -> None:
        if frame.time >= phase and (frame.time - phase) % period == 0:
            for operation in body:
                operation(frame)

    return every


def _bind_offset(section: Section, instruction: Offset) -> Operation:
    measure = _measurement(section, instruction)
    correction = section.resources.corrections[instruction.block]

    def offset(frame: Frame) -> None:
        correction.offset = frame.offsets[instruction.block] = measure(frame)

    return offset


def _bind_measurement(section: Section, instruction: Offset) -> Operation:
    """As `offset`, but known to this section alone."""
    measure = _measurement(section, instruction)

    def offset(frame: Frame) -> None:
        frame.offsets[instruction.block] = measure(frame)

    return offset


def _measurement(section: Section, instruction: Offset) -> Callable[[Frame], Measured]:
    correction = section.resources.corrections[instruction.block]
    names = correction.plan.parameters
    exact, local = (route(names, section.names(bundles)) for bundles in (instruction.exact, instruction.local))
    return lambda frame: correction.measured(collect(frame.env, exact), collect(frame.env, local), frame.time)


def _bind_correct(section: Section, instruction: Correct) -> Operation:
    """A gradient that is spread over bundles is corrected as their sum, kept in the first of them."""
    block = instruction.block
    correction = section.resources.corrections[block]
    places = route(correction.plan.parameters, section.names(instruction.gradients))

    def correct(frame: Frame) -> None:
        offset = frame.offsets.get(block, correction.offset)
        corrected = correction.corrected(collect(frame.env, places), offset, frame.time)
        for own, gradient in zip(places, corrected, strict=True):
            for bundle, index in own:
                frame.env[bundle][index] = None
            if own:
                frame.env[own[0][0]][own[0][1]] = gradient

    return correct


def _bind_shift(section: Section, instruction: Shift) -> Operation:
    block = instruction.block
    correction = section.resources.corrections[block]
    optimizer = section.resources.optimizers[block]
    order = [correction.plan.parameters.index(n) if n in correction.plan.parameters else None for n in optimizer.names]

    def shift(frame: Frame) -> None:
        offset = frame.offsets.get(block, correction.offset)
        if offset.values:
            found = [None if index is None else offset.values[index] for index in order]
            optimizer.shift(found, correction.strength(offset, frame.time))

    return shift


def _bind_nothing(section: Section, instruction: Instruction) -> Operation:
    return lambda frame: None


BINDERS: dict[type, Binder] = {
    Load: _bind_load,
    Random: _bind_random,
    Call: _bind_call,
    Accumulate: _bind_accumulate,
    Update: _bind_update,
    Clip: _bind_clip,
    Write: _bind_write,
    Free: _bind_free,
    Record: _bind_record,
    Return: _bind_return,
    Repeat: _bind_repeat,
    Every: _bind_every,
    Adopt: _bind_adopt,
    Part: bind_part,
    Lag: _bind_nothing,
    Later: _bind_nothing,
    Only: _bind_nothing,
    Offset: _bind_offset,
    Correct: _bind_correct,
    Shift: _bind_shift,
}

# The step with every effect left out, and gradients handed over instead of applied.
WITHOUT_EFFECTS: dict[type, Binder] = {
    **BINDERS,
    Update: _bind_handover,
    Write: _bind_nothing,
    Adopt: _bind_nothing,
    Offset: _bind_measurement,
    Shift: _bind_nothing,
}
