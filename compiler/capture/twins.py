"""Which blocks have the same step? One that is like another but for names takes over its kernels, renamed.

Calls of one module at several time steps are such blocks, and so are the equal layers of a transformer: they hold the
same layers, read and hand on values of the same types, and learn alike. Two blocks are alike if their forms are equal;
the names that the forms leave out then translate the one's kernels into the other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, fx
from torch.nn import Parameter

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.joint import cotangent_slot
from lpc.compiler.capture.likeness import likeness, module_likeness
from lpc.compiler.capture.relaxed import ANCHOR, SLOPE, before, slope_slot
from lpc.compiler.capture.tracing import site_name
from lpc.compiler.localize import Arrival, LocalProblem
from lpc.compiler.relaxation import RelaxKernels, Twice
from lpc.compiler.state import named_state
from lpc.compiler.variables import Variable
from lpc.specs.plan.kernel import Bundle, Kernel, Node

STATE = frozenset({"state", "gradients", "buffers"})  # roles whose ports are named after parameters and buffers
UNCHANGED = frozenset({"seed", "loss", "metric", "residuals"})  # roles whose names are the same in every block

Types = Mapping[str, tuple[torch.dtype, tuple[int | str, ...]]]
T = TypeVar("T")


@dataclass
class Form:
    """A block's step without names: `parts` to compare, and the names that were left out, in the same order.

    `names` are of values, `state` of parameters and buffers, `sites` of what nodes say where they come from.
    """

    block: str
    parts: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)

    def site(self, name: str) -> int:
        """Return the number of a site."""
        if name not in self.sites:
            self.sites.append(name)
        return self.sites.index(name)

    def covers(self, kernels: Iterable[Kernel]) -> bool:
        """Are all sites of these kernels known by name?"""
        return {node.origin for kernel in kernels for node in kernel.nodes} <= {"", *self.sites}


@dataclass(frozen=True)
class Step:
    """All that fixes a block's step in a mode; `receives` are the cotangents that do come back."""

    problem: LocalProblem
    module: BlockModule
    types: Types
    receives: Sequence[Arrival]
    differentiable: frozenset[str]
    leaving: Sequence[str]
    aliases: Mapping[str, str]
    mode: str


def form_of(step: Step) -> Form | None:
    """Return a step's form; None for a block without a twin: with noise, feedback, inner steps, a target or a split."""
    problem, module = step.problem, step.module
    further = (problem.optimizer is not None and problem.optimizer.steps > 1) or problem.target is not None
    noisy = problem.moves_in or problem.moves_out or problem.credits or problem.feedback or problem.errors
    mixed = (problem.makes or problem.reads) and (problem.losses or problem.heads)
    apart = problem.group is not None or problem.split is not None
    if further or noisy or mixed or apart or any(not a.consumer for a in step.receives):
        return None
    form = Form(problem.block)
    plain = replace(
        problem, block="", feature={}, receives=(), sends={}, makes=(), reads=(), optimizer=None,
        heads=None, trainable=(), losses=(),  # type: ignore[arg-type]
    )  # fmt: skip
    form.parts.append(plain)
    _add_state(form, step)
    if not {*problem.trainable} <= {*form.state}:
        return None
    form.parts.append([form.state.index(name) for name in problem.trainable])
    form.parts.append([repr(line) for line in _lines(form, step)])
    form.parts += [step.types[name] for name in (*module.inputs, *module.outputs)]
    form.names += [*module.inputs, *module.outputs]
    form.parts.append([module.outputs.index(name) for name in step.leaving])
    _add_losses(form, step)
    _add_cotangents(form, step)
    if problem.layer_solver is not None or problem.factored:
        form.parts.append([*form.state, *form.sites])  # which such problems call by name
    return form if _add_variables(form, step) else None


def _add_state(form: Form, step: Step) -> None:
    """Add the parameters and buffers of a block and of its heads, in the order of a kernel's arguments."""
    problem, module = step.problem, step.module.module
    heads = [(step.aliases.get(n, n), t) for n, t in _head_state(problem)]
    for name, tensor in [*((step.aliases.get(n, n), t) for n, t in named_state(module).items()), *heads]:
        if name not in form.state:
            form.state.append(name)
        form.parts.append((form.state.index(name), tensor.dtype, tuple(tensor.shape), isinstance(tensor, Parameter)))
    form.parts += [(key, module_likeness(head)) for key, head in problem.heads.modules.items()]


def _head_state(problem: LocalProblem) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in problem.heads.state().items():
        yield problem.heads.source(problem.block, name), tensor


def _add_losses(form: Form, step: Step) -> None:
    problem, mode = step.problem, step.mode
    if problem.losses:
        form.parts.append(step.module.outputs.index(problem.feature[mode]))
    for key in problem.heads.modules:
        form.site(f"heads.{problem.block}.{key}" if key else f"heads.{problem.block}")
    for loss in problem.losses:
        form.site(f"{problem.block}.{loss.name}")
        does = None if loss.state is not None else likeness(loss.function)  # one with state is among the heads
        form.parts += [loss.name, does, loss.weight, likeness(loss.options), id(loss.kind), loss.head, loss.state]
        value = loss.target.get(mode)
        form.parts.append(step.types[value] if value else None)
        form.names += [value] if value else []


def _add_cotangents(form: Form, step: Step) -> None:
    problem, outputs = step.problem, step.module.outputs
    for value in step.module.inputs:
        form.parts += [problem.sends.get(value), value in step.differentiable]
        sent = (Arrival(value, problem.block, age) for age in range(problem.horizon + 1))
        form.names += [n for a in sent for n in (cotangent_slot(a).bundle, cotangent_slot(a).source)]
    for arrival in step.receives:
        form.parts.append((outputs.index(arrival.value), arrival.age))
        form.names += [cotangent_slot(arrival).bundle, cotangent_slot(arrival).source]


def _add_variables(form: Form, step: Step) -> bool:
    """Add what a block makes and reads; say whether it is all at the block's border."""
    problem, module = step.problem, step.module
    for variable, around in [(v, module.outputs) for v in problem.makes] + [(v, module.inputs) for v in problem.reads]:
        if variable.value not in around:
            return False
        first = variable.consumers[0] == problem.block
        form.parts += [_unnamed(variable), around.index(variable.value), first, len(variable.laws)]
        form.names += _names_of(variable)
    return True


def twin_of(form: Form, others: Sequence[tuple[Form, T]]) -> tuple[Form, T] | None:
    """Return a form that is equal, with what is known of its block."""
    return next((pair for pair in others if pair[0].parts == form.parts and _translates(pair[0], form)), None)


def _translates(one: Form, other: Form) -> bool:
    """Do names of the one mean the same wherever they stand?"""
    return _one_to_one(one.names, other.names) and _one_to_one(one.state, other.state)


def _one_to_one(ones: Sequence[str], others: Sequence[str]) -> bool:
    return len(set(zip(ones, others, strict=True))) == len(set(ones)) == len(set(others))


@dataclass(frozen=True)
class Translation:
    """From the names of one block's step to those of its twin's: of values, of state, and of sites."""

    source: str
    target: str
    names: Mapping[str, str]
    state: Mapping[str, str]
    sites: Mapping[str, str]

    @classmethod
    def between(cls, source: Form, target: Form) -> Translation:
        """Translate between equal forms."""
        kinds = ((source.names, target.names), (source.state, target.state), (source.sites, target.sites))
        return cls(source.block, target.block, *(dict(zip(ours, theirs, strict=True)) for ours, theirs in kinds))

    def kernel(self, kernel: Kernel) -> Kernel:
        """Return a kernel under the other block's names; operators at sites of the same name are the same objects."""
        kind = kernel.name.removeprefix(f"{self.source}.")
        return replace(
            kernel,
            name=f"{self.target}.{self.names[kind] if '.' in kind else kind}",
            block=self.target,
            arguments=tuple(map(self.bundle, kernel.arguments)),
            nodes=tuple(map(self.node, kernel.nodes)),
            results=tuple(map(self.bundle, kernel.results)),
        )

    def node(self, node: Node) -> Node:
        """Return an operator at the twin's site."""
        site = self.sites.get(node.origin, node.origin)
        return node if site == node.origin else replace(node, origin=site)

    def bundle(self, bundle: Bundle) -> Bundle:
        """Return an argument or a result."""
        if bundle.role in UNCHANGED:
            return bundle
        table = self.state if bundle.role in STATE else self.names
        ports = tuple(replace(port, source=table.get(port.source, port.source)) for port in bundle.ports)
        name = bundle.name if bundle.role in STATE else self.names.get(bundle.name, bundle.name)
        return replace(bundle, name=name, ports=ports)

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


def _lines(form: Form, step: Step) -> Iterator[tuple[Any, ...]]:
    """Yield a graph's nodes with numbers for their names, their tensors and their sites."""
    module, numbers = step.module.module, dict[fx.Node, int]()
    for number, node in enumerate(module.graph.nodes):
        numbers[node] = number
        given = fx.node.map_arg((node.args, node.kwargs), lambda n: f"%{numbers[n]}")
        if node.op in ("placeholder", "output"):
            yield node.op, given[0] if node.op == "output" else ()
            continue
        site = form.site(site_name(node.meta.get("path", ""), node.meta.get("call", 0)))
        yield node.op, _target(form, step, node), given, site


def _target(form: Form, step: Step, node: fx.Node) -> Any:
    """Return what a node calls or fetches, with the numbers of the tensors in it."""
    name, module = str(node.target), step.module.module
    if node.op == "get_attr":
        known = step.aliases.get(name, name)
        return form.state.index(known) if known in form.state else (name, id(module))
    if node.op != "call_module":
        return node.target
    part = module.get_submodule(name)
    own = (f"{name}.{n}" for n in named_state(part))
    return module_likeness(part), [form.state.index(step.aliases.get(n, n)) for n in own]


def _unnamed(variable: Variable) -> Variable:
    return replace(variable, name="", value="", producer="", consumers=(), boundaries=())


def _names_of(variable: Variable) -> Iterator[str]:
    yield from (variable.name, variable.value, before(variable), *variable.laws)
    for kind in (SLOPE, ANCHOR):
        yield slope_slot(kind, variable).bundle
        yield f"{kind}.{variable.value}"
        yield f"{kind}.{variable.value}_first"
