"""What should a corrected gradient be? The rule of `bp_offset` in eager mode, for a first step.

Independent of the plan's sections: plain autograd of the local losses and of the output's, on the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import networkx as nx
import torch
from torch import Tensor

from lpc.compiler.build import Build
from lpc.compiler.correction import Corrections, Refresh
from lpc.compiler.reference import Reference, reference_step
from lpc.runtime.noise import Source
from lpc.specs.plan.plan import Correction, Noise
from lpc.specs.term import Term

Tensors = Mapping[str, Tensor]


def corrected(
    build: Build, laws: Mapping[str, Noise], plain: Tensors, state: Tensors, batch: Tensors, noise: Tensors
) -> dict[str, Tensor]:
    """Return the gradients that the optimizers receive at step 0, from the `plain` local ones."""
    found = dict(plain)
    assert build.corrected is not None
    for refresh, blocks in build.corrected.refreshes.items():
        exact, local = ({}, {}) if refresh.phase else _measured(build, refresh, laws, state, batch, noise)
        for block in blocks:
            found |= _by_rule(build.corrected.by_block[block], plain, exact, local)
    return found


def _by_rule(rule: Correction, plain: Tensors, exact: Tensors, local: Tensors) -> dict[str, Tensor]:
    names = [name for name in rule.parameters if name in plain or name in exact]
    zeros = {name: torch.zeros(()) for name in names}
    alpha = 1.0 if isinstance(rule.alpha, str) else rule.alpha
    if rule.alpha == "auto" and exact:
        both = [n for n in names if n in exact and n in local]
        alpha = float(sum((exact[n] * local[n]).sum() for n in both) / sum((local[n] ** 2).sum() for n in both))
    scale = 1.0 if isinstance(rule.scale, str) else rule.scale
    scaled = {n: alpha * plain.get(n, zeros[n]) for n in names}
    if not exact or rule.where == "update":
        return {n: g for n, g in scaled.items() if n in plain}
    return {n: scaled[n] + scale * (exact.get(n, zeros[n]) - alpha * local.get(n, zeros[n])) for n in names}


def _measured(
    build: Build, refresh: Refresh, laws: Mapping[str, Noise], state: Tensors, batch: Tensors, noise: Tensors
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return true and local gradients on the first samples, each the mean over the pieces by their samples."""
    size = len(next(iter(batch.values())))
    wanted = round(refresh.share * size) if refresh.share <= 1 else int(refresh.share)
    count = min(max(wanted, 1), size)
    bounds = [count * i // refresh.pieces for i in range(refresh.pieces + 1)]
    exact: dict[str, Tensor] = {}
    local: dict[str, Tensor] = {}
    for first, last in pairwise(bounds):
        if first == last:
            continue
        piece = {name: value[first:last] for name, value in batch.items()}
        drawn = {site: _source(laws[site]).rows(value, first, last, size) for site, value in noise.items()}
        steps = _both(build, state, piece, drawn)
        for total, step in zip((exact, local), steps, strict=True):
            for name, gradient in step.gradients.items():
                total[name] = total.get(name, torch.zeros(())) + gradient * (last - first) / count
    return exact, local


def _source(noise: Noise) -> Source:
    return Source(noise, torch.device("cpu"), torch.Generator())


def _both(build: Build, state: Tensors, batch: Tensors, noise: Tensors) -> tuple[Reference, Reference]:
    assert build.graph is not None
    assert build.traced is not None
    assert isinstance(build.corrected, Corrections)
    shared, problems = build.spec.decompose.shared, build.problems
    opened: nx.DiGraph[str] = build.graph.copy()
    for _, _, boundary in opened.edges(data=True):
        boundary["link"] = Term("gradient")
    exact = reference_step(build.traced, opened, build.corrected.exact, shared, state, batch, noise)
    local = reference_step(build.traced, build.graph, problems, shared, state, batch, noise)
    return exact, local
