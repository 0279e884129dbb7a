"""What is a tensor's type in a plan? Dtype by name, and shape with symbolic lengths as text."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, fx

from lpc.specs.plan.kernel import TensorType


def tensor_type(value: Tensor, symbols: Mapping[str, str]) -> TensorType:
    """Return the plan's type of a (fake) tensor; `symbols` renames sympy symbols (`s13` -> `B`)."""
    return TensorType(dtype_name(value.dtype), tuple(length(size, symbols) for size in value.shape))


def tensor_types(network: fx.GraphModule) -> dict[str, tuple[torch.dtype, tuple[int | str, ...]]]:
    """Return dtype and shape of every tensor of a network's graph."""
    symbols = network.meta.get("symbols", {})
    values = {node.name: node.meta.get("val") for node in network.graph.nodes if node.op != "output"}
    return {
        name: (value.dtype, tuple(length(size, symbols) for size in value.shape))
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def dtype_name(dtype: torch.dtype) -> str:
    """Return `float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """Return the torch dtype called `name`."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def length(size: int | torch.SymInt, symbols: Mapping[str, str]) -> int | str:
    """Return a static length as an int, a symbolic one as an expression such as `B*49`."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = str(size.node.expr)
    if re.fullmatch(r"\d+", expression):
        return int(expression)
    return re.sub(r"[A-Za-z_]\w*", lambda m: symbols.get(m[0], m[0]), expression)
