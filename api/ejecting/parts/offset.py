"""How does a local gradient come nearer to backpropagation's? By an offset, kept from one refresh to the next.

    offset <- true gradient - alpha * local gradient            at every `period`-th step, on the same samples
    gradient <- alpha * gradient + scale * decay^age * offset   at every step; age in steps since the refresh

After Ren and Li, BP-Modified Local Loss for Efficient Training of Deep Neural Networks (ICLR 2025).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lpc.ejecting.parts.clock import Clock
from lpc.ejecting.parts.gradients import Gradients, gathered
from lpc.ejecting.parts.learner import Learner

Factor = float | Tensor
Given = float | Callable[[Clock], float] | None
"""A number, a schedule, or None: measured at each refresh."""


class Offset:
    """A block's offset, for its own parameters `names`; in the gradient, or (`after`) after the optimizer's update."""

    def __init__(
        self, names: list[str], period: int, phase: int, alpha: Given, scale: Given, decay: float, after: bool = False
    ) -> None:
        self.names, self.period, self.phase = names, period, phase
        self.alpha, self.scale, self.decay, self.after = alpha, scale, decay, after
        self.reset()

    def reset(self) -> None:
        """Begin without an offset."""
        self.values: Gradients = {}
        self.known = False
        self.own_alpha: Tensor | None = None
        self.own_scale: Tensor | None = None

    def measure(self, clock: Clock, exact: Gradients, local: Gradients) -> None:
        """Keep the difference of true and local gradients."""
        exact, local = self.ordered(exact), self.ordered(local)
        alpha: Factor
        if self.alpha is None:
            alpha = self.own_alpha = smoothed(self.own_alpha, ratio(product(exact, local), product(local, local)))
        else:
            alpha = at(self.alpha, clock)
        both = ((name, difference(exact.get(name), local.get(name), alpha)) for name in self.names)
        values = {name: value for name, value in both if value is not None}
        own_scale = None
        if self.scale is None and self.known:
            share = ratio(product(self.values, values), product(values, values)).clamp(0.0, 1.0)
            own_scale = smoothed(self.own_scale, share)
        self.values, self.own_scale, self.known = values, own_scale, True

    def ordered(self, gradients: Gradients) -> Gradients:
        """Return the gradients of the block's own parameters, in their order: sums depend on it."""
        return {name: gradients[name] for name in self.names if name in gradients}

    def correct(self, clock: Clock, *bundles: Gradients) -> tuple[Gradients, ...]:
        """Return bundles of gradients with the factor alpha, and the offset where it goes into the gradient."""
        measured: Factor = 1.0 if self.own_alpha is None else self.own_alpha
        alpha = measured if self.alpha is None else at(self.alpha, clock)
        return tuple(
            {name: self.corrected(name, gradient, alpha, clock) for name, gradient in bundle.items()}
            for bundle in gathered(*bundles)
        )

    def corrected(self, name: str, gradient: Tensor, alpha: Factor, clock: Clock) -> Tensor:
        """Return one parameter's gradient, corrected."""
        if name not in self.names:
            return gradient
        own = gradient if is_one(alpha) else gradient * alpha
        if self.after or name not in self.values:
            return own
        strength, offset = self.strength(clock), self.values[name]
        return (own + (offset if is_one(strength) else offset * strength)).to(own.dtype)

    def shift(self, clock: Clock, learner: Learner) -> None:
        """Move the block's parameters along the offset."""
        if self.known:
            learner.shift(self.values, self.strength(clock))

    def strength(self, clock: Clock) -> Factor:
        """Return scale * decay^age."""
        scale: Factor = 1.0 if self.own_scale is None else self.own_scale
        if self.scale is not None:
            scale = at(self.scale, clock)
        return scale * self.decay ** ((clock.time - self.phase) % self.period)


def at(given: float | Callable[[Clock], float], clock: Clock) -> float:
    """Return a factor at a step."""
    return given(clock) if callable(given) else given


def smoothed(before: Tensor | None, measured: Tensor) -> Tensor:
    """Return half of what was known, and half of what is measured anew."""
    return measured if before is None else 0.5 * before + 0.5 * measured


def product(one: Gradients, other: Gradients) -> Tensor:
    """Return the inner product of gradients."""
    terms = [(one[name] * other[name]).sum() for name in one if name in other]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return above / below, and 1 where nothing is below."""
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), torch.ones_like(above))


def difference(exact: Tensor | None, local: Tensor | None, alpha: Factor) -> Tensor | None:
    """Return exact - alpha * local; a loss that does not reach the parameter counts as zero."""
    true = None if exact is None else wide(exact)
    if local is None or (not isinstance(alpha, Tensor) and alpha == 0.0):
        return true
    own = wide(local) * alpha
    return -own if true is None else true - own


def wide(value: Tensor) -> Tensor:
    """Return half precision as float32."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def is_one(factor: Factor) -> bool:
    """Is it the number 1?"""
    return not isinstance(factor, Tensor) and factor == 1.0
