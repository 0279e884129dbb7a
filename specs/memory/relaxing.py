"""Which memory do the instructions of auxiliary variables take? The walk over a step, with these as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lpc.specs.memory.heap import GRADIENTS, Storage
from lpc.specs.memory.optimizers import counters, kept
from lpc.specs.memory.optimizers import made as made_by
from lpc.specs.memory.section import HANDLERS, Handler, Held, Walk
from lpc.specs.memory.sizes import WIDTHS, Lengths, nbytes
from lpc.specs.plan.instructions import (
    Begin,
    Due,
    Fetch,
    Parallel,
    Relax,
    StepVariable,
    Store,
    Visit,
    Weight,
)
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.lengths import sizes
from lpc.specs.plan.plan import Optimizer, ParameterGroup, Program, Variable

VARIABLE = "variable"
DUE = " due"  # the samples' marks, beside variables' names
AGES = 4  # bytes of the metric of a visit
LAGGING = "steps that have begun"


def walked(program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, phase: int) -> RelaxedWalk:
    """Return the walk through the step of a phase, beside what other steps hold that have begun and are not over."""
    first = RelaxedWalk(program, kernels, lengths)
    first.run(program.steps[phase])
    if not first.lagging:
        return first
    found = RelaxedWalk(program, kernels, lengths)
    found.heap.enter(None, LAGGING)
    found.heap.make(first.lagging, LAGGING, "lag")
    found.run(program.steps[phase])
    return found


@dataclass
class RelaxedWalk(Walk):
    """Goes through a section that may have auxiliary variables."""

    states: dict[str, Storage] = field(default_factory=dict)  # of the optimizers of variables that are being solved

    def handler(self, kind: type[Any]) -> Handler:
        return _HANDLERS[kind]

    def weight(self, weight: Weight) -> None:
        size = WIDTHS[self.program.laws[weight.law].type.dtype]
        self.env[weight.value] = [Held(self.heap.make(size, weight.value, VARIABLE), size, weight.law)]

    def begin(self, begin: Begin) -> None:
        self.taken_up(begin.values)

    def taken_up(self, values: tuple[str, ...]) -> None:
        for name in values:
            size = nbytes(self.program.variables[name].type, self.here)
            self.env[name] = [Held(self.heap.make(size, name, VARIABLE), size, name)]

    def relax(self, relax: Relax) -> None:
        """What an optimizer remembers of samples is taken from the cache, and stays for the rest of the step."""
        persistent = [name for name in relax.variables if self.program.variables[name].persists]
        samples = persistent if DUE in self.states else []
        sizes = {name: self.remembered(name) for name in samples}
        for name in samples:
            if f"{name}.remembered" not in self.states:
                self.states[f"{name}.remembered"] = self.heap.make(sizes[name], name, VARIABLE)
        self.run(relax.body)
        self.heap.drop_all(self.states.pop(name, None) for name in relax.variables)
        for name in samples:
            self.heap.pulse(sizes[name], f"memory of {name}")

    def remembered(self, name: str) -> int:
        """Return the bytes of what an optimizer remembers of the samples of a batch, its counters left out."""
        optimizer, types = _as_optimizer(self.program.variables[name], self.here)
        return kept(optimizer, types) - counters(optimizer)

    def step_variable(self, step: StepVariable) -> None:
        """The slopes' sum, then what the optimizer keeps until the variable is solved."""
        variable = self.program.variables[step.variable]
        optimizer, types = _as_optimizer(variable, self.here)
        total: Storage | None = None
        for slope in step.slopes[1:]:
            held = self.env[slope][0]
            before, total = total, self.heap.make(held.size, slope, GRADIENTS)
            self.heap.drop(before)
        if not variable.persists and step.variable not in self.states:
            self.states[step.variable] = self.heap.make(kept(optimizer, types), step.variable, VARIABLE)
        self.heap.pulse(made_by(optimizer, types), f"step of {optimizer.name}")
        self.heap.drop(total)

    def inside(self, instruction: Parallel) -> None:
        self.run(instruction.body)

    def due(self, due: Due) -> None:
        """Which samples are due is known until others are asked for."""
        before = self.states.pop(DUE, None)
        self.states[DUE] = self.heap.make(self.here["B"], "due", VARIABLE)
        self.heap.drop(before)
        self.run(due.body)

    def fetch(self, fetch: Fetch) -> None:
        self.taken_up(fetch.values)

    def store(self, store: Store) -> None:
        """The rows of the whole batch are kept for this step beside what is kept for good."""
        for name, value in zip(store.variables, store.values, strict=True):
            size = self.env[value][0].size
            before = self.states.pop(f"{name}.stored", None)
            self.states[f"{name}.stored"] = self.heap.make(size, name, VARIABLE)
            self.heap.drop(before)

    def visit(self, visit: Visit) -> None:
        for metric in visit.metrics:
            self.heap.make(AGES, metric, "metric")
            self.recorded += AGES


def lasting(program: Program, block: str, lengths: Lengths) -> int:
    """Return what the optimizers of a block's variables keep from step to step, in bytes.

    They are those that the block solves. Beside a cache, where the rows of samples are, they are counters alone.
    """
    own = [v for v in program.variables.values() if v.persists and v.reader == block]
    found = [_as_optimizer(variable, lengths) for variable in own]
    cached = any(isinstance(i, Visit) for step in program.steps for i in step)
    return sum(counters(optimizer) if cached else kept(optimizer, types) for optimizer, types in found)


def _as_optimizer(variable: Variable, lengths: Lengths) -> tuple[Optimizer, Mapping[str, TensorType]]:
    """Return a variable's optimizer as one of a parameter of its size."""
    shape = sizes(variable.type.shape, variable.name)(lengths)
    optimizer = Optimizer(variable.block, variable.optimizer, variable.options, (ParameterGroup((variable.name,)),))
    return optimizer, {variable.name: TensorType(variable.type.dtype, shape)}


_HANDLERS: dict[type[Any], Callable[[Any, Any], None]] = {
    **HANDLERS,
    Weight: RelaxedWalk.weight,
    Begin: RelaxedWalk.begin,
    Relax: RelaxedWalk.relax,
    StepVariable: RelaxedWalk.step_variable,
    Parallel: RelaxedWalk.inside,
    Due: RelaxedWalk.due,
    Fetch: RelaxedWalk.fetch,
    Store: RelaxedWalk.store,
    Visit: RelaxedWalk.visit,
}
