"""How is a network made that does not fit this machine? Its large tensors are reserved, and never written.

An operating system gives memory to a tensor when it is first written. While this mode is active large new tensors are
left as they are: neither filled nor changed in place. Their shapes and names are right, their numbers are nothing.
The one module that relies on this; estimates use it, and look at no number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
LARGE = 2**18  # elements

# What fills a new tensor: the position of its size among the arguments, or None for a tensor like the first argument.
FILLING = {
    aten.zeros.default: 0, aten.ones.default: 0, aten.full.default: 0, aten.rand.default: 0, aten.randn.default: 0,
    aten.zeros_like.default: None, aten.ones_like.default: None, aten.full_like.default: None,
    aten.rand_like.default: None, aten.randn_like.default: None, aten._to_copy.default: None, aten.clone.default: None,
}  # fmt: skip


class Unwritten(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves large tensors unwritten, those of fakes included, which have no numbers anyway."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in FILLING and (made := _reserved(func, args, options)) is not None:
            return made
        if func._schema.is_mutable and args and isinstance(args[0], Tensor) and _is_large(args[0]):
            return args[0]
        return func(*args, **options)


def _reserved(func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Tensor | None:
    """Return an unwritten tensor in place of a large one that `func` would fill."""
    like = next((leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)), None)
    place = FILLING[func]
    size = list(args[place]) if place is not None else list(like.shape) if like is not None else []
    if not all(isinstance(length, int) for length in size) or torch.Size(size).numel() < LARGE:
        return None
    dtype = options.get("dtype") or (like.dtype if like is not None else torch.get_default_dtype())
    device = options.get("device") or (like.device if like is not None else None)
    return torch.empty(size, dtype=dtype, device=device)


def _is_large(tensor: Tensor) -> bool:
    return all(isinstance(length, int) for length in tensor.shape) and tensor.numel() >= LARGE
