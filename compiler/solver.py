"""How is a block's problem solved? Its optimizer, with the parameters in groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lpc.compiler.rules import parameter_rules, stated, stated_at
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Schedule, Spec
from lpc.specs.plan.plan import Optimizer, ParameterGroup
from lpc.specs.source import Span
from lpc.specs.term import Term


def solver(spec: Spec, block: str, names: Sequence[str]) -> Optimizer:
    """Return the optimizer that `learn` gives a block for the parameters `names`.

    Raises LpcError where there is none, or torch refuses its options.
    """
    term = stated(spec, block, "optimizer")
    if term is None:
        message = f"block `{block}` has parameters but no optimizer"
        raise LpcError(Diagnostic("0405", message, span=spec.origin("learn")))
    span = stated_at(spec, block, "optimizer")
    schedule, clip = stated(spec, block, "schedule"), stated(spec, block, "clip")
    return optimizer_of(spec, block, names, term, span, schedule, clip)


def optimizer_of(
    spec: Spec,
    block: str,
    names: Sequence[str],
    term: Term,
    span: Span | None,
    schedule: Schedule | None,
    clip: float | None,
) -> Optimizer:
    """Return the optimizer that `term`, written at `span`, makes of `names`. Raises LpcError where torch refuses it."""
    options = optimizer_options(term)
    refused = refusal(term.name, options)
    if refused is not None:
        message = f"torch.optim refuses the optimizer of block `{block}`: {refused}"
        raise LpcError(Diagnostic("0654", message, span=span))
    return Optimizer(
        block=block,
        name=term.name,
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


def optimizer_options(term: Term) -> dict[str, Any]:
    """Return the arguments that the spec gives an optimizer, by the names that torch has for them."""
    names = [parameter.name for parameter in signatures.OPTIMIZERS[term.name].parameters]
    aliases = signatures.OPTIMIZER_ALIASES.get(term.name, {})
    given = {**dict(zip(names, term.args, strict=False)), **term.kwargs}
    return {aliases.get(name, name): value for name, value in given.items()}


def refusal(name: str, options: Mapping[str, Any]) -> str | None:
    """Return why torch does not take an optimizer with these options; None where it does."""
    kind = getattr(torch.optim, signatures.OPTIMIZERS[name].doc.removeprefix("torch.optim."))
    try:
        kind([nn.Parameter(torch.zeros(1, 1))], **options)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        return str(error)
    return None
