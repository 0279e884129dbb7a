"""In what order does a step run? Instructions for the step, the evaluation and the prediction.

Immediate: a block's backward runs as soon as every cotangent it waits for has arrived, which for a block that
receives none is at once, before the next block's forward. Summed: all forwards, then all backwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from lpc.compiler.correction import Corrections
from lpc.compiler.inner import formula_steps, inner_steps
from lpc.compiler.localize import LocalProblem
from lpc.compiler.negatives import NegativeKernels
from lpc.compiler.phases import Active, ensure_closed, ensure_corrected, everything, phases_of
from lpc.compiler.probing import Probing
from lpc.compiler.refresh import ExactKernels, refreshes
from lpc.compiler.relaxation import RelaxKernels, relaxed_step
from lpc.compiler.split_schedule import SplitKernels, split_step
from lpc.compiler.summing import summed_up
from lpc.compiler.variables import Variables
from lpc.specs.model import Spec
from lpc.specs.plan.flow import values_made, values_read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import (
    Call,
    Clip,
    Correct,
    Instruction,
    Load,
    Random,
    Record,
    Return,
    Shift,
    Update,
    Write,
)
from lpc.specs.plan.kernel import Bundle, Kernel
from lpc.specs.plan.plan import Phase

METRIC_ROLES = ("loss", "metric")


@dataclass(frozen=True)
class Sections:
    """The instruction lists of a plan; `step` is empty where there are phases."""

    step: tuple[Instruction, ...]
    evaluate: tuple[Instruction, ...]
    predict: tuple[Instruction, ...]
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class Kernels:
    """The kernels of one block. Either `local` (fused), or `forward` with `backward` or `vjp`."""

    eval: Kernel
    predict: Kernel
    local: Kernel | None = None
    forward: Kernel | None = None
    backward: Kernel | None = None
    solve: Kernel | None = None  # the gradients of the same problem at other weights, for inner steps


def schedule(
    spec: Spec,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    kernels: Mapping[str, Kernels],
    corrected: Corrections | None = None,
    exact: Mapping[str, ExactKernels] | None = None,
    probes: Sequence[Probing] = (),
    negatives: NegativeKernels | None = None,
    relaxed: Mapping[str, RelaxKernels] | None = None,
    variables: Variables | None = None,
    split: Mapping[str, SplitKernels] | None = None,
) -> Sections:
    """Return the instructions of all sections. Raises LpcError (0432) for a phase that cannot train."""
    eval_ = {b: k.eval for b, k in kernels.items()}
    predict = {b: k.predict for b, k in kernels.items()}
    judged = _forward_only(problems, eval_, spec.run.metrics)
    judged += [i for probe in probes for i in probe.judging(predict)]
    steps = _Steps(spec, graph, problems, kernels, corrected, exact or {}, probes, negatives)
    active = phases_of(spec, graph, problems, [probe.probe for probe in probes])
    layers = {b: p.split for b, p in problems.items() if p.split is not None}
    if layers:
        whole = split_step(layers, split or {})
    elif variables:
        whole = relaxed_step(graph, problems, relaxed or {}, variables, spec.run.clip)
    else:
        whole = () if active else steps.step(everything(problems, [probe.probe for probe in probes]))
    return Sections(
        whole,
        _loaded(judged, eval_),
        _loaded(_prediction(spec, graph, problems, predict, probes), predict),
        steps.phases(active),
    )


def _prediction(
    spec: Spec,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    kernels: Mapping[str, Kernel],
    probes: Sequence[Probing],
) -> list[Instruction]:
    """The network's output, a readout's, or scores by label."""
    term = spec.run.predict
    named = str((*term.args, *term.kwargs.values())[0]) if term.name == "readout" else term.name
    chosen = next((probe for probe in probes if probe.name == named), None)
    if chosen is None:
        return [*_forward_only(problems, kernels, ()), Return("output", graph.graph["output_value"])]
    before = [] if chosen.runs_alone else _forward_only(problems, kernels, ())
    return [*before, *chosen.predicting(kernels)]


def _loaded(body: Sequence[Instruction], kernels: Mapping[str, Kernel]) -> tuple[Instruction, ...]:
    """Put the batch fields that a section reads in front of it, those of its kernels first."""
    read, made = values_read(body), values_made(body)
    fields = [f for f in dict.fromkeys((*_fields(kernels.values())[0], *read)) if f in read and f not in made]
    return tuple(with_frees([Load(tuple(fields), tuple(fields)), *body]))


@dataclass(frozen=True)
class _Steps:
    """Writes a training step: of all blocks and readouts, or of those that learn in a phase."""

    spec: Spec
    graph: nx.DiGraph[str]
    problems: Mapping[str, LocalProblem]
    kernels: Mapping[str, Kernels]
    corrected: Corrections | None
    exact: Mapping[str, ExactKernels]
    probes: Sequence[Probing]
    negatives: NegativeKernels | None = None

    def phases(self, active: Sequence[Active]) -> tuple[Phase, ...]:
        """Return a step for each phase. Raises LpcError (0432) where one cannot train."""
        ways = ("local", "forward", "backward")
        training = {b: _all({b: k}, ways) for b, k in self.kernels.items()}
        for index, one in enumerate(active):
            ensure_closed(self.spec, index, one, training)
            corrected = self.corrected.by_block if self.corrected is not None else {}
            ensure_corrected(self.spec, index, one, self.graph, corrected)
        return tuple(Phase(one.named, self.step(one)) for one in active)

    def step(self, active: Active) -> tuple[Instruction, ...]:
        spec = self.spec
        writer = _Writer(self.graph, self.problems, self.kernels, spec.run.memory == "summed", spec.run.metrics, active)
        for block in self.graph.nodes:
            writer.forward(block)
        writer.finish()
        shown = {b: k.predict for b, k in self.kernels.items()}
        probes = [p for p in self.probes if active.trains(p.name)]
        alone, after = ([i for p in probes if p.runs_alone == own for i in p.training(shown)] for own in (True, False))
        read = _fields(writer.leading)[0]
        made = values_made([*alone, *writer.body, *after])
        extra = [v for v in values_read([*alone, *after]) if v not in made]
        fields = tuple(dict.fromkeys((*read, *extra)))
        load = Load(fields, fields)
        begin: list[Instruction] = [load]
        if self.negatives is not None:
            begin = [self.negatives.given(load), *self.negatives.section(shown)]
        if spec.run.splits:
            return tuple(summed_up(spec.run, begin, writer.body, writer.gradients))
        body: list[Instruction] = [load, *writer.body]
        updates = {
            block: self.updates(block, bundles, writer.factors.get(block, ()))
            for block, bundles in writer.gradients.items()
        }
        if spec.run.clip is not None:
            body += _clipped_updates(spec.run.clip, writer, updates)
        else:
            body = _with_early_updates(body, writer, updates)
        if self.corrected is not None and any(map(active.trains, self.corrected.by_block)):
            body[1:1] = refreshes(self.graph, self.corrected, self.exact, writer.body, read, writer.gradients)
        return tuple(with_frees([*begin, *alone, *body[1:], *after]))

    def updates(self, block: str, bundles: Sequence[str], factors: Sequence[str]) -> list[Instruction]:
        """What happens to a block's gradients: its correction, its optimizer's step, and further steps on the batch."""
        correction = self.corrected.by_block.get(block) if self.corrected is not None else None
        update = Update(block, (*bundles, *factors))
        solve, optimizer = self.kernels[block].solve, self.problems[block].optimizer
        if solve is not None and optimizer is not None:
            if self.problems[block].by_formula:
                return formula_steps(optimizer, solve, arguments_of(solve))
            return [update, *inner_steps(optimizer, solve, arguments_of(solve))]
        if correction is None:
            return [update]
        shift = [Shift(block)] if correction.where == "update" else []
        return [Correct(block, tuple(bundles)), update, *shift]


@dataclass
class _Writer:
    """Writes calls in the order in which their arguments become known."""

    graph: nx.DiGraph[str]
    problems: Mapping[str, LocalProblem]
    kernels: Mapping[str, Kernels]
    summed: bool
    metrics: tuple[str, ...]
    active: Active
    leading: list[Kernel] = field(default_factory=list)  # those that read batch fields
    body: list[Instruction] = field(default_factory=list)
    gradients: dict[str, list[str]] = field(default_factory=dict)  # parameter owner -> bundles
    factors: dict[str, list[str]] = field(default_factory=dict)  # block -> moments that its optimizer takes
    aims: dict[str, str] = field(default_factory=dict)  # targets of problems that a kernel of their own solves
    waiting: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def forward(self, block: str) -> None:
        kernels = self.kernels[block]
        if not self.active.trains(block):
            self.show(block)
            return
        kernel = kernels.local or kernels.forward
        assert kernel is not None
        self.leading.append(kernel)
        self.call(block, kernel)
        if kernels.local is None and kernels.backward is not None:
            self.waiting.append(block)
        if not self.summed:
            self.run_ready()

    def show(self, block: str) -> None:
        """Run a block that does not learn as in evaluation, where something reads it that does."""
        kernel = self.kernels[block].predict
        if block in self.active.shown:
            self.leading.append(kernel)
            self.call(block, kernel)

    def finish(self) -> None:
        self.run_ready()
        assert not self.waiting, "a block waits for a cotangent that no block sends"

    def run_ready(self) -> None:
        """Run every waiting backward whose cotangents are there, the latest block first."""
        while ready := [b for b in reversed(self.waiting) if self.missing(b) == []]:
            block = ready[0]
            self.waiting.remove(block)
            backward = self.kernels[block].backward
            assert backward is not None
            self.call(block, backward)

    def missing(self, block: str) -> list[str]:
        kernel = self.kernels[block].backward
        assert kernel is not None
        return [b.name for b in kernel.arguments if b.role == "cotangent" and b.name not in self.known]

    def call(self, block: str, kernel: Kernel) -> None:
        randoms = [b for b in kernel.arguments if b.role == "random"]
        for bundle in randoms:
            value = value_name(block, bundle)
            if value not in self.known:
                self.body.append(Random(value, bundle.ports[0].source))
                self.known.add(value)
        values = tuple(value_name(block, b) for b in kernel.results)
        self.body.append(Call(values, kernel.name, tuple(arguments_of(kernel))))
        self.known |= set(values)
        for bundle, value in zip(kernel.results, values, strict=True):
            self.follow(block, bundle, value)

    def follow(self, block: str, bundle: Bundle, value: str) -> None:
        if bundle.role == "buffers":
            self.body.append(Write(value))
        elif bundle.role in METRIC_ROLES:
            self.body += _records(self.problems[block], bundle, value, self.metrics)
        elif bundle.role == "target" and self.problems[block].by_formula and self.active.trains(block):
            self.gradients.setdefault(block, [])  # the solver's own kernel makes them, of the target
            self.aims[block] = value
        elif bundle.role == "factors":
            self.factors.setdefault(block, []).append(value)
        elif bundle.role == "gradients":
            for owner in self.owners(block, bundle):
                self.gradients.setdefault(owner, []).append(value)

    def owners(self, block: str, bundle: Bundle) -> list[str]:
        """The active blocks whose optimizers step these parameters: this one, and the owners of borrowed ones."""
        names = {port.source for port in bundle.ports}
        head = any(n.startswith(f"heads.{block}.") for n in names)
        return [
            b
            for b in filter(self.active.trains, self.graph.nodes)
            if names & set(self.graph.nodes[b]["parameters"]) or (head and b == block)
        ]


def value_name(block: str, bundle: Bundle) -> str:
    """Return the plan's name for one result or random argument of a block's kernel."""
    if bundle.role in ("output", "cotangent"):
        return bundle.name
    return f"{block}.{bundle.name}"


def _records(
    problem: LocalProblem, bundle: Bundle, value: str, metrics: Sequence[str]
) -> list[Instruction]:
    """Record a loss or metric; a classifying block's loss also as the perplexity, where that is asked for."""
    name = bundle.ports[0].source
    records: list[Instruction] = [Record(f"{problem.block}.{name}", value)]
    if name == "loss" and "perplexity" in metrics and [loss.has_perplexity for loss in problem.losses] == [True]:
        records.append(Record(f"{problem.block}.perplexity", value))
    return records


def arguments_of(kernel: Kernel) -> list[str]:
    """Return the values that a call lists: everything but state and seeds."""
    return [
        b.name if b.role in ("input", "cotangent") else f"{kernel.block}.{b.name}"
        for b in kernel.arguments
        if b.role not in ("state", "seed")
    ]


def _all(kernels: Mapping[str, Kernels], kinds: Iterable[str]) -> list[Kernel]:
    return [k for entry in kernels.values() for kind in kinds if (k := getattr(entry, kind)) is not None]


def _fields(kernels: Iterable[Kernel]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The values that no kernel computes are batch fields; their value name is the field's name."""
    kernels = list(kernels)
    computed = {value_name(k.block, b) for k in kernels for b in k.results}
    wanted: dict[str, None] = {}
    for kernel in kernels:
        for bundle in kernel.arguments:
            if bundle.role == "input" and bundle.name not in computed:
                wanted.setdefault(bundle.name)
    return tuple(wanted), tuple(wanted)


def _forward_only(
    problems: Mapping[str, LocalProblem],
    kernels: Mapping[str, Kernel],
    metrics: Sequence[str],
) -> list[Instruction]:
    body: list[Instruction] = []
    for block, kernel in kernels.items():
        values = tuple(value_name(block, b) for b in kernel.results)
        if not values:
            continue
        randoms = [b for b in kernel.arguments if b.role == "random"]
        body += [Random(value_name(block, b), b.ports[0].source) for b in randoms]
        body.append(Call(values, kernel.name, tuple(arguments_of(kernel))))
        for bundle, value in zip(kernel.results, values, strict=True):
            if bundle.role in METRIC_ROLES:
                body += _records(problems[block], bundle, value, metrics)
    return body


def _with_early_updates(
    body: list[Instruction], writer: _Writer, updates: Mapping[str, list[Instruction]]
) -> list[Instruction]:
    """Put each update right after the last call that makes its gradients or reads its parameters."""
    after: dict[int, list[Instruction]] = {}
    for block, bundles in writer.gradients.items():
        made = [*bundles, *([writer.aims[block]] if block in writer.aims else [])]
        last = max(i for i, ins in enumerate(body) if isinstance(ins, Call) and _touches(ins, block, made, writer))
        while last + 1 < len(body) and isinstance(body[last + 1], Record | Write):
            last += 1
        after.setdefault(last, []).extend(updates[block])
    placed: list[Instruction] = []
    for index, instruction in enumerate(body):
        placed.append(instruction)
        placed += after.get(index, [])
    return placed


def _touches(call: Call, block: str, bundles: list[str], writer: _Writer) -> bool:
    if set(call.values) & set(bundles):
        return True
    owned = set(writer.graph.nodes[block]["parameters"])
    kernel = _kernel_named(writer.kernels, call.kernel)
    return any(p.source in owned for b in kernel.arguments if b.role == "state" for p in b.ports)


def _kernel_named(kernels: Mapping[str, Kernels], name: str) -> Kernel:
    return next(k for k in _all(kernels, ("local", "forward", "backward", "predict")) if k.name == name)


def _clipped_updates(
    norm: float, writer: _Writer, updates: Mapping[str, list[Instruction]]
) -> list[Instruction]:
    every = tuple(dict.fromkeys(g for bundles in writer.gradients.values() for g in bundles))
    found = [instruction for own in updates.values() for instruction in own]
    corrections = [i for i in found if isinstance(i, Correct)]
    return [*corrections, Clip(every, norm), *(i for i in found if not isinstance(i, Correct))]
