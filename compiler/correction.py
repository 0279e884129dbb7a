"""What corrects a block's local gradient? The offsets that the spec asks for, and the true problem behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx

from lpc.compiler.credit import Passage
from lpc.compiler.estimator import Estimator
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.local_loss import LocalModules
from lpc.compiler.localize import Arrival, LocalProblem, crossing
from lpc.compiler.rules import stated, stated_at
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.plan import Correction
from lpc.specs.term import Term

OPEN = Passage(True, None, False)


@dataclass(frozen=True)
class Refresh:
    """How often and on which samples offsets are measured, and how backpropagation then uses memory."""

    period: int
    phase: int
    share: float
    pieces: int
    recompute: bool


@dataclass(frozen=True)
class Corrections:
    """The corrections by block, the blocks by the refresh that they share, and every block's true problem.

    The true problems are backpropagation of the output block's losses through all blocks.
    """

    by_block: Mapping[str, Correction]
    refreshes: Mapping[Refresh, tuple[str, ...]]
    exact: Mapping[str, LocalProblem]


def corrections(
    spec: Spec, traced: Traced, graph: nx.DiGraph[str], problems: Mapping[str, LocalProblem]
) -> Corrections | None:
    """Return what the spec's `correct` asks for; None where it asks for nothing.

    Raises LpcError (0415) for a correction that would not be one.
    """
    wanted = {b: _options(spec, b) for b in graph.nodes if problems[b].trainable and _options(spec, b)}
    if not wanted:
        return None
    for block, options in wanted.items():
        _ensure_sound(spec, graph, problems, block, options)
    by_block = {b: _correction(graph, problems[b], options) for b, options in wanted.items()}
    refreshes: dict[Refresh, tuple[str, ...]] = {}
    for block, options in wanted.items():
        key = _refresh(options)
        refreshes[key] = (*refreshes.get(key, ()), block)
    return Corrections(by_block, refreshes, exact_problems(traced, graph, problems, by_block))


def exact_problems(
    traced: Traced, graph: nx.DiGraph[str], problems: Mapping[str, LocalProblem], corrected: Mapping[str, Any]
) -> dict[str, LocalProblem]:
    """Return each block's part of plain backpropagation: the output's losses, and every boundary open."""
    output = graph.graph["output_block"]
    found = {}
    for block, problem in problems.items():
        receives = [
            Arrival(name, consumer)
            for _, consumer, data in graph.out_edges(block, data=True)
            for name in crossing(traced, data)
        ]
        sends = {
            name: OPEN for _, _, data in graph.in_edges(block, data=True) for name in crossing(traced, data)
        }
        own = problem if block == output else replace(problem, heads=LocalModules(), losses=())
        found[block] = replace(
            own,
            trainable=problem.trainable if block in corrected else (),
            receives=tuple(receives),
            sends=sends,
            optimizer=None,
            horizon=0,
            furthest=False,
            estimator=Estimator(),
            moves_in=(),
            moves_out=(),
            feedback=(),
            errors=False,
        )
    return found


def _options(spec: Spec, block: str) -> dict[str, Any]:
    term = stated(spec, block, "correct")
    if term is None or term.name == "none":
        return {}
    return signatures.CORRECTIONS[term.name].bind(term)


def _correction(graph: nx.DiGraph[str], problem: LocalProblem, options: Mapping[str, Any]) -> Correction:
    owned = graph.nodes[problem.block]["parameters"]
    return Correction(
        block=problem.block,
        parameters=tuple(name for name in problem.trainable if name in owned),
        period=options["period"],
        phase=options["phase"],
        alpha=_factor(options["alpha"]),
        scale=_factor(options["scale"]),
        decay=float(options["decay"]),
        where=options["where"],
    )


def _factor(given: float | str | Term) -> float | str:
    return str(given) if isinstance(given, str | Term) else float(given)


def _refresh(options: Mapping[str, Any]) -> Refresh:
    pieces = options["pieces"] if options["memory"] == "micro_batch" else 1
    return Refresh(
        options["period"], options["phase"], float(options["batch"]), pieces, options["memory"] == "recompute"
    )


def _ensure_sound(
    spec: Spec,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    block: str,
    options: Mapping[str, Any],
) -> None:
    span = stated_at(spec, block, "correct")
    output = problems[graph.graph["output_block"]]
    if not output.losses:
        message = f"block `{block}` is to be corrected by backpropagation, and the network's output has no loss"
        raise LpcError(Diagnostic("0415", message, span=span))
    if problems[block].estimator.perturbs:
        message = f"the gradient of block `{block}` is estimated from noise, of which no offset can be measured"
        raise LpcError(Diagnostic("0415", message, span=span, help="take `estimator: backprop`, or remove `correct`"))
    if keys := spec.run.splits:
        message = f"the correction of block `{block}` is measured within one whole batch, and `{keys[0]}` splits a step"
        raise LpcError(Diagnostic("0415", message, span=span, help=f"remove `run.{keys[0]}`"))
    losses = [loss for problem in problems.values() for loss in problem.losses]
    summed = [loss for loss in losses if loss.options.get("reduction") == "sum"]
    if summed and (options["batch"] != 1 or options["memory"] == "micro_batch"):
        message = f"the offset of block `{block}` comes from a part of the batch, and a loss is a sum over the batch"
        raise LpcError(Diagnostic("0415", message, span=span, help="take `reduction=mean`, or the whole batch at once"))
    coupled = [loss for loss in losses if not loss.kind.separable and loss.options.get("split") != "allowed"]
    if coupled and (options["batch"] != 1 or options["memory"] == "micro_batch"):
        message = f"the offset of block `{block}` comes from a part of the batch, and a loss couples its samples"
        raise LpcError(Diagnostic("0415", message, span=span, help="take the whole batch at once, or `split=allowed`"))
    batch = options["batch"]
    if batch == 0 or (batch > 1 and not isinstance(batch, int)):
        message = f"`batch={batch}` of block `{block}`'s offset is no share of the batch and no number of samples"
        raise LpcError(Diagnostic("0415", message, span=span, help="write `batch=0.25`, or `batch=32`"))
