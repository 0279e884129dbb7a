"""How does TensorFlow 1 compute RMSProp? As torch does, but for three details that change what it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class TensorFlowRMSprop(torch.optim.Optimizer):
    """RMSProp with the arithmetic of `tf.compat.v1.train.RMSPropOptimizer`.

    s <- alpha s + (1 - alpha) g^2 from s = 1;  m <- momentum m + lr g / sqrt(s + eps);  w <- w - m. In torch s begins
    at 0, eps is added to the root, and the rate multiplies m, so that a new rate changes what earlier gradients do.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step all parameters that have a gradient; `closure` is not called."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(parameters, [p.grad for p in parameters], group)

    def _step_group(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        squares = [self._entry(p, "square_avg", torch.ones_like) for p in parameters]
        velocities = [self._entry(p, "momentum_buffer", torch.zeros_like) for p in parameters]
        torch._foreach_mul_(squares, group["alpha"])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - group["alpha"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_addcdiv_(velocities, gradients, roots, value=group["lr"])
        torch._foreach_sub_(parameters, velocities)

    def _entry(self, parameter: Tensor, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        held = self.state[parameter]
        if name not in held:
            held[name] = make(parameter)
        found: Tensor = held[name]
        return found
