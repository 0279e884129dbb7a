"""How are gradients combined? Sums by parameter, running sums over batches, and clipping to a total norm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

Gradients = dict[str, Tensor]


def summed(*bundles: Gradients) -> Gradients:
    """Return the sum of gradients by parameter."""
    total: Gradients = {}
    for bundle in bundles:
        for name, gradient in bundle.items():
            total[name] = total[name] + gradient if name in total else gradient
    return total


def gathered(*bundles: Gradients) -> tuple[Gradients, ...]:
    """Return the same bundles, with each parameter's sum in the first that has it and nowhere else."""
    total, left = summed(*bundles), {name for bundle in bundles for name in bundle}
    found: list[Gradients] = []
    for bundle in bundles:
        found.append({name: total[name] for name in bundle if name in left})
        left -= set(bundle)
    return tuple(found)


def accumulate(total: Gradients, gradients: Gradients, scale: float) -> None:
    """Add gradients, times a number, to a running sum; the first addition makes it."""
    if total:
        torch._foreach_add_(list(total.values()), list(gradients.values()), alpha=scale)
    else:
        total.update(zip(gradients, torch._foreach_mul(list(gradients.values()), scale), strict=True))


def scaled_down(gradients: list[Tensor], norm: float) -> list[Tensor]:
    """Return gradients scaled so that their total 2-norm is at most `norm`."""
    if not gradients:
        return gradients
    factor = torch.clamp(norm / (get_total_norm(gradients) + 1e-6), max=1.0)
    return list(torch._foreach_mul(gradients, factor))


def clipped(norm: float, *bundles: Gradients) -> tuple[Gradients, ...]:
    """Return bundles of gradients scaled together; what is spread over bundles enters the norm as its sum."""
    order = dict.fromkeys(name for bundle in bundles for name in bundle)
    total = summed(*bundles)
    small = dict(zip(order, scaled_down([total[name] for name in order], norm), strict=True))
    return tuple({name: small[name] for name in bundle} for bundle in gathered(*bundles))
