"""What does a batch leave to later steps on its squared loss? Moments of a layer's inputs, and where steps began."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lpc.compiler.capture.design import Design
from lpc.compiler.capture.joint import Slot
from lpc.compiler.targets import Target


@dataclass(frozen=True)
class Moments:
    """What a batch leaves to later steps: s X'X, s times the sum of the rows, s times their number."""

    pairs: Tensor
    sums: Tensor
    count: Tensor


def moments(target: Target, design: Design, x: Tensor, start: Tensor) -> Moments:
    """Return the moments of a layer's input `x`; `start` is what it makes of it."""
    rows = replace(design, bias=None).rows(x)
    share = reduced_share(target, start)
    return Moments(share * (rows.t() @ rows), share * rows.sum(0), share * rows.shape[0])


def reduced_share(target: Target, start: Tensor) -> Tensor:
    """Return s: 1, or one over what the local loss is divided by."""
    one = torch.ones((), dtype=start.dtype, device=start.device)
    if target.reduction == "sum":
        return one
    return one / (start.numel() if target.reduction == "mean" else start.shape[0])


def moment_slots(target: Target) -> tuple[Slot, Slot, Slot]:
    """Return where moments go, in place of the target."""
    names = (target.loss, f"{target.loss}.sums", f"{target.loss}.count")
    pairs, sums, count = (Slot("target", "target", name) for name in names)
    return pairs, sums, count


def first_slot(target: Target, name: str) -> Slot:
    """Return where the gradient at the first weights goes, beside them."""
    return Slot("target", "target", f"{target.loss}.{name}.gradient")


def anchor_slot(target: Target, name: str) -> Slot:
    """Return where the weights before the batch go, beside the target."""
    return Slot("target", "target", f"{target.loss}.{name}")
