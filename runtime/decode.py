"""What does a JSON argument of a kernel node mean? Numbers, dtypes, devices, layouts and memory formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.kernel import Json, TensorType

DTYPES: dict[str, torch.dtype] = {
    name: value for name, value in sorted(vars(torch).items()) if isinstance(value, torch.dtype)
}
LAYOUTS: dict[str, torch.layout] = {"strided": torch.strided}
MEMORY_FORMATS: dict[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "preserve": torch.preserve_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
}
FLOATS: dict[str, float] = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}


def dtype_of(name: str, place: str) -> torch.dtype:
    """Return the torch dtype called `name`; an unknown name is a diagnostic."""
    dtype: torch.dtype = look_up(DTYPES, "dtype", name, place)
    return dtype


def type_of(tensor: torch.Tensor) -> TensorType:
    """Return the plan's type of a tensor."""
    return TensorType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def look_up(table: Mapping[str, Any], kind: str, name: object, place: str) -> Any:
    if isinstance(name, str) and name in table:
        return table[name]
    near = did_you_mean(str(name), table)
    raise LpcError(
        Diagnostic("0641", f"`{name}` is not a {kind}", place=place, notes=(near,) if near else ())
    )


def device_of(name: object, plan_device: torch.device, place: str) -> torch.device:
    device: torch.device = look_up({"plan": plan_device, "cpu": torch.device("cpu")}, "device", name, place)
    return device


def decode(value: Json, device: torch.device, place: str) -> Any:
    """Return the Python value of a JSON argument without references; unknown forms are a diagnostic."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [decode(item, device, place) for item in value]
    if len(value) == 1:
        ((kind, name),) = value.items()
        if kind in FORMS:
            return FORMS[kind](name, device, place)
    raise LpcError(Diagnostic("0641", f"an argument of the form {value!r:.80} has no meaning", place=place))


FORMS: dict[str, Callable[[Any, torch.device, str], Any]] = {
    "dtype": lambda name, device, place: dtype_of(name, place),
    "device": device_of,
    "layout": lambda name, device, place: look_up(LAYOUTS, "layout", name, place),
    "memory_format": lambda name, device, place: look_up(MEMORY_FORMATS, "memory format", name, place),
    "float": lambda name, device, place: look_up(FLOATS, "float", name, place),
}
