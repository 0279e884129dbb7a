"""Which operators are written anew for their tangents? Those whose derivative cannot be differentiated, as mathematics.

Fused attention has no second derivative, those of batch norm, convolutions and embeddings fix the batch size,
and running statistics must not move twice. The formulas give the same values; only the tangents are taken from them.
Each entry stands for the function of `torch.nn.functional` and for the operator that exported graphs call.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Normalise each channel over the batch (training) or by running statistics, which stay as they are."""
    if not training:
        assert running_mean is not None
        assert running_var is not None
        shape = [1, -1] + [1] * (x.dim() - 2)
        normal = (x - running_mean.view(shape)) * torch.rsqrt(running_var.view(shape) + eps)
    else:
        normal = _normal(x, (0, *range(2, x.dim())), eps)
    return _by_channel(normal, weight, bias)


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Normalise each channel of each sample over its positions."""
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    return _by_channel(_normal(x, tuple(range(2, x.dim())), eps), weight, bias)


def native(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a norm as operators have it: scale and shift before the running statistics."""

    @functools.wraps(norm)
    def run(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *args: Any) -> Tensor:
        return norm(x, mean, variance, weight, bias, *args)

    return run


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


def convolution(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a convolution in whose derivatives by what moves the batch size stays free."""

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        made = operator(x.detach(), weight.detach(), None, *args, **kwargs)
        made = _moved(made, x, weight.detach(), lambda x, w: operator(x, w, None, *args, **kwargs))
        made = _moved(made, weight, x.detach(), lambda w, x: operator(x, w, None, *args, **kwargs))
        return made if bias is None else made + bias.view([-1] + [1] * (weight.dim() - 2))

    return run


def embedding(
    indices: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of a table, in whose derivative by the table the batch size stays free; that of padding is 0."""
    if max_norm is not None or scale_grad_by_freq:
        return F.embedding(indices, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    padding = -1 if padding_idx is None else padding_idx % weight.shape[0]

    def rows(table: Tensor, indices: Tensor) -> Tensor:
        found: Tensor = aten.embedding(table, indices)
        return found if padding < 0 else found.masked_fill((indices == padding).unsqueeze(-1), 0.0)

    return _moved(aten.embedding(weight.detach(), indices), weight, indices, rows)


def native_embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, *args: Any) -> Tensor:
    """Take rows of a table, as operators have it."""
    return embedding(indices, weight, None if padding_idx < 0 else padding_idx, None, 2.0, *args)


def _moved(made: Tensor, moving: Tensor, other: Tensor, linear: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return a result with the derivative by an operand in which it is linear, where that moves."""
    if not moving.requires_grad:
        return made
    by_operand: Callable[..., Tensor] = _Linear.apply
    moved = by_operand(moving, other, linear)
    return made + (moved - moved.detach())


class _Linear(torch.autograd.Function):
    """A function that is linear in its first operand, by which alone it is differentiated."""

    @staticmethod
    def forward(ctx: Any, moving: Tensor, other: Tensor, linear: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(moving, other)
        ctx.linear = linear
        return linear(moving, other)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        moving, other = ctx.saved_tensors
        transposed: Callable[..., Tensor] = _Transposed.apply
        return transposed(cotangent, moving.detach(), other, ctx.linear), None, None


class _Transposed(torch.autograd.Function):
    """That derivative, whose own by the cotangent is the function of the direction."""

    @staticmethod
    def forward(
        ctx: Any, cotangent: Tensor, moving: Tensor, other: Tensor, linear: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(other)
        ctx.linear = linear
        with torch.enable_grad():
            leaf = moving.detach().requires_grad_()
            (found,) = torch.autograd.grad(linear(leaf, other), leaf, cotangent)
        return found

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, None, None, None]:
        (other,) = ctx.saved_tensors
        return ctx.linear(direction, other), None, None, None


def _normal(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.pow(2).mean(axes, keepdim=True) + eps)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


def _by_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = [1, -1] + [1] * (x.dim() - 2)
    return _affine(x, None if weight is None else weight.view(shape), None if bias is None else bias.view(shape))


# Convolutions, and their packets of operators, which no mode for functions replaces again.
CONVOLUTIONS: dict[Any, Any] = {
    F.conv1d: aten.conv1d,
    F.conv2d: aten.conv2d,
    F.conv3d: aten.conv3d,
    F.conv_transpose1d: aten.conv_transpose1d,
    F.conv_transpose2d: aten.conv_transpose2d,
    F.conv_transpose3d: aten.conv_transpose3d,
}


def _overloads(packet: Any) -> list[Any]:
    return [getattr(packet, name) for name in packet.overloads() if not name.endswith("out")]


REWRITES: dict[Any, Callable[..., Any]] = {
    F.batch_norm: batch_norm,
    **dict.fromkeys((torch.batch_norm, aten.batch_norm.default), native(batch_norm)),
    F.instance_norm: instance_norm,
    **dict.fromkeys((torch.instance_norm, aten.instance_norm.default), native(instance_norm)),
    F.scaled_dot_product_attention: attention,
    aten.scaled_dot_product_attention.default: attention,
    F.embedding: embedding,
    **dict.fromkeys((torch.embedding, aten.embedding.default), native_embedding),
    **{call: convolution(packet) for f, packet in CONVOLUTIONS.items() for call in (f, *_overloads(packet))},
}


NAMES = {
    "batch_norm": "batch norm as mathematics",
    "instance_norm": "instance norm as mathematics",
    "attention": "attention as mathematics",
}


class RewrittenOperators(TorchFunctionMode):
    """Inside, modules call rewritten operators; `used` counts those whose mathematics was written out."""

    def __init__(self) -> None:
        super().__init__()
        self.used: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.apply(func, args, kwargs or {})

    def apply(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call an operator, or its rewriting: exported graphs call operators that no mode sees."""
        rewriting = REWRITES.get(func)
        name = NAMES.get(getattr(rewriting, "__name__", ""))
        if name is not None:
            self.used[name] += 1
        return (rewriting or func)(*args, **kwargs)
