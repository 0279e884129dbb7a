"""Does every gradient stay where the spec says? Declared influence of losses on parameters, against the kernels."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx

from lpc.compiler.credit import furthest_only, losses_by_age
from lpc.compiler.localize import LocalProblem
from lpc.compiler.variables import penalty_names
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.verify import influence, influence_by_targets, verify

Influence = dict[str, frozenset[str]]


def declared_influence(graph: nx.DiGraph[str], problems: Mapping[str, LocalProblem]) -> Influence:
    """Return for each parameter the losses that the spec lets reach it.

    They are its own block's, and those of every block that a path of gradient links leads to, as far as they reach.
    """
    arriving = losses_by_age(graph, [b for b in graph.nodes if problems[b].losses])
    declared: Influence = {}
    for block, problem in problems.items():
        here = arriving.get(block, {})  # a readout is no block of the graph: only its head learns
        ages = furthest_only(here) if problem.furthest else frozenset(here)
        ahead = frozenset[str]().union(*(here[age] for age in ages))
        losses = frozenset(f"{b}.{loss.name}" for b in ahead for loss in problems[b].losses)
        if problem.target is not None:
            losses = frozenset({f"{block}.{problem.target.loss}"})
        joined = problem.group.after(block) if problem.group is not None else ()
        for other in (block, *joined):
            makes, own_losses = problems[other].makes, problems[other].losses
            losses |= {f"{other}.{name}" for name in penalty_names(makes, own_losses).values()}
        for name in problem.trainable:
            declared[name] = declared.get(name, frozenset()) | losses
        for key, names in problem.heads.parameters_by_key().items():
            own = frozenset(f"{block}.{loss.name}" for loss in problem.losses if key in (loss.head, loss.state))
            declared.update({f"heads.{block}.{n}": own for n in names})
    return declared


def declared_by_targets(graph: nx.DiGraph[str], problems: Mapping[str, LocalProblem]) -> Influence:
    """Return for each parameter the losses of which its block's target may be made: those that come back to it."""
    leaving = {b: [loss.name for loss in problems[b].losses if not loss.kind.confined] for b in graph.nodes}
    arriving = losses_by_age(graph, [b for b, names in leaving.items() if names])
    return {
        name: frozenset(f"{b}.{loss}" for ahead in arriving[block].values() for b in ahead for loss in leaving[b])
        for block, problem in problems.items()
        if problem.target is not None
        for name in problem.trainable
    }


def leaks(found: Influence, declared: Influence) -> Influence:
    """Return the losses that reach a parameter although the spec stops them."""
    extra = {name: losses - declared.get(name, frozenset()) for name, losses in found.items()}
    return {name: losses for name, losses in extra.items() if losses}


def ensure_isolated(plan: Plan, declared: Influence, by_targets: Influence) -> None:
    """Refuse a plan that is malformed or lets a gradient through a stop.

    Raises LpcError with every problem found; with a plan from this compiler that is a defect of it.
    """
    problems = [d for d in verify(plan) if d.severity == "error"]
    extra = leaks(influence(plan), declared) | leaks(influence_by_targets(plan), by_targets)
    for name, losses in extra.items():
        message = f"`{name}` gets a gradient of {', '.join(sorted(losses))}, which a stop link should keep from it"
        problems.append(Diagnostic("0413", message, place="kernels"))
    if problems:
        raise LpcError(problems)
