"""How does K-FAC step a block? Gradients of layers between the inverses of two factors, as far as there are factors.

Martens and Grosse 2015 (arXiv 1503.05671), and for convolutions Grosse and Martens 2016 (arXiv 1602.01407). A is the
mean over samples of x x', summed over positions, x a layer's input with a one for its bias; S the mean over samples
and positions of g g', g the derivative of a sample's loss by the layer's output. Both are running means. A layer's
gradient G becomes (S + r / p I)^-1 G (A + r p I)^-1 with r^2 = damping and p^2 = (tr A / dim A) / (tr S / dim S).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lpc.specs.diagnostics import Diagnostic, LpcError

FACTORS = ("inputs", "errors")


@dataclass(frozen=True)
class Layer:
    """A layer's parameters, the bias where one is trained."""

    name: str
    weight: nn.Parameter
    bias: nn.Parameter | None


class KFAC(torch.optim.Optimizer):
    """Steps layers by their factors, which `observe` tells before each step, and other parameters by their gradients.

    The factors' running means keep min(1 - 1/k, decay) of the old at step k, and are inverted at every `interval`-th
    step, the first one included. With `trust` a layer's step D is shortened so that lr^2 tr(D' G), twice the change of
    the output's distribution by the quadratic model, is at most that (as Ba et al. 2017 do for all layers together).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        momentum: float = 0.9,
        damping: float = 1e-2,
        decay: float = 0.95,
        interval: int = 10,
        trust: float | None = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "damping": damping, "decay": decay, "interval": interval}
        super().__init__(params, {**options, "trust": trust, "weight_decay": weight_decay})
        self.layers: Sequence[Layer] = ()
        self.observed: Sequence[tuple[Tensor, Tensor] | None] = ()

    def observe(self, factors: Sequence[tuple[Tensor, Tensor] | None]) -> None:
        """Take each layer's A and S of a batch, in the order of `layers`; None where no loss reaches the layer."""
        self.observed = factors

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step all parameters that have a gradient; `closure` is not called."""
        group_of = {p: group for group in self.param_groups for p in group["params"]}
        stepped: set[nn.Parameter] = set()
        for layer, factors in zip(self.layers, self.observed, strict=True):
            if factors is not None and layer.weight.grad is not None:
                stepped |= self._step_layer(layer, factors, group_of)
        for parameter, group in group_of.items():
            if parameter.grad is not None and parameter not in stepped:
                self._move(parameter, _slope(parameter, group), group)
        self.observed = ()

    def _step_layer(
        self, layer: Layer, factors: tuple[Tensor, Tensor], group_of: dict[nn.Parameter, dict[str, Any]]
    ) -> set[nn.Parameter]:
        weight, bias, group = layer.weight, layer.bias, group_of[layer.weight]
        self._follow(layer, factors, group)
        held = self.state[weight]
        joined = _slope(weight, group).flatten(1)
        if bias is not None:
            joined = torch.cat([joined, _slope(bias, group_of[bias])[:, None]], 1)
        way = held["errors_inverse"] @ joined
        way = way @ held["inputs_inverse"]
        if group["trust"] is not None:
            change = torch.dot(way.flatten(), joined.flatten()) * group["lr"] ** 2
            way.mul_((group["trust"] / change.clamp(min=torch.finfo(change.dtype).tiny)).sqrt().clamp(max=1.0))
        inputs = weight[0].numel()
        self._move(weight, way[:, :inputs].reshape(weight.shape), group)
        if bias is None:
            return {weight}
        self._move(bias, way[:, inputs], group_of[bias])
        return {weight, bias}

    def _follow(self, layer: Layer, factors: tuple[Tensor, Tensor], group: dict[str, Any]) -> None:
        """Bring a layer's factors up to date, and from time to time their inverses."""
        held = self.state[layer.weight]
        count = int(held.get("step", 0))
        if count == 0:
            for name, factor in zip(FACTORS, factors, strict=True):
                held[name], held[f"{name}_inverse"] = factor.clone(), torch.empty_like(factor)
        else:
            new = 1.0 - min(count / (count + 1), group["decay"])
            for name, factor in zip(FACTORS, factors, strict=True):
                held[name].lerp_(factor, new)
        if count % group["interval"] == 0:
            self._invert(layer, held, group["damping"])
        held["step"] = torch.tensor(float(count + 1))

    def _invert(self, layer: Layer, held: dict[str, Tensor], damping: float) -> None:
        sizes = [held[name].diagonal().mean() for name in FACTORS]
        smallest = torch.finfo(sizes[0].dtype).tiny ** 0.5
        ratio = (sizes[0].clamp(min=smallest) / sizes[1].clamp(min=smallest)).sqrt()
        for name, share in zip(FACTORS, (ratio, 1.0 / ratio), strict=True):
            damped = held[name].clone()
            damped.diagonal().add_(share * damping**0.5)
            found = torch.linalg.cholesky_ex(damped)
            del damped
            if found.info:
                raise LpcError(_singular(layer, name, damping))
            held[f"{name}_inverse"].copy_(torch.cholesky_inverse(found.L))

    def _move(self, parameter: nn.Parameter, way: Tensor, group: dict[str, Any]) -> None:
        if group["momentum"]:
            held = self.state[parameter]
            if "momentum_buffer" not in held:
                held["momentum_buffer"] = torch.zeros_like(parameter)
            way = held["momentum_buffer"].mul_(group["momentum"]).add_(way)
        parameter.add_(way, alpha=-group["lr"])


def _slope(parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
    assert parameter.grad is not None, "a parameter with a gradient"
    if not group["weight_decay"]:
        return parameter.grad
    return parameter.grad.add(parameter, alpha=group["weight_decay"])


def _singular(layer: Layer, name: str, damping: float) -> Diagnostic:
    message = f"the factor of the {name} of `{layer.name}` cannot be inverted with a damping of {damping:g}"
    return Diagnostic("0659", message, place="optimizer kfac")
