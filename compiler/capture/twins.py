"""Which blocks have the same step? One that is like another but for names takes over its kernels, renamed.

Calls of one module at several time steps are such blocks: they hold the same layers, read and hand on values of the
same types, and learn alike. Two blocks are alike if their forms are equal; the names that the forms leave out then
translate the one's kernels into the other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import fx

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.joint import cotangent_slot
from lpc.compiler.capture.relaxed import ANCHOR, SLOPE, before, slope_slot
from lpc.compiler.localize import Arrival, LocalProblem
from lpc.compiler.relaxation import RelaxKernels, Twice
from lpc.compiler.variables import Variable
from lpc.specs.plan.kernel import Bundle, Kernel

Types = Mapping[str, tuple[torch.dtype, tuple[int | str, ...]]]
T = TypeVar("T")


@dataclass
class Form:
    """A block's step without names: `parts` to compare, and the `names` that were left out, in the same order."""

    block: str
    parts: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """All that fixes a block's step in a mode; `receives` are the cotangents that do come back."""

    problem: LocalProblem
    module: BlockModule
    types: Types
    receives: Sequence[Arrival]
    differentiable: frozenset[str]
    leaving: Sequence[str]


def form_of(step: Step) -> Form | None:
    """Return a step's form; None for a block with more than layers, gradients and variables, which has no twin."""
    problem, module = step.problem, step.module
    further = problem.optimizer is not None and problem.optimizer.steps > 1
    alone = problem.losses or further or problem.split is not None or list(problem.heads.state())
    if alone or any(not a.consumer for a in step.receives):
        return None
    form = Form(problem.block)
    plain = replace(
        problem, block="", feature={}, receives=(), sends={}, makes=(), reads=(), optimizer=None,
        heads=None, trainable=(),  # type: ignore[arg-type]
    )  # fmt: skip
    form.parts += [plain, problem.trainable, [repr(line) for line in _lines(module.module.graph)]]
    form.parts += [step.types[name] for name in (*module.inputs, *module.outputs)]
    form.names += [*module.inputs, *module.outputs]
    form.parts.append([module.outputs.index(name) for name in step.leaving])
    for value in module.inputs:
        form.parts += [problem.sends.get(value), value in step.differentiable]
        sent = (Arrival(value, problem.block, age) for age in range(problem.horizon + 1))
        form.names += [n for a in sent for n in (cotangent_slot(a).bundle, cotangent_slot(a).source)]
    for arrival in step.receives:
        form.parts.append((module.outputs.index(arrival.value), arrival.age))
        form.names += [cotangent_slot(arrival).bundle, cotangent_slot(arrival).source]
    for variable, around in [(v, module.outputs) for v in problem.makes] + [(v, module.inputs) for v in problem.reads]:
        if variable.value not in around:
            return None
        first = variable.consumers[0] == problem.block
        form.parts += [_unnamed(variable), around.index(variable.value), first, len(variable.laws)]
        form.names += _names_of(variable)
    return form


def twin_of(form: Form, others: Sequence[tuple[Form, T]]) -> tuple[Form, T] | None:
    """Return a form that is equal, with what is known of its block."""
    return next((pair for pair in others if pair[0].parts == form.parts and _one_to_one(pair[0], form)), None)


def _one_to_one(one: Form, other: Form) -> bool:
    """Do names of the one mean the same wherever they stand?"""
    return len(set(zip(one.names, other.names, strict=True))) == len(set(one.names)) == len(set(other.names))


@dataclass(frozen=True)
class Translation:
    """From the names of one block's step to those of its twin's."""

    source: str
    target: str
    names: Mapping[str, str]

    @classmethod
    def between(cls, source: Form, target: Form) -> Translation:
        """Translate between equal forms."""
        return cls(source.block, target.block, dict(zip(source.names, target.names, strict=True)))

    def kernel(self, kernel: Kernel) -> Kernel:
        """Return a kernel under the other block's names: its operators are the same objects."""
        kind = kernel.name.removeprefix(f"{self.source}.")
        return replace(
            kernel,
            name=f"{self.target}.{self.names.get(kind, kind)}",
            block=self.target,
            arguments=tuple(map(self.bundle, kernel.arguments)),
            results=tuple(map(self.bundle, kernel.results)),
        )

    def bundle(self, bundle: Bundle) -> Bundle:
        """Return an argument or a result; state and seeds have names of their own."""
        if bundle.role in ("state", "seed", "gradients", "buffers", "loss", "residuals"):
            return bundle
        ports = tuple(replace(port, source=self.names.get(port.source, port.source)) for port in bundle.ports)
        return replace(bundle, name=self.names.get(bundle.name, bundle.name), ports=ports)

    def arrival(self, arrival: Arrival) -> Arrival:
        """Return a cotangent that the twin sends."""
        return Arrival(self.names[arrival.value], self.target, arrival.age)

    def relaxed(self, kernels: RelaxKernels) -> RelaxKernels:
        """Return the kernels of a block between variables."""
        return RelaxKernels(
            None if kernels.forward is None else self.twice(kernels.forward),
            {self.names[value]: self.twice(pair) for value, pair in kernels.slopes.items()},
            {self.names[value]: self.kernel(kernel) for value, kernel in kernels.anchors.items()},
            None if kernels.local is None else self.kernel(kernels.local),
        )

    def twice(self, pair: Twice) -> Twice:
        """Return the kernels of an evaluation."""
        return Twice(self.kernel(pair.first), self.kernel(pair.again))


def _lines(graph: fx.Graph) -> Iterator[tuple[Any, ...]]:
    """Yield a graph's nodes with numbers for their names."""
    numbers: dict[fx.Node, int] = {}
    for number, node in enumerate(graph.nodes):
        numbers[node] = number
        given = fx.node.map_arg((node.args, node.kwargs), lambda n: f"%{numbers[n]}")
        if node.op == "placeholder":
            yield (node.op,)
        else:
            yield node.op, node.target, given, node.meta.get("path")


def _unnamed(variable: Variable) -> Variable:
    return replace(variable, name="", value="", producer="", consumers=(), boundaries=())


def _names_of(variable: Variable) -> Iterator[str]:
    yield from (variable.name, variable.value, before(variable), *variable.laws)
    for kind in (SLOPE, ANCHOR):
        yield slope_slot(kind, variable).bundle
        yield f"{kind}.{variable.value}"
        yield f"{kind}.{variable.value}_first"
