"""Which operators are written anew for their tangents? Those whose derivative cannot be differentiated, as mathematics.

Fused attention has no second derivative, batch norm one that fixes the batch size, and running statistics must not
move twice. The formulas give the same values; only the tangents are taken from them. Each entry stands for the
function of `torch.nn.functional` and for the operator that exported graphs call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


def batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Normalise each channel over the batch (training) or by running statistics, which stay as they are."""
    if not training:
        assert mean is not None
        assert variance is not None
        shape = [1, -1] + [1] * (x.dim() - 2)
        normal = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + eps)
    else:
        normal = _normal(x, (0, *range(2, x.dim())), eps)
    return _by_channel(normal, weight, bias)


def instance_norm(
    x: Tensor,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Normalise each channel of each sample over its positions."""
    if not use_input_stats:
        return batch_norm(x, mean, variance, weight, bias, False, momentum, eps)
    return _by_channel(_normal(x, tuple(range(2, x.dim())), eps), weight, bias)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Softmax of scaled products, masked, times the values: [B, heads, T, C]."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -math.inf)
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if masked else scores + attn_mask
    return torch.matmul(F.dropout(scores.softmax(-1), dropout_p, dropout_p > 0.0), value)


def _normal(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.pow(2).mean(axes, keepdim=True) + eps)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


def _by_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = [1, -1] + [1] * (x.dim() - 2)
    return _affine(x, None if weight is None else weight.view(shape), None if bias is None else bias.view(shape))


REWRITES: dict[Any, Callable[..., Any]] = {
    F.batch_norm: batch_norm,
    torch.batch_norm: batch_norm,
    aten.batch_norm.default: batch_norm,
    F.instance_norm: instance_norm,
    torch.instance_norm: instance_norm,
    aten.instance_norm.default: instance_norm,
    F.scaled_dot_product_attention: attention,
    aten.scaled_dot_product_attention.default: attention,
}

def rewritten(target: Any) -> Callable[..., Any]:
    """Return the rewriting of an operator, or the operator."""
    return REWRITES.get(target, target)  # type: ignore[no-any-return]


class RewrittenOperators(TorchFunctionMode):
    """Inside, modules call rewritten operators."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rewriting = REWRITES.get(func)
        return (rewriting or func)(*args, **(kwargs or {}))
