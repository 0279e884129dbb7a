"""How does a local gradient come nearer to backpropagation's? A block's offset, kept from one refresh to the next.

    offset <- true gradient - alpha * local gradient        at steps phase, phase + period, ... , on the same samples
    gradient <- alpha * gradient + scale * decay^age * offset            at every step; age in steps since the refresh

After Ren and Li, BP-Modified Local Loss for Efficient Training of Deep Neural Networks (ICLR 2025).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lpc.runtime.schedules import lr_factor, needs_lengths
from lpc.specs.plan.plan import Correction

AUTO = "auto"
KEPT = 0.5  # of an automatic factor, when it is measured anew
Factor = float | Tensor


@dataclass
class Offset:
    """What one refresh leaves: the offset of each parameter, and the factors that were measured with it."""

    values: list[Tensor | None] = field(default_factory=list)
    alpha: Tensor | None = None
    scale: Tensor | None = None


class BlockCorrection:
    """A block's correction: its offset, in float32 or the parameters' own wider type, and its factors."""

    def __init__(self, plan: Correction) -> None:
        self.plan = plan
        self.offset = Offset()
        self.total_steps: int | None = None
        self.steps_per_epoch: int | None = None

    @property
    def needs_lengths(self) -> bool:
        """Does a factor follow a law that ends with the run?"""
        laws = (f for f in (self.plan.alpha, self.plan.scale) if isinstance(f, str) and f != AUTO)
        return any(needs_lengths({"then": law}) for law in laws)

    def measured(self, exact: Sequence[Tensor | None], local: Sequence[Tensor | None], step: int) -> Offset:
        """Return the offset of true and local gradients, in the order of the plan's parameters."""
        smooth: Tensor | None = None
        if self.plan.alpha == AUTO:
            smooth = self._smoothed(self.offset.alpha, _least_squares(exact, local))
        alpha = self._factor(self.plan.alpha, step) if smooth is None else smooth
        values = [_difference(e, g, alpha) for e, g in zip(exact, local, strict=True)]
        scale = None
        if self.plan.scale == AUTO and self.offset.values:
            share = _ratio(_product(self.offset.values, values), _product(values, values)).clamp(0.0, 1.0)
            scale = self._smoothed(self.offset.scale, share)
        return Offset(values, smooth, scale)

    def corrected(self, gradients: Sequence[Tensor | None], offset: Offset, step: int) -> list[Tensor | None]:
        """Return a block's gradients with the factor alpha, and the offset where it goes into the gradient."""
        alpha = self._alpha(offset, step)
        scaled = [g if g is None or _is_one(alpha) else g * alpha for g in gradients]
        if self.plan.where != "gradient" or not offset.values:
            return scaled
        strength = self.strength(offset, step)
        return [_sum(g, d, strength) for g, d in zip(scaled, offset.values, strict=True)]

    def strength(self, offset: Offset, step: int) -> Factor:
        """Return scale * decay^age at a step."""
        scale: Factor = 1.0 if offset.scale is None else offset.scale
        if self.plan.scale != AUTO:
            scale = self._factor(self.plan.scale, step)
        age = (step - self.plan.phase) % self.plan.period
        return scale * self.plan.decay**age

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (entry, tensor) of all that the next step depends on."""
        for name, value in zip(self.plan.parameters, self.offset.values, strict=False):
            if value is not None:
                yield f"offset.{name}", value
        factors = {"alpha": self.offset.alpha, "scale": self.offset.scale}
        yield from ((name, value) for name, value in factors.items() if value is not None)

    def load_state(self, values: Mapping[str, Tensor], device: torch.device) -> None:
        """Replace the offset by {entry: tensor}."""
        held = {name: value.to(device, copy=True) for name, value in values.items()}
        offsets = [held.get(f"offset.{name}") for name in self.plan.parameters]
        known = any(value is not None for value in offsets)
        self.offset = Offset(offsets if known else [], held.get("alpha"), held.get("scale"))

    def _alpha(self, offset: Offset, step: int) -> Factor:
        if self.plan.alpha == AUTO:
            return 1.0 if offset.alpha is None else offset.alpha
        return self._factor(self.plan.alpha, step)

    def _factor(self, given: float | str, step: int) -> float:
        if isinstance(given, str):
            return 1.0 if given == AUTO else lr_factor({"then": given}, step, self.total_steps, self.steps_per_epoch)
        return given

    @staticmethod
    def _smoothed(before: Tensor | None, measured: Tensor) -> Tensor:
        return measured if before is None else KEPT * before + (1.0 - KEPT) * measured


def _least_squares(exact: Sequence[Tensor | None], local: Sequence[Tensor | None]) -> Tensor:
    """The factor that brings the local gradient nearest to the true one: <G, g> / |g|^2."""
    return _ratio(_product(exact, local), _product(local, local))


def _product(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> Tensor:
    terms = [(a * b).sum() for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), torch.ones_like(above))


def _difference(exact: Tensor | None, local: Tensor | None, alpha: Factor) -> Tensor | None:
    """A loss that does not reach the parameter counts as a gradient of zero."""
    true = None if exact is None else _wide(exact)
    if local is None or (not isinstance(alpha, Tensor) and alpha == 0.0):
        return true
    own = _wide(local) * alpha
    return -own if true is None else true - own


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _sum(gradient: Tensor | None, offset: Tensor | None, strength: Factor) -> Tensor | None:
    if offset is None:
        return gradient
    moved = offset if _is_one(strength) else offset * strength
    return moved.clone() if gradient is None else (gradient + moved).to(gradient.dtype)


def _is_one(factor: Factor) -> bool:
    return not isinstance(factor, Tensor) and factor == 1.0
