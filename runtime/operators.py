"""Which Python callable runs an operator? The quickest one that is exactly that operator."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.operators import is_allowed

# Under inference mode these return their argument unchanged but for a new tensor object.
IDENTITIES = frozenset({"aten.detach.default", "aten.alias.default"})

INTEGER_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "truediv": operator.truediv,
    "mod": operator.mod,
    "pow": operator.pow,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "max": max,
    "min": min,
    "sym_max": max,
    "sym_min": min,
    "sym_float": float,
    "sym_int": int,
}

_FUNCTIONS = """
    aten.abs.default aten.add.Tensor aten.addmm.default aten.amax.default aten.argmax.default
    aten.baddbmm.default aten.bmm.default aten.cat.default aten.clamp_min.default aten.clone.default
    aten.constant_pad_nd.default
    aten.convolution.default aten.cos.default aten.div.Tensor aten.embedding.default aten.empty.memory_format
    aten.eq.Scalar aten.eq.Tensor aten.erf.default aten.exp.default aten.full.default aten.full_like.default
    aten.gather.default aten.ge.Scalar aten.ge.Tensor aten.gt.Scalar aten.gt.Tensor aten.index_select.default
    aten.le.Scalar aten.le.Tensor aten.log.default aten.logical_not.default aten.lt.Scalar aten.lt.Tensor
    aten.masked_fill.Scalar aten.maximum.default aten.mean.default aten.mean.dim aten.minimum.default
    aten.mm.default aten.mul.Tensor aten.native_batch_norm.default aten.native_group_norm.default
    aten.native_layer_norm.default aten.ne.Scalar aten.ne.Tensor aten.neg.default aten.ones_like.default
    aten.permute.default aten.pow.Tensor_Scalar aten.reciprocal.default aten.relu.default aten.rsqrt.default
    aten.rsub.Scalar aten.select.int aten.sigmoid.default aten.sign.default aten.sin.default
    aten.split.Tensor aten.sqrt.default aten.squeeze.dim aten.stack.default aten.sub.Tensor
    aten.sum.default aten.sum.dim_IntList aten.t.default aten.tanh.default aten.transpose.int
    aten.unsqueeze.default aten.where.self aten.zeros_like.default
    aten._softmax.default aten._log_softmax.default
"""

# `torch.mm(a, b)` reaches the overload `aten.mm.default` through a generated argument parser: 0.3 to 0.5 us
# less a call than `torch.ops`, 2 us for creation operators. A test compares the overloads that are reached.
BINDINGS: dict[str, str] = {name: "torch." + name.split(".")[1] for name in _FUNCTIONS.split()} | {
    "aten.view.default": "torch.Tensor.view",
    "aten.expand.default": "torch.Tensor.expand",
    "aten.sym_size.int": "torch.Tensor.size",
    "aten.gelu.default": "torch._C._nn.gelu",
    "aten.silu.default": "torch._C._nn.silu",
    "aten.softplus.default": "torch._C._nn.softplus",
    "aten.avg_pool2d.default": "torch._C._nn.avg_pool2d",
    "aten.max_pool2d_with_indices.default": "torch._C._nn.max_pool2d_with_indices",
}


def overload(name: str, place: str) -> Any:
    """Return the `OpOverload` of an operator such as `aten.mm.default`; checks the allow-list first."""
    if not is_allowed(name):
        message = f"operator `{name}` is not in the list of allowed operators"
        raise LpcError(Diagnostic("0530", message, place=place))
    namespace, _, rest = name.partition(".")
    packet, _, variant = rest.rpartition(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), packet), variant)
    except AttributeError:
        message = f"torch {torch.__version__} has no operator `{name}`"
        raise LpcError(Diagnostic("0642", message, place=place)) from None


def quickest(name: str, found: Any) -> Callable[..., Any]:
    """Return the fastest callable of an overload: a generated binding, else its own entry point."""
    target: Any = torch
    for part in BINDINGS.get(name, "").split(".")[1:]:
        target = getattr(target, part, None)
    if target is not torch and callable(target):
        return target  # type: ignore[no-any-return]
    direct = getattr(found, "_op", None)  # skips one Python frame of OpOverload.__call__
    return direct if callable(direct) else found  # type: ignore[no-any-return]
