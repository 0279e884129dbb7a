"""How does a block learn? Its torch.optim object, with a schedule, clipping, and steps on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lpc.ejecting.parts.clock import Clock
from lpc.ejecting.parts.gradients import Gradients, scaled_down, summed
from lpc.ejecting.parts.rates import Law


class Learner:
    """Steps the parameters `names` of a block.

    `scales` are factors on the rate of each parameter group. `rate` is the schedule, `inner` the law over the `steps`
    on one batch. W0 are the weights before the first of those: `prox` adds (W - W0) / prox to each gradient, and after
    the last one `outer` steps from W0 with the gradient W0 - W. `fresh` begins each batch without memory; `copies`
    are for optimizers that may write over their gradients.
    """

    def __init__(
        self,
        names: list[str],
        optimizer: torch.optim.Optimizer,
        *,
        scales: tuple[float, ...] = (),
        rate: Callable[[Clock], float] | None = None,
        inner: Law | None = None,
        steps: int = 1,
        clip: float = math.inf,
        prox: float | None = None,
        outer: torch.optim.Optimizer | None = None,
        fresh: bool = False,
        copies: bool = False,
    ) -> None:
        self.names, self.optimizer = names, optimizer
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        factors = scales or (1.0,) * len(optimizer.param_groups)
        self.rates = [group["lr"] * own for group, own in zip(optimizer.param_groups, factors, strict=True)]
        self.rate, self.inner, self.steps, self.clip = rate, inner, steps, clip
        self.prox, self.outer, self.fresh, self.copies = prox, outer, fresh, copies
        self.done = 0  # steps on this batch
        self.origins: list[Tensor] = []
        self.set_rates(1.0)

    def set_rates(self, factor: float) -> None:
        """Set the rate of each group."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def step(self, clock: Clock, *bundles: Gradients) -> None:
        """Step with gradients by parameter; a parameter without one stays as it is."""
        if self.rate is not None or self.inner is not None:
            outer = 1.0 if self.rate is None else self.rate(clock)
            self.set_rates(outer * (1.0 if self.inner is None else self.inner(self.done, self.steps)))
        if self.done == 0:
            self.begin()
        given = summed(*bundles)
        for parameter, gradient in zip(self.parameters, self.prepared([given.get(n) for n in self.names]), strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None
        self.done = (self.done + 1) % self.steps
        if self.done == 0:
            self.end()

    def begin(self) -> None:
        """Prepare for the first step on a batch."""
        if self.fresh:
            self.optimizer.state.clear()
        if self.prox is not None or self.outer is not None:
            self.origins = [p.detach().clone() for p in self.parameters]

    def end(self) -> None:
        """After the last step on a batch the outer optimizer steps, from where the batch began."""
        if self.outer is not None:
            for parameter, origin in zip(self.parameters, self.origins, strict=True):
                parameter.grad = origin - parameter
                parameter.copy_(origin)
            self.outer.step()
            for parameter in self.parameters:
                parameter.grad = None
        self.origins = []

    def prepared(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """Return what the optimizer receives: pulled towards W0, clipped, and contiguous."""
        found = gradients
        if self.prox is not None and self.done > 0:
            pairs = zip(gradients, self.parameters, self.origins, strict=True)
            found = [None if g is None else g.add(p - w, alpha=1.0 / self.prox) for g, p, w in pairs]
        if math.isfinite(self.clip):
            small = iter(scaled_down([g for g in found if g is not None], self.clip))
            found = [None if g is None else next(small) for g in found]
        if self.copies:
            return [None if g is None else g.clone(memory_format=torch.contiguous_format) for g in found]
        return [None if g is None else g.contiguous() for g in found]

    def shift(self, directions: Gradients, strength: float | Tensor) -> None:
        """Move parameters against directions, by the rates of their groups."""
        names = iter(self.names)
        for group in self.optimizer.param_groups:
            for parameter, name in zip(group["params"], names, strict=False):
                if name in directions:
                    parameter.sub_(directions[name] * (group["lr"] * strength))


def descend(solver: torch.optim.Optimizer, *slopes: Tensor) -> None:
    """Step an auxiliary variable in place along its slopes, which are summed."""
    (variable,) = solver.param_groups[0]["params"]
    slope = slopes[0]
    for other in slopes[1:]:
        slope = slope + other
    variable.grad = slope.contiguous()
    solver.step()
    variable.grad = None
