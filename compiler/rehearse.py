"""What does a dress rehearsal of the blocks show that estimate their gradients? Proofs of tangents, and warnings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import networkx as nx

from lpc.compiler import lints
from lpc.compiler.asking import asking
from lpc.compiler.capture.proof import Known, Proof, prove
from lpc.compiler.estimator import BACKPROP
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.localize import LocalProblem
from lpc.compiler.rehearsal import rehearsal, rehearsing
from lpc.specs.model import Spec


@dataclass(frozen=True)
class Rehearsed:
    """The proof of every block that perturbs, and warnings."""

    proofs: Mapping[str, Proof] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def rehearse(
    spec: Spec, traced: Traced, graph: nx.DiGraph[str], problems: Mapping[str, LocalProblem]
) -> Rehearsed:
    """Run all blocks that estimate. Raises LpcError (0421) for an operator without a derivative along a direction."""
    proofs: dict[str, Proof] = {}
    warnings: list[str] = []
    known: dict[Hashable, Known] = {}
    estimating = {b: p for b, p in problems.items() if p.estimator.name != BACKPROP and p.trainable}
    for block, problem in estimating.items():
        with asking(spec, block), rehearsing():
            if problem.estimator.perturbs:
                proofs[block] = prove(rehearsal(traced, graph, problem), known)
                warnings += [f"block {block}: {remark}" for remark in proofs[block].remarks]
            warnings += lints.of_block(rehearsal(traced, graph, problem))
    with rehearsing():
        warnings += lints.of_start(traced, estimating)
    return Rehearsed(proofs, tuple(warnings))
