"""Which kernels does a plan need? Every block's training and inference steps, for the device at hand and for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx
import torch
from torch import Tensor, fx

from lpc.compiler.asking import asking
from lpc.compiler.blocks import BlockModule, extract, outside_readers
from lpc.compiler.capture.cut import exact_forward_and_backward, forward_and_backward, slice_kernel
from lpc.compiler.capture.design import UnlikeProductError
from lpc.compiler.capture.joint import (
    CaptureTarget,
    Inputs,
    LocalGraph,
    arrival_of,
    trace_inference,
)
from lpc.compiler.capture.missed import ensure_judged
from lpc.compiler.capture.precision import autocast_types
from lpc.compiler.capture.probes import Probing
from lpc.compiler.capture.relaxed_kernels import relaxed_kernels
from lpc.compiler.capture.solved import trace_solve
from lpc.compiler.capture.split import split_kernels
from lpc.compiler.capture.steps import trace_training
from lpc.compiler.capture.target import leading
from lpc.compiler.capture.twins import Form, Translation, form_of, twin_of
from lpc.compiler.capture.twins import Step as TwinStep
from lpc.compiler.capture.types import dtype_of, tensor_types
from lpc.compiler.correction import Corrections
from lpc.compiler.coupling import coupling
from lpc.compiler.formulas import misfit
from lpc.compiler.frontend.device import on_device
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.localize import Arrival, LocalProblem, credit_of, error_of, tangent_of
from lpc.compiler.modes import same_in_both
from lpc.compiler.negatives import Hard, NegativeKernels
from lpc.compiler.objective import output_node
from lpc.compiler.probing import ProbeKernels
from lpc.compiler.readouts import Probe
from lpc.compiler.refresh import ExactKernels
from lpc.compiler.relaxation import RelaxKernels
from lpc.compiler.schedule import Kernels
from lpc.compiler.split_schedule import SplitKernels
from lpc.compiler.state import named_state
from lpc.compiler.variables import Variables
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.plan import Noise

EVALUATION = ("output", "loss", "metric")
MODES = ("train", "eval")
TRAINING = ("output", "loss", "metric", "gradients", "factors", "cotangent", "buffers", "target")


@dataclass(frozen=True)
class Captured:
    """All native kernels of a plan by block, those by name that must differ elsewhere, the noise they draw, and
    what was found on the way."""

    native: dict[str, Kernels]
    portable: dict[str, Kernel]
    noise: dict[str, Noise]
    warnings: tuple[str, ...]
    state: dict[str, Tensor]
    kept: Mapping[str, str]
    stamps: Mapping[str, str]
    exact: Mapping[str, ExactKernels]
    probed: Mapping[str, ProbeKernels]
    negatives: NegativeKernels | None = None
    relaxed: Mapping[str, RelaxKernels] = field(default_factory=dict)
    split: Mapping[str, SplitKernels] = field(default_factory=dict)


def capture(
    spec: Spec,
    traced: Traced,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    fields: Mapping[str, TensorType],
    targets: tuple[CaptureTarget, CaptureTarget | None],
    corrected: Corrections | None = None,
    probes: Mapping[str, Probe] | None = None,
    hard: Hard | None = None,
    variables: Variables | None = None,
) -> Captured:
    """Capture every block, last block first: a producer must know which cotangents come back to it.

    `targets` are the native one and, where the plan must run elsewhere too, the portable one, for which
    only the steps with device-specific operators are captured again.
    """
    watched = _watched(probes or {})
    worker = _Capture(spec, traced, graph, problems, fields, targets[0], watched, variables)
    steps = {(b, mode): worker.kernels(b, mode) for b in reversed(list(graph.nodes)) for mode in MODES}
    further: dict[str, RelaxKernels | SplitKernels] = {**worker.relaxed, **worker.split}
    made = {**steps, **{(b, "train"): {k.name: k for k in found.every} for b, found in further.items()}}
    bound = [step for step, kernels in made.items() if any(k.device != "any" for k in kernels.values())]
    portable: dict[str, Kernel] = {}
    if targets[1] is not None and bound:
        elsewhere = _Capture(spec, traced, graph, problems, fields, targets[1], watched, variables)
        elsewhere.sent = worker.sent
        for block, mode in bound:
            portable |= {k.name: k for k in elsewhere.kernels(block, mode).values()}
        stepping: list[RelaxKernels | SplitKernels] = [*elsewhere.relaxed.values(), *elsewhere.split.values()]
        portable |= {k.name: k for found in stepping for k in found.every}
    exact: dict[str, ExactKernels] = {}
    if corrected is not None:
        exact = _exact(spec, traced, graph, corrected, fields, targets[0])
        bound_exact = [k for kernels in exact.values() for k in kernels.every if k.device != "any"]
        if targets[1] is not None and bound_exact:
            others = _exact(spec, traced, graph, corrected, fields, targets[1])
            portable |= {k.name: k for kernels in others.values() for k in kernels.every}
    probed = {name: worker.probe(probe) for name, probe in (probes or {}).items()}
    negatives = worker.negatives(hard, probed[hard.predictor]) if hard is not None else None
    return Captured(
        {b: Kernels(**steps[b, "train"], **steps[b, "eval"]) for b in graph.nodes},
        portable,
        worker.noise,
        tuple(worker.warnings),
        worker.state,
        worker.kept,
        worker.stamps,
        exact,
        probed,
        negatives,
        worker.relaxed,
        worker.split,
    )


def _watched(probes: Mapping[str, Probe]) -> dict[str, frozenset[str]]:
    """Return by mode the nodes that must leave their blocks because a probe reads them."""
    own = {n for p in probes.values() if not p.overlays for n in p.features["train"]}
    return {"train": frozenset(own), "eval": frozenset(n for p in probes.values() for n in p.features["eval"])}


def _exact(
    spec: Spec,
    traced: Traced,
    graph: nx.DiGraph[str],
    corrected: Corrections,
    fields: Mapping[str, TensorType],
    target: CaptureTarget,
) -> dict[str, ExactKernels]:
    """Capture backpropagation through every block that it must go through."""
    worker = _Capture(spec, traced, graph, corrected.exact, fields, target)
    ways = {refresh.recompute for refresh in corrected.refreshes}
    found = {block: worker.exact_kernels(block, ways) for block in reversed(list(graph.nodes))}
    return {block: kernels for block, kernels in reversed(found.items()) if kernels.every}


def kernels_of(kernels: Kernels) -> list[Kernel]:
    """Return the kernels of a block that exist."""
    every = (kernels.local, kernels.forward, kernels.backward, kernels.solve, kernels.eval, kernels.predict)
    return [k for k in every if k is not None]


class _Capture:
    def __init__(
        self,
        spec: Spec,
        traced: Traced,
        graph: nx.DiGraph[str],
        problems: Mapping[str, LocalProblem],
        fields: Mapping[str, TensorType],
        target: CaptureTarget,
        watched: Mapping[str, frozenset[str]] | None = None,
        variables: Variables | None = None,
    ) -> None:
        self.variables = variables or Variables()
        self.relaxed: dict[str, RelaxKernels] = {}
        self.split: dict[str, SplitKernels] = {}
        self.known: dict[str, list[tuple[Form, dict[str, Kernel]]]] = {mode: [] for mode in MODES}
        self.unlike: set[str] = set()  # blocks of which something was told by name
        self.watched = watched or dict.fromkeys(MODES, frozenset[str]())
        self.spec, self.traced, self.graph, self.problems, self.target = spec, traced, graph, problems, target
        for network in self.graphs().values():
            on_device(network, target.device)
        self.aliases = traced.tied
        self.noise: dict[str, Noise] = {}
        self.warnings: list[str] = []
        self.state: dict[str, Tensor] = {}
        self.kept: dict[str, str] = {}
        self.stamps: dict[str, str] = {}
        self.sent: set[Arrival] = set()
        self.both: dict[str, LocalGraph] = {}
        self.types = {mode: autocast_types(g, _types(g, fields), target) for mode, g in self.graphs().items()}
        self.types["train"] |= self.types_between()
        self.modules = {mode: self.block_modules(mode) for mode in self.graphs()}
        self.differentiable = self.find_differentiable()

    def types_between(self) -> dict[str, tuple[torch.dtype, tuple[int | str, ...]]]:
        """Types of what blocks send each other besides values and their cotangents."""
        types, number = self.types["train"], dtype_of(self.spec.run.dtype)
        found: dict[str, tuple[torch.dtype, tuple[int | str, ...]]] = {}
        for block, problem in self.problems.items():
            passes = range(int(problem.estimator.options.get("passes", 1)))
            found |= {tangent_of(value, i): types[value] for value in problem.moves_in for i in passes}
            found |= {credit_of(block, i).value: (number, ("B",)) for i in passes}
        output = self.graph.graph["output_block"]
        return found | {error_of(output).value: types[output_node(self.traced.train).name]}

    def graphs(self) -> dict[str, fx.GraphModule]:
        return {"train": self.traced.train, "eval": self.traced.eval}

    def block_modules(self, mode: str) -> dict[str, BlockModule]:
        network = self.graphs()[mode]
        modules = {}
        for block, attributes in self.graph.nodes(data=True):
            nodes = attributes["nodes"][mode]
            outputs = list(outside_readers(network, nodes))
            feature = self.problems[block].feature[mode]
            if feature not in outputs:
                outputs.append(feature)
            modules[block] = extract(network, nodes, outputs)
        return modules

    def find_differentiable(self) -> frozenset[str]:
        """Values whose producers want a cotangent: they, or a block that reaches them by gradient links, learn."""
        found: set[str] = set()
        for block in self.graph.nodes:
            problem = self.problems[block]
            if problem.trainable or problem.moves or any(v in found for v in problem.sends):
                found |= {arrival.value for arrival in problem.receives}
        return frozenset(found)

    def kernels(self, block: str, mode: str) -> dict[str, Kernel]:
        """Trace a block's step in a mode once and return the kernels cut out of it, by their field in `Kernels`.

        A step that is like another but for names is not traced again.
        """
        form = self.form(block, mode)
        twin = twin_of(form, self.known[mode]) if form is not None else None
        if form is not None and twin is not None:
            translation = Translation.between(twin[0], form)
            if mode == "train":
                self.take_over(translation)
            return {kind: translation.kernel(kernel) for kind, kernel in twin[1].items()}
        before = len(self.noise)
        with asking(self.spec, block):
            made = self.training_kernels(block) if mode == "train" else self.inference_kernels(block)
        if form is not None and len(self.noise) == before and block not in self.unlike and form.covers(made.values()):
            self.known[mode].append((form, made))
        return made

    def form(self, block: str, mode: str) -> Form | None:
        problem, receives = self.problems[block], self.receives(block) if mode == "train" else ()
        sent = self.differentiable & problem.sends.keys() if mode == "train" else frozenset[str]()
        leaving = self.leaving(block, mode)
        module, types = self.modules[mode][block], self.types[mode]
        return form_of(TwinStep(problem, module, types, receives, sent, leaving, self.aliases, mode))

    def take_over(self, translation: Translation) -> None:
        """Send what a twin sends, and solve variables as it does."""
        sent = [a for a in self.sent if a.consumer == translation.source and a.value in translation.names]
        self.sent |= {translation.arrival(a) for a in sent}
        if translation.source in self.relaxed:
            self.relaxed[translation.target] = translation.relaxed(self.relaxed[translation.source])

    def training_kernels(self, block: str) -> dict[str, Kernel]:
        training = self.training(block)
        ensure_judged(self.spec, self.problems[block], self.modules["train"][block], training.unreached, self.aliases)
        self.remember(training)
        modes = (self.modules["train"][block], self.modules["eval"][block])
        if not (training.random or training.drawn) and same_in_both(*modes, self.problems[block]):
            self.both[block] = training
        leaving, problem = self.leaving(block, "train"), self.problems[block]
        if problem.split is not None:
            self.split[block] = split_kernels(training, problem.split)
            return {}
        if self.variables:
            self.relaxed[block] = relaxed_kernels(training, problem, leaving, self.variables)
            return {}
        further = problem.optimizer is not None and (problem.optimizer.steps > 1 or problem.by_formula)
        again = self.solving(block) if problem.target is not None and further else training
        solve = {"solve": slice_kernel(again, "solve", (), ("gradients",))} if further else {}
        if self.waits(block):
            return self.cut(training, leaving, problem.memory == "recompute") | solve
        learns = any(slot.role in ("gradients", "cotangent") for slot in training.results)
        kind = "local" if learns else "forward"
        return {kind: slice_kernel(training, kind, leaving, TRAINING)} | solve

    def solving(self, block: str) -> LocalGraph:
        """Trace the gradient of the problem that a target makes."""
        problem = self.problems[block]
        lead = leading(problem, self.traced.train, self.graph.nodes[block]["nodes"]["train"])
        try:
            local = trace_solve(lead, Inputs(self.types["train"]), self.aliases, self.target)
        except UnlikeProductError as error:
            raise misfit(self.spec, block, str(error)) from error
        self.ensure_thins(problem, bool(local.random))
        self.remember(local)
        return local

    def ensure_thins(self, problem: LocalProblem, draws: bool) -> None:
        """Refuse to take some samples of what has no axis of samples, or of noise (0434)."""
        target = problem.target
        if target is None or target.every == 1:
            return
        reason = "draws noise for whole batches" if draws else "computes rows that are no samples"
        if draws or self.types["train"][target.node][1][:1] != ("B",):
            message = f"block `{problem.block}` {reason}, and `every={target.every}` takes some samples"
            raise LpcError(Diagnostic("0434", message, span=self.spec.origin("decompose", "links")))

    def exact_kernels(self, block: str, ways: set[bool]) -> ExactKernels:
        """Return what backpropagation needs of a block: `ways` tell whether it recomputes, or keeps residuals."""
        with asking(self.spec, block):
            training = self.training(block)
        if not any(slot.role in ("gradients", "cotangent") for slot in training.results):
            return ExactKernels()
        vjp = slice_kernel(training, "exact_vjp", (), ("gradients", "cotangent")) if True in ways else None
        forward, backward = exact_forward_and_backward(training) if False in ways else (None, None)
        return ExactKernels(vjp, forward, backward)

    def probe(self, probe: Probe) -> ProbeKernels:
        """Return the kernels of a readout, or of prediction by label."""
        probing = Probing(self.graphs(), self.types, self.spec.run.metrics, self.target)
        with asking(self.spec, probe.name):
            kernels, traced = probing.kernels(probe)
        self.remember(*traced)
        for name, tensor in probe.problem.heads.state().items():
            self.state.setdefault(f"heads.{probe.name}.{name}", tensor)
        return kernels

    def negatives(self, hard: Hard, predicting: ProbeKernels) -> NegativeKernels:
        """Return the kernels that make hard negatives of what a probe predicts."""
        probing = Probing(self.graphs(), self.types, self.spec.run.metrics, self.target)
        with asking(self.spec, hard.predictor):
            kernels, traced = probing.negatives(hard, predicting)
        self.remember(traced)
        return kernels

    def inference_kernels(self, block: str) -> dict[str, Kernel]:
        inference = self.both.get(block) or self.inference(block)
        self.remember(inference)
        leaving = self.leaving(block, "eval")
        output = output_node(self.traced.eval).name
        shown = [*leaving, output] if block == self.graph.graph["output_block"] else leaving
        return {
            "eval": slice_kernel(inference, "eval", leaving, EVALUATION),
            "predict": slice_kernel(inference, "predict", shown, ("output",)),
        }

    def cut(self, training: LocalGraph, leaving: Sequence[str], recompute: bool) -> dict[str, Kernel]:
        kernels = forward_and_backward(training, leaving, recompute, self.spec.run.memory == "summed")
        return dict(zip(("forward", "backward"), kernels, strict=True))

    def waits(self, block: str) -> bool:
        """Must the backward part wait, for a cotangent or (summed) for the other blocks' forwards?"""
        return bool(self.receives(block)) or self.spec.run.memory == "summed"

    def receives(self, block: str) -> tuple[Arrival, ...]:
        return tuple(arrival for arrival in self.problems[block].receives if arrival in self.sent)

    def training(self, block: str) -> LocalGraph:
        problem = replace(self.problems[block], receives=self.receives(block), coupled=self.coupled(block))
        learns = problem.losses or problem.receives or problem.makes or self.lends(block)
        if problem.optimizer is not None and not learns:
            raise LpcError(
                Diagnostic(
                    "0408",
                    f"block `{block}` never learns: no loss reaches it through the blocks after it",
                    span=self.spec.origin("decompose", "links"),
                )
            )
        local = trace_training(
            problem,
            self.modules["train"][block],
            Inputs(self.types["train"]),
            self.spec.run.metrics,
            self.aliases,
            self.differentiable & problem.sends.keys(),
            self.target,
        )
        self.sent |= {arrival_of(slot) for slot in local.results if slot.role == "cotangent"}
        return local

    def lends(self, block: str) -> bool:
        """Do other blocks' gradients step parameters of this one?"""
        own = set(self.graph.nodes[block]["parameters"])
        others = (self.graph.nodes[b]["borrowed"] for b in self.graph.nodes if self.spec.decompose.shared == "sum")
        return any(not own.isdisjoint(borrowed) for borrowed in others)

    def coupled(self, block: str) -> tuple[str, ...]:
        """Return what couples the samples, or may, in blocks whose credit a block takes by sample."""
        modules, types = self.modules["train"], self.types["train"]
        found = (coupling(modules[b], types) for b in self.problems[block].credits)
        return tuple(told for told in found if told is not None)

    def inference(self, block: str) -> LocalGraph:
        return trace_inference(
            self.problems[block],
            self.modules["eval"][block],
            Inputs(self.types["eval"]),
            self.spec.run.metrics,
            self.aliases,
            self.target,
        )

    def leaving(self, block: str, mode: str) -> list[str]:
        own = self.graph.nodes[block]["nodes"][mode]
        readers = {v for b, m in self.modules[mode].items() if b != block for v in m.inputs} | self.watched[mode]
        leaving = [v for v in self.modules[mode][block].outputs if v in readers and v in own]
        return leaving + (list(self.tangents(block)) if mode == "train" else [])

    def tangents(self, block: str) -> tuple[str, ...]:
        """Names of the tangents that a block hands on."""
        problem = self.problems[block]
        passes = range(int(problem.estimator.options.get("passes", 1)))
        return tuple(tangent_of(value, i) for value in problem.moves_out for i in passes)

    def remember(self, *locals_: LocalGraph) -> None:
        for local in locals_:
            for noise in (*(lifted.noise for lifted in local.random), *local.drawn):
                self.noise[noise.site] = noise
            self.state |= local.kept
            self.kept |= dict.fromkeys(local.kept, local.block)
            if local.stamp:
                self.stamps[local.block] = local.stamp
            if local.unreached or local.kept or local.stamp:
                self.unlike.add(local.block)
            for name in local.unreached:
                remedy = f'say so by `{{params: "{name}", train: false}}`'
                text = f"block {local.block}: no loss reaches `{name}`; it is not trained: {remedy}"
                if text not in self.warnings:
                    self.warnings.append(text)
        for mode in self.modules.values():
            for module in mode.values():
                for name, tensor in named_state(module.module).items():
                    self.state.setdefault(self.aliases.get(name, name), tensor)
        for block, problem in self.problems.items():
            for name, tensor in problem.heads.own().items():
                self.state.setdefault(f"heads.{block}.{name}", tensor)


def _types(
    network: fx.GraphModule, fields: Mapping[str, TensorType]
) -> dict[str, tuple[torch.dtype, tuple[int | str, ...]]]:
    """Types of all that a block may read: batch fields, and every tensor of the network's graph."""
    return {name: (dtype_of(t.dtype), t.shape) for name, t in fields.items()} | tensor_types(network)
