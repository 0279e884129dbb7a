"""Which class does a plan's optimizer name? One of torch.optim, or of a package that plans may name."""

from __future__ import annotations

import inspect
from inspect import Parameter

import torch

from lpc.runtime.kfac import KFAC
from lpc.runtime.rmsprop import TensorFlowRMSprop
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.optimizers import UnknownOptimizerError, imported, is_class

# LBFGS calls the loss again by a closure, SparseAdam takes sparse gradients: a plan has neither.
REFUSED = {"lbfgs": "it needs to evaluate the loss again", "sparseadam": "it needs sparse gradients"}


# Of lpc itself, by their names in plans.
OWN: dict[str, type[torch.optim.Optimizer]] = {"rmsprop_tensorflow": TensorFlowRMSprop, "kfac": KFAC}


def classes() -> dict[str, type[torch.optim.Optimizer]]:
    """Return the classes of torch.optim by lower-case name."""
    found = (value for value in vars(torch.optim).values() if inspect.isclass(value))
    base = torch.optim.Optimizer
    return {c.__name__.lower(): c for c in found if issubclass(c, base) and c is not base}


def class_of(name: str, place: str) -> type[torch.optim.Optimizer]:
    """Return the class of an optimizer's name. Errors: 0652 there is none, 0653 it needs more than gradients."""
    known = classes()
    if is_class(name):
        return _of_package(name, place)
    if name in OWN:
        return OWN[name]
    if name in REFUSED:
        message = f"`{name}` cannot step a plan: {REFUSED[name]}"
        raise LpcError(Diagnostic("0653", message, place=place))
    if name in known:
        return known[name]
    near = did_you_mean(name, known)
    message = f"torch {torch.__version__} has no optimizer `{name}`"
    raise LpcError(Diagnostic("0652", message, place=place, notes=(near,) if near else ()))


def _of_package(name: str, place: str) -> type[torch.optim.Optimizer]:
    try:
        found = imported(name)
    except UnknownOptimizerError as error:
        raise LpcError(Diagnostic("0652", str(error), place=place)) from error
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        return found
    raise LpcError(Diagnostic("0652", f"`{name}` is no subclass of torch.optim.Optimizer", place=place))


def options_of(kind: type[torch.optim.Optimizer]) -> list[str]:
    """Return the names of a class's options; what it takes by any name (`**kwargs`) it may not heed."""
    parameters = list(inspect.signature(kind).parameters.values())[1:]
    return [p.name for p in parameters if p.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)]
