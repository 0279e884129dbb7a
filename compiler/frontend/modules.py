"""Which layers does torch.nn lack? Shapes, merges and self-attention as modules, so that each has a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reshape(nn.Module):
    """[batch, ...] -> [batch, *shape]; one -1 is inferred."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def extra_repr(self) -> str:
        return f"shape={self.shape}"


class Transpose(nn.Module):
    """Swaps two axes."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.axes = (a, b)

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(*self.axes)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"


class Permute(nn.Module):
    """Reorders all axes."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        return f"dims={self.dims}"


class Mean(nn.Module):
    """Means along axes."""

    def __init__(self, dim: Sequence[int], keep: bool = False) -> None:
        super().__init__()
        self.dim, self.keep = tuple(dim), keep

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dim, keepdim=self.keep)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, keep={self.keep}"


class Select(nn.Module):
    """One slice along an axis."""

    def __init__(self, dim: int, index: int) -> None:
        super().__init__()
        self.dim, self.index = dim, index

    def forward(self, x: Tensor) -> Tensor:
        return x.select(self.dim, self.index)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, index={self.index}"


class Add(nn.Module):
    """Sum of its inputs, from the left."""

    def forward(self, *inputs: Tensor) -> Tensor:
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total


class Multiply(nn.Module):
    """Product of its inputs, from the left."""

    def forward(self, *inputs: Tensor) -> Tensor:
        product = inputs[0]
        for x in inputs[1:]:
            product = product * x
        return product


class Concat(nn.Module):
    """Its inputs side by side along an axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Patches(nn.Module):
    """Cuts an image into patches that do not overlap: [batch, channels, height, width] -> [batch, patches, pixels].

    Patches come row by row; inside a patch the order is row, column, channel.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        rows = torch.unflatten(x, 2, (-1, height))
        grid = torch.unflatten(rows, 4, (-1, width))  # channel, patch row, row, patch column, column
        return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class MaskedLinear(nn.Linear):
    """A dense linear map whose errors go back within groups alone: those of a group of outputs to the same inputs.

    A group's loss then teaches what it alone depends on, and dense weights besides; nothing is copied for it.
    """

    def __init__(self, channels: int, out: int, groups: int, bias: bool = True) -> None:
        super().__init__(channels, out, bias)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return _WithinGroups.apply(x, self.weight, self.bias, self.groups)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}"


class _WithinGroups(torch.autograd.Function):
    """Dense forwards, block-diagonal backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups, ctx.biased = groups, bias is not None
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        out, channels = weight.shape
        parts = weight.view(ctx.groups, out // ctx.groups, ctx.groups, channels // ctx.groups)
        own = parts.diagonal(dim1=0, dim2=2)  # [outputs, inputs, groups] of a group
        errors = cotangent.reshape(*cotangent.shape[:-1], ctx.groups, -1)
        back = torch.einsum("...go,oig->...gi", errors, own).flatten(-2)
        rows = cotangent.flatten(0, -2)
        return back, rows.mT @ x.flatten(0, -2), rows.sum(0) if ctx.biased else None, None


class GroupedLinear(nn.Module):
    """A linear map of its own for each group: [batch, ..., groups, channels] -> [batch, ..., groups, out].

    `weight` is [groups, out, channels], `bias` [groups, out]; each group begins as an nn.Linear does.
    """

    def __init__(self, groups: int, channels: int, out: int, bias: bool = True) -> None:
        super().__init__()
        maps = [nn.Linear(channels, out, bias) for _ in range(groups)]
        self.weight = nn.Parameter(torch.stack([m.weight.detach() for m in maps]))
        self.bias = nn.Parameter(torch.stack([m.bias.detach() for m in maps])) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...gi,goi->...go", x, self.weight)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        groups, out, channels = self.weight.shape
        return f"groups={groups}, channels={channels}, out={out}, bias={self.bias is not None}"


class OuterRMSNorm(nn.Module):
    """x / (sqrt(mean(x^2)) + eps) over the last axis: eps is outside the root (Hinton 2022, Forward-Forward).

    Without a shift of the mean, so that only the direction of the activities is passed on.
    """

    def __init__(self, width: int, eps: float, affine: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        normed = x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps)
        return normed if self.weight is None else normed * self.weight

    def extra_repr(self) -> str:
        return f"eps={self.eps}, affine={self.weight is not None}"


class StraightThroughReLU(nn.Module):
    """max(x, 0) with the gradient of the identity (Bengio et al. 2013, arXiv 1308.3432)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x - x.detach())  # x - x is 0 exactly, and its gradient that of x


class StraightThroughSign(nn.Module):
    """1 above 0, else -1; the gradient is that of the identity, or of x clipped to [-1, 1] (arXiv 1308.3432)."""

    def __init__(self, clips: bool = False) -> None:
        super().__init__()
        self.clips = clips

    def forward(self, x: Tensor) -> Tensor:
        passed = x.clamp(-1.0, 1.0) if self.clips else x
        return torch.where(x > 0, 1.0, -1.0).to(x.dtype) + (passed - passed.detach())  # 0 exactly, with its gradient

    def extra_repr(self) -> str:
        return f"clips={self.clips}"


class SelfAttention(nn.Module):
    """Multi-head self-attention over [batch, tokens, channels] (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(
        self, channels: int, heads: int, dropout: float = 0.0, bias: bool = True, causal: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.qkv = nn.Linear(channels, 3 * channels, bias=bias)
        self.out = nn.Linear(channels, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"heads={self.heads}, dropout={self.dropout}, causal={self.causal}"
