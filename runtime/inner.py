"""How do several steps on one batch go? Where they begin, which rate each has, and where they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lpc.runtime.gradients import Gradients
from lpc.runtime.optimizer_class import class_of
from lpc.runtime.schedules import inner_law
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.laws import inner_factor
from lpc.specs.plan.plan import Optimizer

OUTER = "outer."


class InnerSteps:
    """The steps of one block on one batch: their number, and the weights W0 from which they began."""

    def __init__(self, plan: Optimizer, parameters: Sequence[nn.Parameter], place: str) -> None:
        self.plan, self.parameters = plan, list(parameters)
        self.law = inner_law(plan.schedule)
        self.done = 0
        self.outer = self._outer(place)
        self.origins: list[Tensor] = []

    @property
    def constant(self) -> bool:
        """Do all steps have the same rate?"""
        return self.law.name == "constant"

    @property
    def first(self) -> bool:
        """Is the next step the first one on a batch?"""
        return self.done == 0

    @property
    def factor(self) -> float:
        """The factor on the rate of the next step."""
        return inner_factor(self.law, self.done, self.plan.steps)

    def begin(self) -> None:
        """Keep W0, where something goes back to it."""
        if self.first and (self.plan.prox is not None or self.outer is not None):
            self.origins = [p.detach().clone() for p in self.parameters]

    def pulled(self, gradients: Gradients) -> Gradients:
        """Add (W - W0) / prox, which is nothing at the first step."""
        if self.plan.prox is None or self.first:
            return gradients
        strength = 1.0 / self.plan.prox
        pairs = zip(gradients, self.parameters, self.origins, strict=True)
        return [None if g is None else g.add(p - origin, alpha=strength) for g, p, origin in pairs]

    def end(self) -> None:
        """Count a step; after the last one the outer optimizer steps from W0."""
        self.done = (self.done + 1) % self.plan.steps
        if self.first and self.outer is not None:
            self._step_outside(self.outer)
        if self.first:
            self.origins = []

    def state(self, names: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
        """Yield (parameter, `outer.ENTRY`, value) for every entry of the outer optimizer's state."""
        for name, parameter in zip(names, self.parameters, strict=True):
            entries = self.outer.state.get(parameter, {}) if self.outer is not None else {}
            yield from ((name, f"{OUTER}{entry}", value) for entry, value in entries.items())

    def load_state(self, names: Sequence[str], values: dict[str, dict[str, Any]]) -> None:
        """Replace the outer optimizer's state; what has no state is as new."""
        self.done, self.origins = 0, []
        if self.outer is None:
            return
        self.outer.state.clear()
        for name, parameter in zip(names, self.parameters, strict=True):
            for entry, value in values.get(name, {}).items():
                moved = value.to(_home(value, parameter), copy=True) if isinstance(value, Tensor) else value
                self.outer.state[parameter][entry] = moved

    def _step_outside(self, outer: torch.optim.Optimizer) -> None:
        for parameter, origin in zip(self.parameters, self.origins, strict=True):
            parameter.grad = origin - parameter
            parameter.copy_(origin)
        outer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def _outer(self, place: str) -> torch.optim.Optimizer | None:
        outer = self.plan.outer
        if not outer:
            return None
        options: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in self.plan.outer_options.items()}
        try:
            return class_of(outer, place)(self.parameters, **options)
        except Exception as error:  # classes of other packages fail in ways of their own
            message = f"`{outer}` refuses its options: {error}"
            raise LpcError(Diagnostic("0654", message, place=place)) from error


def _home(value: Tensor, parameter: Tensor) -> torch.device:
    """Counters of torch's optimizers live on the CPU, what is like the parameter beside it."""
    return torch.device("cpu") if value.dim() == 0 and parameter.dim() > 0 else parameter.device
