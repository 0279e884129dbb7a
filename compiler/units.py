"""Which local losses does a block's output hold? One for each patch and each group of channels.

A *patch* is a position of the output: a token of [T, C] or [T, G, c], a pixel of [C, H, W]. A *group* is a run of
adjacent channels, all of the same size, or an index of the axis G. Credits, one number per sample and unit, are
tensors [B, patches, groups].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lpc.compiler.estimator import estimator
from lpc.compiler.rules import stated, stated_at
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec


@dataclass(frozen=True)
class UnitLayout:
    """How a per-sample shape splits into units; without patches or groups there is one of them."""

    positions: tuple[int, ...] = ()  # sizes of the axes of positions that are patches
    axis: int = 0  # of the channels, or of the groups where they have one
    groups: int = 1
    split: bool = False  # are there units at all?

    @property
    def patches(self) -> int:
        """How many patches there are."""
        return math.prod(self.positions)

    @property
    def count(self) -> int:
        """How many units there are."""
        return self.patches * self.groups

    def credit(self, product: Tensor) -> Tensor:
        """Sum [B, ...] in the block's own shape over each unit: [B, patches, groups]."""
        if not self.split:
            return product.flatten(1).sum(1)[:, None, None]
        channels = product.movedim(self.axis + 1, 1)
        grouped = channels.reshape([channels.shape[0], self.groups, -1, *channels.shape[2:]])
        if not self.positions:
            return grouped.flatten(2).sum(2)[:, None, :]
        placed = grouped.sum(2).flatten(2, 1 + len(self.positions))
        return (placed if placed.dim() == 3 else placed.flatten(3).sum(3)).transpose(1, 2)


@dataclass(frozen=True)
class Assignment:
    """Which axes of a perturbed tensor tell its patch and its group; without one, all of them are its own."""

    patch_axes: tuple[int, ...] = ()
    group_axis: int | None = None


WHOLE = Assignment()


def unit_layout(spec: Spec, block: str, shape: Sequence[int | str], is_map: bool, by_name: bool) -> UnitLayout:
    """Return the units of a block with an output of this per-sample shape. Raises LpcError (0422).

    Three axes are a map [C, H, W] where the block has spatial operators (`is_map`), else groups apart: [T, G, c].
    With `by_name` only entries of `learn` count that name the block without a wildcard.
    """
    units = spec.decompose.units
    if stated(spec, block, "aggregate", by_name=by_name) != "replicated":
        return UnitLayout()
    if units is None:
        message = f"block `{block}` replicates its loss, but `decompose` has no units"
        raise LpcError(Diagnostic("0422", message, span=stated_at(spec, block, "aggregate")))
    if len(shape) not in (1, 2, 3) or any(isinstance(size, str) for size in shape):
        message = f"block `{block}` has units, but its output is {list(shape)}: not [C], [T, C], [T, G, c] or [C, H, W]"
        raise LpcError(Diagnostic("0422", message, span=spec.origin("decompose", "units")))
    sizes = [int(size) for size in shape]
    axis, positions = (0, sizes[1:]) if is_map else (min(len(sizes) - 1, 1), sizes[: len(sizes) > 1])
    grouped = not is_map and len(sizes) == 3
    if sizes[axis] % units.groups or (grouped and sizes[axis] != units.groups):
        what = "groups" if grouped else "channels"
        message = f"block `{block}` has {sizes[axis]} {what} in {sizes}, which do not make {units.groups} groups"
        raise LpcError(Diagnostic("0422", message, span=spec.origin("decompose", "units", "groups")))
    return UnitLayout(tuple(positions) if units.patches == "auto" else (), axis, units.groups, True)


def ensure_splits(spec: Spec, layouts: Iterable[UnitLayout]) -> None:
    """Refuse (0422) units that split no block."""
    if spec.decompose.units is not None and not any(layout.split for layout in layouts):
        message = "`units` splits no block: none replicates its loss"
        help = "add `aggregate: replicated` and an estimator that perturbs to a `learn` entry, or remove `units`"
        raise LpcError(Diagnostic("0422", message, span=spec.key_origin("decompose", "units"), help=help))


def idle_units(spec: Spec, blocks: Iterable[str]) -> list[str]:
    """Return notes about those of `blocks`, whose losses are replicated, to which that makes no difference."""
    found = {block: estimator(spec, block) for block in blocks}
    return [
        f"block {block}: under `estimator: {one.name}` replicated losses have the gradient of one loss"
        for block, one in found.items()
        if not one.perturbs
    ]


def spread(credit: Tensor, assignment: Assignment, shape: Sequence[object]) -> Tensor:
    """Give every element of a perturbed tensor of `shape`, batch axis first, the credit of its units.

    `credit` is [B, patches, groups]; the result has the tensor's axes and broadcasts to it.
    """
    patch_axes, group_axis = assignment.patch_axes, assignment.group_axis
    if not patch_axes:
        credit = credit.sum(1, keepdim=True)
    if group_axis is None:
        credit = credit.sum(2, keepdim=True)
    elif shape[group_axis] != credit.shape[2]:
        repeats = int(str(shape[group_axis])) // credit.shape[2]
        credit = credit[..., None].expand(*credit.shape, repeats).flatten(2)
    if group_axis is not None and patch_axes and group_axis < patch_axes[0]:
        credit = credit.transpose(1, 2)
    owned = {0, *patch_axes, *(() if group_axis is None else (group_axis,))}
    sizes = [int(str(size)) if axis in owned else 1 for axis, size in enumerate(shape) if axis]
    return credit.reshape([credit.shape[0], *sizes])
