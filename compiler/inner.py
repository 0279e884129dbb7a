"""How does a block take several steps on one batch? Its optimizer's inner steps, and what they cannot go with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx

from lpc.compiler.estimator import BACKPROP
from lpc.compiler.optimizer_class import ensure_steps, named
from lpc.compiler.rules import stated, stated_at
from lpc.specs.check_terms import NOTHING
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.instructions import Call, Free, Instruction, Repeat, Update
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import PERSISTENT, Optimizer


def with_inner(spec: Spec, block: str, optimizer: Optimizer) -> Optimizer:
    """Return a block's optimizer with what `learn` says of its steps on one batch.

    Raises LpcError: 0433 for what would do nothing, or as `ensure_steps` for the outer optimizer.
    """
    prox, outer = stated(spec, block, "prox"), outer_of(spec, block)
    found = replace(
        optimizer,
        steps=stated(spec, block, "steps") or 1,
        state=stated(spec, block, "state") or PERSISTENT,
        prox=prox if prox is not None and math.isfinite(prox) else None,
        outer=outer[0],
        outer_options=outer[1],
    )
    schedule = stated(spec, block, "schedule")
    idle = [("prox", found.prox is not None), ("schedule", schedule is not None and schedule.inner.name != "constant")]
    for key, said in idle:
        if said and found.steps == 1:
            what = "`inner`" if key == "schedule" else f"`{key}`"
            message = f"{what} does nothing in block `{block}`, which takes one step on each batch"
            raise LpcError(Diagnostic("0433", message, span=stated_at(spec, block, key), help="add `steps: 10`"))
    return found


def ensure_inner(spec: Spec, graph: nx.DiGraph[str], block: str, estimator: str) -> None:
    """Refuse to solve a block's problem on a batch where something else of the spec speaks of one step (0433)."""
    for reason in _obstacles(spec, graph, block, estimator):
        message = f"block `{block}` cannot solve its problem further on one batch: {reason}"
        raise LpcError(Diagnostic("0433", message, span=stated_at(spec, block, "steps")))


def _obstacles(spec: Spec, graph: nx.DiGraph[str], block: str, estimator: str) -> Iterator[str]:
    correct = stated(spec, block, "correct")
    for key in spec.run.splits:
        yield f"`{key}` makes one step of {getattr(spec.run, key)} {'batches' if key == 'accumulate' else 'pieces'}"
    if spec.run.clip is not None and math.isfinite(spec.run.clip):
        yield "`run.clip` takes the gradients of all blocks together"
    if correct is not None and correct != NOTHING:
        yield "`correct` measures its offset for one step"
    if estimator != BACKPROP:
        yield f"the noise of `{estimator}` is drawn for one step"
    if spec.decompose.shared == "sum":
        others = {n: b for b, a in graph.nodes(data=True) if b != block for n in a.get("borrowed", ())}
        mixed = [n for n in graph.nodes[block]["parameters"] if n in others]
        if mixed:
            yield f"block `{others[mixed[0]]}` uses `{mixed[0]}` too"


def inner_steps(optimizer: Optimizer, kernel: Kernel, arguments: Sequence[str]) -> list[Instruction]:
    """Return the steps after the first one: gradients of the same problem at the new weights, and updates."""
    body = _again(optimizer.block, kernel, arguments)
    return [Repeat(optimizer.steps - 1, (*body, Free(body[0].values)))] if optimizer.steps > 1 else []


def formula_steps(optimizer: Optimizer, kernel: Kernel, arguments: Sequence[str]) -> list[Instruction]:
    """Return all steps of a solver by formula, whose kernel finds the way from the first one on."""
    body = _again(optimizer.block, kernel, arguments)
    return [Repeat(optimizer.steps, (*body, Free(body[0].values)))] if optimizer.steps > 1 else list(body)


def _again(block: str, kernel: Kernel, arguments: Sequence[str]) -> tuple[Call, Update]:
    value = f"{block}.inner"
    return Call((value,), kernel.name, tuple(arguments)), Update(block, (value,))


def outer_of(spec: Spec, block: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of the outer optimizer, "" for none. Raises LpcError as `ensure_steps`."""
    term = stated(spec, block, "outer")
    if term in (None, NOTHING):
        return "", {}
    name, options = named(term)
    ensure_steps(name, options, block, stated_at(spec, block, "outer"))
    return name, options
