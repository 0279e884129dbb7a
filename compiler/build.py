"""How does a spec become a plan? `PIPELINE`, in order, without branches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import networkx as nx
import safetensors.torch
import torch

from lpc.compiler.arithmetic import remembering
from lpc.compiler.capture.joint import CaptureTarget
from lpc.compiler.capture.stage import Captured, kernels_of
from lpc.compiler.capture.stage import capture as capture_blocks
from lpc.compiler.capture.types import tensor_type
from lpc.compiler.correction import Corrections, corrections
from lpc.compiler.doubtful import left_out, single_views
from lpc.compiler.factored import plain_notes
from lpc.compiler.formulas import idle_optimizers
from lpc.compiler.frontend.network import BuiltNetwork, build_network
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.frontend.trace import trace as trace_network
from lpc.compiler.isolation import declared_by_targets, declared_influence, ensure_isolated
from lpc.compiler.localize import LocalProblem
from lpc.compiler.localize import localize as localize_blocks
from lpc.compiler.moments import moment_notes
from lpc.compiler.negatives import Hard, hard_negatives
from lpc.compiler.objective import POSITIVE, output_node
from lpc.compiler.partition import partition as partition_network
from lpc.compiler.partition import to_data
from lpc.compiler.partition.frozen import frozen_notes, fuse_frozen
from lpc.compiler.phases import untrained
from lpc.compiler.probing import Probing
from lpc.compiler.readouts import Probe, probes
from lpc.compiler.rehearse import Rehearsed
from lpc.compiler.rehearse import rehearse as rehearse_blocks
from lpc.compiler.relaxation import INDEX
from lpc.compiler.schedule import Kernels, Sections
from lpc.compiler.schedule import schedule as schedule_blocks
from lpc.compiler.solvable import doubts, idle_memories, idle_weights
from lpc.compiler.splitting import split_layers
from lpc.compiler.trained import choose_trained
from lpc.compiler.units import idle_units
from lpc.compiler.variables import Variable, Variables, variables
from lpc.specs import canonical
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean, one_of
from lpc.specs.model import Spec
from lpc.specs.plan.instructions import Instruction, Record, Visit
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.optimizers import is_class, package
from lpc.specs.plan.plan import Plan, Program, StateEntry
from lpc.specs.plan.plan import Variable as PlanVariable
from lpc.specs.ranks.plan import unplaceable

T = TypeVar("T")


@dataclass(frozen=True)
class Build:
    """A plan in the making: each stage fills in one field."""

    spec: Spec
    allow: tuple[str, ...] = ()
    data_fields: Mapping[str, TensorType] = field(default_factory=dict)
    network: BuiltNetwork | None = None
    traced: Traced | None = None
    graph: nx.DiGraph[str] | None = None
    fields: Mapping[str, TensorType] = field(default_factory=dict)
    problems: Mapping[str, LocalProblem] = field(default_factory=dict)
    variables: Variables = field(default_factory=Variables)
    corrected: Corrections | None = None
    probes: Mapping[str, Probe] = field(default_factory=dict)
    hard: Hard | None = None
    rehearsed: Rehearsed = field(default_factory=Rehearsed)
    captured: Captured | None = None
    sections: Sections | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def network(build: Build) -> Build:
    """Make the nn.Module."""
    return replace(build, network=build_network(build.spec, build.allow))


def trace(build: Build) -> Build:
    """Trace it to fx graphs for training and evaluation."""
    return replace(build, traced=trace_network(_given(build.network), build.spec))


def partition(build: Build) -> Build:
    """Cut the graphs into blocks that learn."""
    traced = _given(build.traced)
    graph = partition_network(traced, build.spec)
    choose_trained(build.spec, _given(build.network).module, graph)
    graph = fuse_frozen(graph, build.spec, traced)
    graph.graph["output_value"] = output_node(traced.eval).name
    return replace(build, graph=graph)


def localize(build: Build) -> Build:
    """Give every block its objective and solver."""
    traced, graph = _given(build.traced), _given(build.graph)
    between, fields = variables(build.spec, traced, graph), batch_fields(build)
    layers = split_layers(build.spec, traced, graph)
    if between.cached or layers:
        fields.setdefault(INDEX, TensorType("int64", ("B",)))
    problems = localize_blocks(build.spec, traced, graph, fields, between, layers)
    found = probes(build.spec, traced, graph, problems, fields)
    return replace(
        build,
        fields=fields,
        problems=problems,
        variables=between,
        corrected=corrections(build.spec, traced, graph, problems),
        probes=found,
        hard=hard_negatives(build.spec, found, POSITIVE),
    )


def rehearse(build: Build) -> Build:
    """Run every block that estimates its gradient once, and prove its tangents."""
    rehearsed = rehearse_blocks(build.spec, _given(build.traced), _given(build.graph), build.problems)
    return replace(build, rehearsed=rehearsed)


def capture(build: Build) -> Build:
    """Capture every local step as kernels."""
    targets = capture_targets(build.spec)
    captured = capture_blocks(
        build.spec,
        _given(build.traced),
        _given(build.graph),
        build.problems,
        build.fields,
        targets,
        build.corrected,
        build.probes,
        build.hard,
        build.variables,
    )
    return replace(build, captured=captured)


def schedule(build: Build) -> Build:
    """Order the calls."""
    sections = schedule_blocks(
        build.spec,
        _given(build.graph),
        build.problems,
        _given(build.captured).native,
        build.corrected,
        _given(build.captured).exact,
        [Probing(probe, _given(build.captured).probed[name]) for name, probe in build.probes.items()],
        _given(build.captured).negatives,
        _given(build.captured).relaxed,
        build.variables,
        _given(build.captured).split,
    )
    return replace(build, sections=sections)


PIPELINE: tuple[Callable[[Build], Build], ...] = (network, trace, partition, localize, rehearse, capture, schedule)


def build_plan(spec: Spec, *, allow: Sequence[str] = (), fields: Mapping[str, TensorType] | None = None) -> Plan:
    """Build the plan of a spec.

    `fields` are the types of what the data source yields, batch axis (`B`) first; `allow` lists packages or paths that
    `module:` may import besides the default ones. Raises LpcError for anything the user can mend.
    """
    build = run_pipeline(Build(spec, tuple(allow), dict(fields or {})))
    plan = assemble(build)
    if wrong := unplaceable(plan, spec):
        raise LpcError(wrong)
    graph, problems = _given(build.graph), learning(build)
    ensure_isolated(plan, declared_influence(graph, problems), declared_by_targets(graph, build.problems))
    return plan


def run_pipeline(build: Build, stages: Sequence[Callable[[Build], Build]] = PIPELINE) -> Build:
    """Run the stages, timing each."""
    with remembering():
        for stage in stages:
            start = time.perf_counter()
            build = stage(build)
            build = replace(build, seconds={**build.seconds, stage.__name__: time.perf_counter() - start})
    return build


def batch_fields(build: Build) -> dict[str, TensorType]:
    """Types of all batch fields, batch axis first: the network's inputs, the declared ones, the data's."""
    traced, spec = _given(build.traced), build.spec
    fields = {
        node.name: tensor_type(node.meta["val"], traced.train.meta["symbols"])
        for node in traced.train.graph.nodes
        if node.op == "placeholder"
    }
    _inputs_held(build, list(fields))
    for name, tensor in spec.fields.items():
        fields.setdefault(name, TensorType(tensor.dtype, ("B", *tensor.shape)))
    for name, given in build.data_fields.items():
        fields.setdefault(name, given)
    clash = next((n for n in traced.train.graph.nodes if n.op != "placeholder" and n.name in fields), None)
    if clash is not None:
        message = f"the layer `{clash.name}` has the name of a batch field"
        raise LpcError(Diagnostic("0409", message, span=spec.origin(*clash.meta.get("spec", ("network",)), "name")))
    return fields


def _inputs_held(build: Build, inputs: Sequence[str]) -> None:
    """Refuse a network whose inputs the data do not have, before a loss is blamed for what is left over."""
    held, spec = build.data_fields, build.spec
    for name in inputs:
        if held and name not in held:
            message = f"the network's input `{name}` is no field of the data"
            span = spec.key_origin("network", "inputs", name)
            notes = (f"they have {one_of(sorted(held))}",)
            raise LpcError(Diagnostic("0605", message, span, notes=notes, help=did_you_mean(name, held)))


def capture_targets(spec: Spec) -> tuple[CaptureTarget, CaptureTarget | None]:
    """Return the native target and the additional portable one that `run.target` asks for."""
    cpu, precision = torch.device("cpu"), spec.run.precision
    wanted = spec.run.target
    if wanted == "portable":
        return CaptureTarget(cpu, True, precision), None
    if wanted == "cuda" and not torch.cuda.is_available():
        raise LpcError(
            Diagnostic(
                "0411",
                "`run.target: cuda` needs a CUDA device to build on, and this machine has none",
                span=spec.origin("run", "target"),
            )
        )
    kind = "cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu"
    native = CaptureTarget(torch.device(kind), False, precision)
    return native, CaptureTarget(cpu, True, precision) if wanted == "auto" else None


def assemble(build: Build) -> Plan:
    """Put everything that a run needs into a plan."""
    captured, made = _given(build.captured), program(build)
    tensors = {n: captured.state[n].detach().contiguous() for n in sorted(made.state)}
    return Plan(
        spec=canonical(build.spec),
        target=plan_target(build.spec),
        program=made,
        partition=to_data(_given(build.graph)),
        kernels=kernels_by_name(build),
        weights=safetensors.torch.save(tensors),
        torch=torch.__version__.split("+")[0],
        report=report(build),
    )


def kernels_by_name(build: Build) -> dict[str, dict[str, Kernel]]:
    """Return all kernels by target and name."""
    captured = _given(build.captured)
    exact = {k.name: k for kernels in captured.exact.values() for k in kernels.every}
    probed = {k.name: k for kernels in captured.probed.values() for k in kernels.every}
    made = {k.name: k for k in captured.negatives.every} if captured.negatives is not None else {}
    relaxed = {k.name: k for kernels in captured.relaxed.values() for k in kernels.every}
    split = {k.name: k for kernels in captured.split.values() for k in kernels.every}
    kernels = {"native": {**_by_name(captured.native), **exact, **probed, **made, **relaxed, **split}}
    return {**kernels, "portable": captured.portable} if captured.portable else kernels


def program(build: Build) -> Program:
    """Return the sections of instructions and their tables."""
    captured, sections = _given(build.captured), _given(build.sections)
    return Program(
        step=sections.step,
        evaluate=sections.evaluate,
        predict=sections.predict,
        fields=dict(build.fields),
        noise=captured.noise,
        optimizers={b: p.optimizer for b, p in learning(build).items() if p.optimizer is not None},
        state=state_entries(build),
        metrics={
            name: "exp_mean" if name.endswith(".perplexity") else "mean"
            for name in _metrics((*sections.step, *(i for p in sections.phases for i in p.step), *sections.evaluate))
        },
        phases=sections.phases,
        corrections=dict(build.corrected.by_block) if build.corrected is not None else {},
        variables=plan_variables(build),
        laws=build.variables.laws(build.spec.run.dtype),
    )


def plan_variables(build: Build) -> dict[str, PlanVariable]:
    """Return the program's table of auxiliary variables."""
    known = _variable_types(build)
    found = {v.name: _variable(v, known[v.value]) for v in build.variables.every.values()}
    layers = [problem.split for problem in build.problems.values() if problem.split is not None]
    types = _types_of(build, [node for layer in layers for node in layer.variables.values()])
    solved = ((layer, name, node) for layer in layers for name, node in layer.variables.items())
    return found | {n: PlanVariable(n, node, layer.block, (n,), "", {}, types[node]) for layer, n, node in solved}


def _variable(variable: Variable, kind: TensorType) -> PlanVariable:
    return PlanVariable(
        variable.name, variable.value, variable.producer, variable.boundaries, variable.optimizer,
        dict(variable.options), kind, variable.state,
    )  # fmt: skip


def _variable_types(build: Build) -> dict[str, TensorType]:
    """Return the types of the values that variables stand for."""
    return _types_of(build, list(build.variables.every))


def _types_of(build: Build, values: Sequence[str]) -> dict[str, TensorType]:
    traced = _given(build.traced).train
    nodes = {n.name: n for n in traced.graph.nodes}
    symbols = traced.meta.get("symbols", {})
    return {name: tensor_type(nodes[name].meta["val"], symbols) for name in values}


def learning(build: Build) -> dict[str, LocalProblem]:
    """Return the problems of all blocks and readouts."""
    return {**build.problems, **{name: probe.problem for name, probe in build.probes.items()}}


def plan_target(spec: Spec) -> str:
    native, _ = capture_targets(spec)
    return "portable" if native.portable else native.device.type


def report(build: Build) -> dict[str, Any]:
    """What a reader of the plan should know of how it came to be; nothing that varies between builds."""
    traced, captured = _given(build.traced), _given(build.captured)
    named = {o.name for p in learning(build).values() if (o := p.optimizer) is not None and is_class(o.name)}
    libraries = sorted({package(name) for name in named} - {"torch"})
    return {
        **({"libraries": libraries} if libraries else {}),
        "rung": traced.rung,
        "obstacles": list(traced.obstacles),
        "notes": [
            *left_out(_given(build.network).module, captured.state, traced.tied),
            *frozen_notes(_given(build.graph)),
            *idle_weights(build.variables, build.problems),
            *idle_memories(build.variables),
            *moment_notes(build.problems),
            *idle_optimizers(build.spec, build.problems),
            *idle_units(build.spec, [b for b, p in build.problems.items() if p.units.split]),
            *plain_notes({b: p.optimizer for b, p in build.problems.items() if p.optimizer is not None}),
        ],
        "warnings": [
            *single_views(build.spec),
            *build.rehearsed.warnings,
            *captured.warnings,
            *untrained(build.spec, build.problems, list(build.probes.values())),
            *doubts(build.spec, build.variables, build.problems, _variable_types(build)),
        ],
        "estimators": {b: captured.stamps[b] for b in _given(build.graph).nodes if b in captured.stamps},
        "tangents": {block: str(proof) for block, proof in build.rehearsed.proofs.items()},
    }


def state_entries(build: Build) -> dict[str, StateEntry]:
    """Describe every tensor of the state: kind, owning block, type, tied names."""
    module, captured = _given(build.network).module, _given(build.captured)
    tied = _given(build.traced).tied
    persistent = set(module.state_dict())
    parameters = {n for n, t in captured.state.items() if isinstance(t, torch.nn.Parameter)}
    owners = _owners(build)
    entries = {}
    for name, tensor in captured.state.items():
        head = name.startswith("heads.")
        own = head or name in persistent or name in captured.kept
        kind = "parameter" if name in parameters else "buffer" if own else "constant"
        entries[name] = StateEntry(
            name,
            kind,
            owners.get(name, ""),
            tensor_type(tensor, {}),
            bool(tensor.requires_grad),
            tuple(sorted(alias for alias, canonical_name in tied.items() if canonical_name == name)),
        )
    return entries


def _owners(build: Build) -> dict[str, str]:
    owners: dict[str, str] = {}
    for block, attributes in _given(build.graph).nodes(data=True):
        for name in (*attributes["parameters"], *attributes["buffers"]):
            owners.setdefault(name, block)
    owners |= _given(build.captured).kept
    for block, problem in learning(build).items():
        owners |= {f"heads.{block}.{name}": block for name in problem.heads.own()}
    return owners


def _by_name(kernels: Mapping[str, Kernels]) -> dict[str, Kernel]:
    return {k.name: k for entry in kernels.values() for k in kernels_of(entry)}


def _metrics(instructions: Sequence[Instruction]) -> list[str]:
    names: dict[str, None] = {}
    for instruction in instructions:
        if isinstance(instruction, Record):
            names.setdefault(instruction.metric)
        if isinstance(instruction, Visit):
            names.update(dict.fromkeys(instruction.metrics))
        names.update(dict.fromkeys(_metrics(getattr(instruction, "body", ()))))
    return list(names)


def _given(value: T | None) -> T:
    assert value is not None, "a stage ran before the one that it needs"
    return value
