"""How are gradient bundles combined? Sums by name, and clipping to a total norm; no tensor is written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

Gradients = list[Tensor | None]
Route = list[list[tuple[str, int]]]  # for every parameter: bundles that hold its gradient, and where


def route(names: Sequence[str], sources: Mapping[str, Sequence[str]]) -> Route:
    """Return where the gradient of each name is found in bundles whose ports are named by `sources`."""
    found: dict[str, list[tuple[str, int]]] = {name: [] for name in names}
    for bundle, ports in sources.items():
        for index, name in enumerate(ports):
            if name in found:
                found[name].append((bundle, index))
    return [found[name] for name in names]


def collect(env: Mapping[str, Gradients], found: Route) -> Gradients:
    """Return one gradient a name: None where no bundle has it, the sum where several have."""
    return [env[places[0][0]][places[0][1]] if len(places) == 1 else _sum(env, places) for places in found]


def _sum(env: Mapping[str, Gradients], places: Sequence[tuple[str, int]]) -> Tensor | None:
    total: Tensor | None = None
    for bundle, index in places:
        gradient = env[bundle][index]
        if gradient is not None:
            total = gradient if total is None else total + gradient
    return total


def clip(gradients: Gradients, norm: float) -> Gradients:
    """Return gradients scaled so that their total 2-norm is at most `norm`, by torch's own rule."""
    present = [g for g in gradients if g is not None]
    return scaled(gradients, norm, get_total_norm(present)) if present else gradients


def norms(gradients: Gradients) -> list[Tensor]:
    """Return the 2-norm of each gradient that is there."""
    present = [g for g in gradients if g is not None]
    return list(torch._foreach_norm(present)) if present else []


def total(norms: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all gradients by those of each, as torch has it: by dtypes in order of appearance."""
    dtypes = list(dict.fromkeys(norm.dtype for norm in norms))
    ordered = sorted(norms, key=lambda norm: dtypes.index(norm.dtype))
    found: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(ordered[0].device) for norm in ordered]))
    return found


def scaled(gradients: Gradients, norm: float, whole: Tensor) -> Gradients:
    """Return gradients of which the whole has a 2-norm, scaled so that it is at most `norm`.

    Out of place: one tensor may be the gradient of two parameters, and would be scaled twice.
    """
    present = [g for g in gradients if g is not None]
    factor = torch.clamp(norm / (whole + 1e-6), max=1.0)
    del whole  # a number that nobody needs beside the scaled gradients
    found = iter(torch._foreach_mul(present, factor)) if present else iter(())
    return [None if g is None else next(found) for g in gradients]
