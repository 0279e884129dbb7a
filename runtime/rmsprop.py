"""How does TensorFlow 1 compute RMSProp? As torch does, but for three details that change what it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64)  # of which torch steps Adagrad in one pass on a CPU


class TensorFlowRMSprop(torch.optim.Optimizer):
    """RMSProp with the arithmetic of `tf.compat.v1.train.RMSPropOptimizer`.

    s <- alpha s + (1 - alpha) g^2 from s = 1;  m <- momentum m + lr g / sqrt(s + eps);  w <- w - m. In torch s begins
    at 0, eps is added to the root, and the rate multiplies m, so that a new rate changes what earlier gradients do.

    What is kept is q = (s + eps) / (1 - alpha) and -m: q <- alpha q + eps + g^2, and what is left of the step is
    Adagrad's, for which torch has one pass over memory where these formulas have four.
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
        if not 0.0 <= alpha < 1.0:
            raise ValueError(f"alpha is {alpha:g}, and must be from 0 to below 1")
        options = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, options)
        self._count = torch.ones(())  # of steps, which the rate of Adagrad would depend on

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step all parameters that have a gradient; `closure` is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group)

    def _step_one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        square = self._entry(parameter, "denominator", (1.0 + group["eps"]) / (1.0 - group["alpha"]))
        velocity = self._entry(parameter, "velocity", 0.0)
        rate = float(group["lr"]) / float(1.0 - group["alpha"]) ** 0.5
        torch.add(torch.tensor(group["eps"], dtype=square.dtype), square, alpha=group["alpha"], out=square)
        velocity.mul_(group["momentum"])
        if _in_one_pass(gradient, square, velocity):
            rest: dict[str, Any] = {"lr_decay": 0.0, "weight_decay": 0.0, "eps": 0.0, "maximize": False}
            torch._fused_adagrad_([velocity], [gradient], [square], [self._count], lr=rate, **rest)
        else:
            square.addcmul_(gradient, gradient)
            velocity.addcdiv_(gradient, square.sqrt(), value=-rate)
        parameter.add_(velocity)

    def _entry(self, parameter: Tensor, name: str, first: float) -> Tensor:
        held = self.state[parameter]
        if name not in held:
            held[name] = torch.full_like(parameter, first)
        found: Tensor = held[name]
        return found


def _in_one_pass(*tensors: Tensor) -> bool:
    """Has torch one pass over all of them?"""
    return all(t.is_contiguous() and t.device.type == "cpu" and t.dtype in DTYPES for t in tensors)
