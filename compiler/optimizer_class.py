"""Which class does a term name as an optimizer, and does it step with these options?"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lpc.compiler.frontend.quiet import quiet
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.optimizers import UnknownOptimizerError, imported, is_class
from lpc.specs.signatures import OTHER_OPTIMIZER
from lpc.specs.source import Span
from lpc.specs.term import Term


def named(term: Term) -> tuple[str, dict[str, Any]]:
    """Return the optimizer's name in a plan, and its arguments by the names that the class has for them."""
    signature = signatures.OPTIMIZERS[term.name]
    aliases = signatures.OPTIMIZER_ALIASES.get(term.name, {})
    names = [parameter.name for parameter in signature.parameters]
    given = {**dict(zip(names, term.args, strict=False)), **term.kwargs}
    options = {aliases.get(name, name): value for name, value in given.items()}
    flavor = str(options.pop("flavor", "torch"))
    if term.name in signatures.FLAVORS:
        return signatures.FLAVORS[term.name][flavor], options
    return (str(options.pop("path")), options) if signature is OTHER_OPTIMIZER else (term.name, options)


def ensure_steps(
    name: str, options: Mapping[str, Any], block: str, span: Span | None, by_factors: bool = False
) -> None:
    """Refuse an optimizer that does not exist (0652), needs more than gradients (0653) or other options (0654).

    With `by_factors` it may also be one that takes Kronecker factors; elsewhere that is refused (0437).
    """
    if name in signatures.BY_FACTORS and not by_factors:
        message = f"`{name}` takes the Kronecker factors of a block's layers, and there are none here"
        raise LpcError(Diagnostic("0437", message, span=span))
    if name in signatures.OWN_OPTIMIZERS:
        _ensure_options(name, options, signatures.OWN_OPTIMIZERS[name], block, span)
        return
    try:
        kind = optimizer_class(name)
    except UnknownOptimizerError as error:
        raise LpcError(Diagnostic("0652", f"block `{block}` cannot have this optimizer: {error}", span=span)) from error
    known = [p.name for p in list(inspect.signature(kind).parameters.values())[1:] if p.kind is not p.VAR_KEYWORD]
    _ensure_options(name, options, known, block, span)
    parameter = nn.Parameter(torch.ones(2, 2))
    try:
        with quiet():
            made = kind([parameter], **options)
    except Exception as error:  # classes of other packages fail in ways of their own
        message = f"`{name}` refuses the options of block `{block}`: {error}"
        raise LpcError(Diagnostic("0654", message, span=span)) from error
    if is_class(name):
        _try_a_step(made, parameter, f"`{name}` cannot step block `{block}` with gradients alone", span)


def _ensure_options(
    name: str, options: Mapping[str, Any], known: Sequence[str], block: str, span: Span | None
) -> None:
    for option in options:
        if option not in known:
            message = f"the optimizer `{name}` of block `{block}` has no option `{option}`"
            note = did_you_mean(option, known) or f"it takes {', '.join(known)}"
            raise LpcError(Diagnostic("0654", message, span=span, notes=(note,)))


def _try_a_step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, message: str, span: Span | None) -> None:
    """Refuse an optimizer that wants to evaluate the loss again, or anything else that a plan lacks (0653)."""
    parameter.grad = torch.ones_like(parameter)
    try:
        with quiet():
            optimizer.step()
    except Exception as error:
        raise LpcError(Diagnostic("0653", f"{message}: {error}", span=span)) from error


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """Return the class of an optimizer's name in a plan. Raises UnknownOptimizerError."""
    if not is_class(name):
        kind: type[torch.optim.Optimizer] = getattr(
            torch.optim, signatures.OPTIMIZERS[name].doc.removeprefix("torch.optim.")
        )
        return kind
    found = imported(name)
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        return found
    raise UnknownOptimizerError(f"`{name}` is no subclass of torch.optim.Optimizer")
