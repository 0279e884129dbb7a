"""On which device does a graph create its tensors? Traces hold the device of the machine that traced them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_map_only


def on_device(module: fx.GraphModule, device: torch.device) -> None:
    """Make every operator of a graph that names a device name `device`, in place."""
    for node in module.graph.nodes:
        if node.op in ("call_function", "call_method"):
            node.args = _moved(node.args, device)
            node.kwargs = _moved(node.kwargs, device)
    module.recompile()


def _moved(value: Any, device: torch.device) -> Any:
    return tree_map_only(torch.device, lambda _: device, value)
