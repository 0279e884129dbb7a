"""How much memory does an optimizer take? What it keeps for each parameter, and what its step makes for a moment.

Read off torch 2.13's implementations; a test compares both with torch for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.memory.factors import kept_for_factors, made_by_factors
from lpc.specs.memory.sizes import nbytes
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import Optimizer

Options = Mapping[str, Any]
Condition = Callable[[Options], bool]
Group = tuple[Options, tuple[TensorType, ...]]
SCALAR = 4  # bytes of a step count and its like


@dataclass(frozen=True)
class Footprint:
    """`copies`: tensors kept that are like the parameter, by when; `scalars` kept beside them.

    `makes`: of a whole group's size, by when, in the one `foreach` call that steps it; nothing where there is a
    `fused` step. `loop`: without either, at most so many times the largest parameter. `singly`: of the largest
    parameter's size, by when, where parameters are stepped one by one.
    """

    copies: tuple[Condition, ...] = ()
    scalars: int = 1
    makes: tuple[Condition, ...] = ()
    fused: bool = False
    loop: float = 3.0
    singly: tuple[Condition, ...] | None = None
    factored: bool = False  # keeps sums of rows and of columns in place of a copy


def _always(options: Options) -> bool:
    return True


def _with(key: str) -> Condition:
    return lambda options: bool(options.get(key))


def _with_momentum(options: Options) -> bool:
    """Momentum that there is unless it is said to be none."""
    return bool(options.get("momentum", True))


def _coupled(options: Options) -> bool:
    """Weight decay that is added to the gradient."""
    return bool(options.get("weight_decay")) and not options.get("decoupled_weight_decay")


ADAM = Footprint((_always, _always, _with("amsgrad")), makes=(_always,), fused=True)
FOOTPRINTS: Mapping[str, Footprint] = {
    "adadelta": Footprint((_always, _always), makes=(_always, _always, _coupled)),
    "adafactor": Footprint(makes=(_always,), factored=True),
    "adagrad": Footprint((_always,), makes=(_always, _always), fused=True),
    "adam": ADAM,
    "adamax": Footprint((_always, _always), makes=(_always,)),
    "adamw": ADAM,
    "asgd": Footprint((_always,), scalars=3, makes=(_always,)),
    "kfac": Footprint((_with_momentum,), scalars=0, singly=(_with("weight_decay"),)),  # beside its factors
    "muon": Footprint((_always,), scalars=0, loop=2.5),
    "nadam": Footprint((_always, _always), scalars=2, makes=(_always, _coupled)),
    "radam": Footprint((_always, _always), makes=(_always,)),
    "rmsprop": Footprint((_always, _with("momentum"), _with("centered")), makes=(_always, _coupled)),
    "rmsprop_tensorflow": Footprint((_always, _always), scalars=0, singly=(_with("weight_decay"),)),
    "rprop": Footprint((_always, _always), makes=(_always, _always)),
    "sgd": Footprint((_with("momentum"),), scalars=0, makes=(_with("weight_decay"),), fused=True),
}


def kept(optimizer: Optimizer, types: Mapping[str, TensorType]) -> int:
    """Return the bytes of an optimizer's state; none for a class of a package, of which nothing is known.

    Errors: 0562 an optimizer of torch that the table does not have.
    """
    if is_class(optimizer.name):
        return 0
    footprint = _footprint(optimizer)
    own = sum(_kept(footprint, options, kind) for options, kinds in _groups(optimizer, types) for kind in kinds)
    return own + kept_for_factors(optimizer, types) + _origins(optimizer, types) + _kept_outside(optimizer, types)


def counters(optimizer: Optimizer) -> int:
    """Return the bytes of what an optimizer of one tensor counts for it as a whole; see `kept`."""
    return 0 if is_class(optimizer.name) else _footprint(optimizer).scalars * SCALAR


def made(optimizer: Optimizer, types: Mapping[str, TensorType]) -> int:
    """Return the most bytes that a step makes beside the gradients and gives back; see `kept`."""
    if is_class(optimizer.name):
        return 0
    footprint = _footprint(optimizer)
    own = max((_made(footprint, options, kinds) for options, kinds in _groups(optimizer, types)), default=0)
    return max(own, made_by_factors(optimizer, types))


def _origins(optimizer: Optimizer, types: Mapping[str, TensorType]) -> int:
    """The weights from which inner steps begin, where something goes back to them."""
    if optimizer.prox is None and not optimizer.outer:
        return 0
    return sum(nbytes(kind, {}) for _, kinds in _groups(optimizer, types) for kind in kinds)


def _kept_outside(optimizer: Optimizer, types: Mapping[str, TensorType]) -> int:
    if not optimizer.outer:
        return 0
    return kept(replace(optimizer, name=optimizer.outer, options=optimizer.outer_options, prox=None, outer=""), types)


def _kept(footprint: Footprint, options: Options, kind: TensorType) -> int:
    whole = nbytes(kind, {})
    copies = sum(condition(options) for condition in footprint.copies) * whole
    sums = _row_and_column(kind, whole) if footprint.factored else 0
    return copies + sums + footprint.scalars * SCALAR


def _row_and_column(kind: TensorType, whole: int) -> int:
    if len(kind.shape) < 2:
        return whole
    rows, columns = int(kind.shape[-2]), int(kind.shape[-1])
    return whole // columns + whole // rows


def _made(footprint: Footprint, options: Options, kinds: Iterable[TensorType]) -> int:
    sizes = [nbytes(kind, {}) for kind in kinds]
    if footprint.singly is not None:
        return sum(condition(options) for condition in footprint.singly) * max(sizes, default=0)
    given = {key: options[key] for key in ("fused", "foreach") if key in options}
    if footprint.fused and given.get("fused", not given):
        return 0
    if not footprint.makes or (given and not given.get("foreach")):
        return int(footprint.loop * max(sizes, default=0))
    return sum(condition(options) for condition in footprint.makes) * sum(sizes)


def _groups(optimizer: Optimizer, types: Mapping[str, TensorType]) -> list[Group]:
    return [
        ({**optimizer.options, **group.options}, tuple(types[name] for name in group.parameters))
        for group in optimizer.groups
    ]


def _footprint(optimizer: Optimizer) -> Footprint:
    if optimizer.name in FOOTPRINTS:
        return FOOTPRINTS[optimizer.name]
    message = f"the memory of optimizer `{optimizer.name}` is not known"
    near = did_you_mean(optimizer.name, FOOTPRINTS)
    raise LpcError(
        Diagnostic("0562", message, place=f"optimizer of block {optimizer.block}", notes=(near,) if near else ())
    )
