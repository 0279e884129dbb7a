"""What does a layer multiply its weights with? The rows of its input, one for every output position: A = rows W."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lpc.compiler.capture.tracing import LabelledRun


@dataclass(frozen=True)
class Design:
    """A layer as a product: `weight` and `bias` are names of parameters, None where it is not trained.

    `unfold` holds a convolution's kernel, dilation, padding and stride; a linear layer has none.
    """

    weight: str
    bias: str | None
    unfold: Mapping[str, Any] | None = None

    def rows(self, x: Tensor) -> Tensor:
        """Return the layer's input as [rows, inputs], with a column of ones where there is a bias to learn."""
        flat = x if self.unfold is None else F.unfold(x, **self.unfold).transpose(1, 2)
        found = flat.flatten(0, -2)
        return found if self.bias is None else torch.cat([found, torch.ones_like(found[:, :1])], 1)

    def columns(self, a: Tensor) -> Tensor:
        """Return what is like the layer's output as [rows, outputs]."""
        return (a if self.unfold is None else a.movedim(1, -1)).flatten(0, -2)

    def join(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the trained weights as [inputs, outputs], the bias as the last row."""
        weight = state[self.weight].flatten(1).t()
        return weight if self.bias is None else torch.cat([weight, state[self.bias][None]], 0)

    def part(self, joined: Tensor, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what is like the joined weights by parameter."""
        like = state[self.weight]
        inputs = like[0].numel()
        found = {self.weight: joined[:inputs].t().reshape(like.shape)}
        return found if self.bias is None else found | {self.bias: joined[inputs]}


class UnlikeProductError(ValueError):
    """The layer is no product of rows with weights: the text says why."""


class InputRun(LabelledRun):
    """Runs a block's graph and keeps what the layer `at` reads."""

    def __init__(self, module: fx.GraphModule, at: str) -> None:
        super().__init__(module)
        self.at = at
        self.input: Tensor

    def run_node(self, n: fx.Node) -> Any:
        if n.name == self.at:
            self.input = self.env[n.args[0]]  # type: ignore[index]
        return super().run_node(n)


def design_of(network: fx.GraphModule, layer: fx.Node, trained: Mapping[str, str]) -> Design:
    """Return the layer at a node of a network; `trained` are the names in the plan of the parameters that learn.

    Raises UnlikeProductError for other layers than linear and two-dimensional convolution ones, or a layer that is not
    the only one of its block.
    """
    found = layer_design(network, layer, trained)
    if set(trained.values()) - {found.weight, found.bias}:
        raise UnlikeProductError("it trains more than the weights of its last layer")
    return found


def layer_design(network: fx.GraphModule, layer: fx.Node, trained: Mapping[str, str]) -> Design:
    """Return the layer at a node as above, whatever else learns."""
    if layer.op != "call_module":
        raise UnlikeProductError("its last layer is no module")
    module = network.get_submodule(str(layer.target))
    own = {n: trained.get(f"{layer.target}.{n}") for n in ("weight", "bias")}
    if own["weight"] is None:
        raise UnlikeProductError("it does not train the weights of its last layer")
    if type(module) is nn.Linear:
        return Design(own["weight"], own["bias"])
    if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
        if isinstance(module.padding, str):
            raise UnlikeProductError(f"its convolution is padded by the word `{module.padding}`")
        sizes = {k: tuple(getattr(module, k)) for k in ("dilation", "padding", "stride")}
        return Design(own["weight"], own["bias"], {"kernel_size": tuple(module.kernel_size), **sizes})
    raise UnlikeProductError(f"its last layer is a {type(module).__name__}")
