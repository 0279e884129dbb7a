"""How is a block's problem solved? Its optimizer, with the parameters in groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lpc.compiler.formulas import fixed_point_term
from lpc.compiler.inner import with_inner
from lpc.compiler.optimizer_class import ensure_steps, named
from lpc.compiler.rules import parameter_rules, stated, stated_at
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Schedule, Spec
from lpc.specs.plan.plan import Optimizer, ParameterGroup
from lpc.specs.source import Span
from lpc.specs.term import Term


def solver(spec: Spec, block: str, names: Sequence[str]) -> Optimizer:
    """Return the optimizer that `learn` gives a block for the parameters `names`.

    Raises LpcError where there is none, or torch refuses its options.
    """
    term = fixed_point_term(spec, block) or stated(spec, block, "optimizer")
    if term is None:
        message = f"block `{block}` has parameters but no optimizer"
        raise LpcError(Diagnostic("0405", message, span=spec.origin("learn")))
    span = stated_at(spec, block, "optimizer")
    schedule, clip = stated(spec, block, "schedule"), stated(spec, block, "clip")
    return with_inner(spec, block, optimizer_of(spec, block, names, term, span, schedule, clip, by_factors=True))


def optimizer_of(
    spec: Spec,
    block: str,
    names: Sequence[str],
    term: Term,
    span: Span | None,
    schedule: Schedule | None,
    clip: float | None,
    by_factors: bool = False,
) -> Optimizer:
    """Return the optimizer that `term`, written at `span`, makes of `names`. Raises LpcError where it cannot be had."""
    name, options = named(term)
    ensure_steps(name, options, block, span, by_factors)
    return Optimizer(
        block=block,
        name=name,
        options=options,
        groups=groups(spec, block, names),
        schedule=schedule.model_dump(mode="json") if schedule is not None else {},
        clip=clip if clip is not None and math.isfinite(clip) else None,
    )


def groups(spec: Spec, block: str, names: Sequence[str]) -> tuple[ParameterGroup, ...]:
    """Split a block's parameters by what the `params:` entries say of them."""
    grouped: dict[tuple[float | None, float], list[str]] = {}
    for name in names:
        grouped.setdefault(parameter_rules(spec, block, name), []).append(name)
    return tuple(
        ParameterGroup(tuple(group), {} if decay is None else {"weight_decay": decay}, factor)
        for (decay, factor), group in grouped.items()
    )

