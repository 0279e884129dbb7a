"""Which head do several blocks have in common? The network's own last block, on the output of each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from lpc.compiler.setting import Setting


class Shared(nn.Module):
    """The output's block on another block's output. It trains nothing.

    `sources` maps its tensors' names here to those in the network whose values it reads; what it lacks is a copy.
    """

    def __init__(self, block: fx.GraphModule, tied: bool) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)
        self.requires_grad_(False)
        names = (*dict(block.named_parameters(remove_duplicate=False)), *dict(block.named_buffers()))
        self.sources: Mapping[str, str] = {f"block.{name}": name for name in names} if tied else {}

    def forward(self, x: Tensor) -> Tensor:
        (output,) = self.block(x)
        return output  # type: ignore[no-any-return]


def shared_readout(setting: Setting, options: Mapping[str, Any]) -> nn.Module:
    """The network's own norm and classifier: a frozen copy, or tied to what the output's loss makes of them."""
    if setting.ahead is None:
        raise ValueError("it is the output's block, which stands before no other")
    setting.outputs()
    block = setting.ahead.output()
    inputs = [node for node in block.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise ValueError("the output's block reads several tensors")
    wanted = [int(size) for size in inputs[0].meta["val"].shape[1:]]
    head = Shared(block, options["weights"] == "tied")
    try:
        copy.deepcopy(head).to("meta")(torch.empty(2, *setting.sizes(), device="meta"))
    except RuntimeError as error:
        raise ValueError(f"the output's block reads {wanted}") from error
    return head
