"""How are mutations traced away? By torch's own mode, on a shorter way for plain operators.

Once simplified, graphs are those of `FunctionalTensorMode`, for a third less of a trace's time: a tensor cut from
autograd is the same value to a graph, so that no node is made for it, to be removed again; and the lengths that torch
works out while it makes a wrapper (of its storage, for one) are nobody's, so that no nodes are made for them either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, get_proxy_slot
from torch.utils._python_dispatch import return_and_correct_aliasing

aten = torch.ops.aten
_dispatcher: Any = torch._C
_functional: Any = torch
_aliased: Any = return_and_correct_aliasing
# Views that are made again have the annotations of those before; torch has them since 2.12.
_annotate_replays: Any = getattr(FunctionalTensorMode, "_sync_view_replay_annotations", lambda *_: None)


class Functional(FunctionalTensorMode):  # type: ignore[no-untyped-call]
    """Inside, tensors are functional ones: what operators write becomes values of its own."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is aten.detach.default and isinstance(args[0], FunctionalTensor):
            return _aliased(func, args, {}, self.wrapped(args[0].elem))
        if not _is_plain(func):
            if torch.Tag.inplace_view in func.tags:  # a tensor cut from this one has the same value, but its own shape
                args[0].elem = _functionalized(aten.detach.default, [args[0].elem], {})
            return super().__torch_dispatch__(func, types, args, kwargs)
        _annotate_replays(self, args, kwargs or {})
        inner = [_unwrapped(a) for a in args], {k: _unwrapped(a) for k, a in (kwargs or {}).items()}
        made = self.wrapped(_functionalized(func, *inner))
        return _aliased(func, args, kwargs or {}, made)

    def wrapped(self, value: Any) -> Any:
        """Return a value with its tensors as this mode's; lengths that torch works out meanwhile leave no node."""
        if isinstance(value, list | tuple):
            return type(value)(map(self.wrapped, value))
        if not isinstance(value, Tensor) or not _functional._is_functional_tensor(value):
            return value
        _read_lengths(value)
        with disable_proxy_modes_tracing():
            return FunctionalTensor(value, self)


def _read_lengths(tensor: Tensor) -> None:
    """Make a node, now and not when it is first needed, for every length that is read off this tensor."""
    mode = get_proxy_mode()
    sizes: list[Any] = [size for pair in zip(tensor.shape, tensor.stride(), strict=True) for size in pair]
    for size in sizes:
        if mode is not None and isinstance(size, torch.SymInt):
            get_proxy_slot(size, mode.tracer).force()


@cache
def _is_plain(func: Any) -> bool:
    """Is it an operator of torch itself, that is not made of others and changes no shape in place?"""
    if not isinstance(func, OpOverload) or func.namespace != "aten" or func is aten.lift_fresh.default:
        return False
    return (
        func not in FunctionalTensor.metadata_fns
        and torch.Tag.inplace_view not in func.tags
        and not func._can_decompose()
    )


def _unwrapped(value: Any) -> Any:
    if isinstance(value, FunctionalTensor):
        return value.elem
    return type(value)(map(_unwrapped, value)) if isinstance(value, list | tuple) else value


def _functionalized(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Run torch's functionalization of an operator, which takes over views as they are."""
    key = _dispatcher.DispatchKey.Functionalize
    included = _dispatcher._dispatch_tls_local_include_set() | _dispatcher.DispatchKeySet(key)
    excluded = _dispatcher._dispatch_tls_local_exclude_set().remove(key) - FunctionalTensor._extra_dispatch_keys
    with _dispatcher._ForceDispatchKeyGuard(included, excluded):
        before = _functional._functionalize_enable_reapply_views(True)
        try:
            return func._op_dk(key, *args, **kwargs)
        finally:
            _functional._disable_functionalization()
            _functional._functionalize_enable_reapply_views(before)
