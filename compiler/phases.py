"""What learns in each phase of a run, and what must run forward for it?

A block that learns runs as in training. One that does not is finished, or its turn is still to come: it runs as in
evaluation where something that learns reads it, and not at all elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from lpc.compiler.localize import LocalProblem, is_tangent
from lpc.compiler.readouts import Probe
from lpc.specs.check_phases import READOUTS, trained
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.model import Phase, Spec
from lpc.specs.plan.kernel import Bundle, Kernel


@dataclass(frozen=True)
class Active:
    """What one step trains, blocks and readouts by name, and the other blocks that it runs, in evaluation mode."""

    named: tuple[str, ...]
    shown: frozenset[str] = frozenset()

    def trains(self, name: str) -> bool:
        """Does this block or readout learn?"""
        return name in self.named


def everything(problems: Mapping[str, LocalProblem], probes: Sequence[Probe]) -> Active:
    """Return a step in which everything learns."""
    return Active((*problems, *_learners(probes)))


def phases_of(
    spec: Spec, graph: nx.DiGraph[str], problems: Mapping[str, LocalProblem], probes: Sequence[Probe]
) -> list[Active]:
    """Return what is active in each phase of the spec. Raises LpcError (0432) for one that trains nothing."""
    found = []
    for index, phase in enumerate(spec.run.phases):
        _ensure_matched(spec, index, [*problems, *graph.graph.get("fused", ())], probes)
        named = trained(phase, list(problems), _learners(probes))
        if not any(name not in problems or problems[name].optimizer is not None for name in named):
            raise _refusal(spec, index, "trains nothing: no parameter of these blocks is trained")
        found.append(Active(named, _shown(graph, named, probes)))
    return found


def ensure_closed(spec: Spec, index: int, active: Active, kernels: Mapping[str, Sequence[Kernel]]) -> None:
    """Refuse a phase in which a block waits for another one that does not learn (0432).

    What it waits for is the gradient of a block behind, or the directions of a block before it.
    """
    senders = {
        bundle.name: block for block, own in kernels.items() for kernel in own
        for bundle in kernel.results if _of_learning(bundle)
    }  # fmt: skip
    for block in filter(active.trains, kernels):
        wanted = [b.name for k in kernels[block] for b in k.arguments if _of_learning(b)]
        others = [senders[name] for name in wanted if name in senders and not active.trains(senders[name])]
        if others:
            message = f"trains `{block}`, which learns through `{others[0]}`, and does not train that"
            raise _refusal(spec, index, message, f"add `{others[0]}` to its `train`, or make the link `stop`")


def _of_learning(bundle: Bundle) -> bool:
    """Does a bundle hold what blocks in evaluation do not send?"""
    return bundle.role == "cotangent" or is_tangent(bundle.name)


def ensure_corrected(
    spec: Spec, index: int, active: Active, graph: nx.DiGraph[str], corrected: Mapping[str, object]
) -> None:
    """Refuse a phase whose offsets would be measured through blocks that do not learn (0432)."""
    block = next(filter(active.trains, corrected), None)
    other = next((b for b in graph.nodes if not active.trains(b)), None)
    if block is not None and other is not None:
        message = f"corrects `{block}` by backpropagation through all blocks, and does not train `{other}`"
        raise _refusal(spec, index, message, "remove `correct`, or train all blocks in this phase")


def untrained(spec: Spec, problems: Mapping[str, LocalProblem], probes: Sequence[Probe]) -> list[str]:
    """Say which blocks and readouts could learn, and are in no phase."""
    learners = [*(b for b, p in problems.items() if p.optimizer is not None), *_learners(probes)]
    named = {n for phase in spec.run.phases for n in trained(phase, list(problems), _learners(probes))}
    idle = [name for name in learners if spec.run.phases and name not in named]
    return [f"no phase trains `{name}`: it keeps the weights that it starts with" for name in idle]


def _learners(probes: Sequence[Probe]) -> tuple[str, ...]:
    return tuple(probe.name for probe in probes if probe.learns)


def _shown(graph: nx.DiGraph[str], named: Sequence[str], probes: Sequence[Probe]) -> frozenset[str]:
    """Return the blocks that do not learn and that something reads which does."""
    owner = {n: b for b, a in graph.nodes(data=True) for n in a["nodes"]["train"]}
    read = {owner[n] for p in probes if p.name in named and not p.overlays for n in p.features["train"]}
    wanted = read | {name for name in named if name in graph}
    behind = {b for block in wanted for b in nx.ancestors(graph, block)}
    return frozenset((wanted | behind) - set(named))


def _ensure_matched(spec: Spec, index: int, blocks: Sequence[str], probes: Sequence[Probe]) -> None:
    """Only the network tells some blocks' names, so that patterns are looked at once more."""
    known = (*blocks, *_learners(probes))
    for position, pattern in enumerate(spec.run.phases[index].train):
        if pattern == READOUTS or trained(Phase(train=(pattern,)), blocks, _learners(probes)):
            continue
        span = spec.origin("run", "phases", index, "train", position)
        message = f"phase {index + 1} trains `{pattern}`, which is no block and no readout"
        notes = (f"there are {', '.join(known)}",)
        raise LpcError(Diagnostic("0432", message, span=span, notes=notes, help=did_you_mean(pattern, known)))


def _refusal(spec: Spec, index: int, message: str, help: str | None = None) -> LpcError:
    span = spec.origin("run", "phases", index, "train")
    return LpcError(Diagnostic("0432", f"phase {index + 1} {message}", span=span, help=help))
