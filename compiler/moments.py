"""Do second moments of a layer's inputs make steps on its squared loss cheaper? Products counted, for one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from lpc.compiler.capture.design import UnlikeProductError, design_of
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.rules import stated
from lpc.specs.model import Spec


def moments_pay(
    spec: Spec, block: str, traced: Traced, node: fx.Node, trained: Sequence[str], samples: int
) -> bool:
    """Tell whether `steps` of an optimizer take fewer products through the moments of so many `samples`.

    A step by the samples makes 2 rows x inputs x outputs products, after the first one; by the moments inputs^2 x
    outputs, and the moments themselves rows x inputs^2.
    """
    solver, steps = stated(spec, block, "solver"), stated(spec, block, "steps") or 1
    if steps == 1 or (solver is not None and solver.name not in ("gradient", "fixed_point")):
        return False
    named = dict(traced.train.named_parameters(remove_duplicate=False))
    known = {n: traced.tied.get(n, n) for n in named}
    try:
        design = design_of(traced.train, node, {n: first for n, first in known.items() if first in trained})
    except UnlikeProductError:
        return False
    weight = next(p for n, p in named.items() if known[n] == design.weight)
    outputs, inputs = weight.shape[0], weight[0].numel()
    rows = samples * math.prod(int(s) for s in node.meta["val"].shape[1:]) // outputs
    return (steps - 1) * inputs * outputs * (2 * rows - inputs) > rows * inputs * inputs


def moment_notes(problems: Mapping[str, Any]) -> list[str]:
    """Say which blocks take their steps by moments."""
    chosen = [b for b, p in problems.items() if p.target is not None and p.target.by_moments]
    return [f"steps go by the second moments of inputs, which costs less, in {', '.join(chosen)}"] if chosen else []
