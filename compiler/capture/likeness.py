"""When do two modules, or two functions, the same on tensors that are given to them? When their likenesses are equal.

A likeness is plain data: classes, code, numbers and text. Whatever is nothing of the kind is like itself alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

_DEPTH = 8  # containers and closures within each other
_PLAIN = (bool, int, float, complex, str, bytes, type, CodeType, BuiltinFunctionType, torch.dtype, torch.device)
_TENSORS = ("_parameters", "_buffers", "_modules")


def module_likeness(module: nn.Module) -> Any:
    """Return a module's likeness: its class, its attributes, the types of its tensors, and its parts'; no numbers."""
    own = {key: value for key, value in vars(module).items() if key not in _TENSORS}
    tensors = [(n, _type(t)) for kind in _TENSORS[:2] for n, t in getattr(module, kind).items()]
    parts = [(n, None if part is None else module_likeness(part)) for n, part in module._modules.items()]
    return type(module), likeness(own), tensors, parts


def likeness(value: Any, depth: int = _DEPTH) -> Any:
    """Return the likeness of a value, which may hold functions."""
    if value is None or isinstance(value, _PLAIN):
        return type(value), value
    if not depth:
        return "itself", id(value)
    if isinstance(value, Mapping):
        return type(value), [(likeness(k, depth - 1), likeness(v, depth - 1)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [likeness(item, depth - 1) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(likeness(item, depth - 1)) for item in value)
    if isinstance(value, partial):
        return partial, likeness([value.func, value.args, value.keywords], depth - 1)
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        known = id(value.__globals__)  # where its names are looked up
        return value.__code__, known, likeness([held, value.__defaults__, value.__kwdefaults__], depth - 1)
    return "itself", id(value)


def _type(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.dtype, tuple(tensor.shape), tensor.requires_grad)
