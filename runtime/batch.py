"""Is this batch what the plan expects? Fields are checked once for each combination of shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lpc.runtime.decode import type_of
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.lengths import length

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Loaded:
    """A batch on the plan's device: its fields, its named lengths, and its number of samples."""

    fields: dict[str, Tensor]
    symbols: Mapping[str, int]
    size: int


class Gate:
    """Lets batches in that hold certain fields of certain types; other fields of a batch are left out."""

    def __init__(self, fields: Mapping[str, TensorType], names: Sequence[str], device: torch.device) -> None:
        self.types = {name: fields[name] for name in names if name in fields}
        self.device = device
        self.known: dict[tuple[object, ...], Mapping[str, int]] = {}

    def admit(self, batch: Batch) -> Loaded:
        """Return the batch on the device, its fields laid out as the kernels were captured: contiguously.

        Errors: 0656 a missing field, 0657 a wrong dtype or shape.
        """
        try:
            fields = {name: batch[name] for name in self.types}
            signature = tuple((value.shape, value.dtype) for value in fields.values())
        except (KeyError, AttributeError, TypeError):
            raise LpcError(self._unfit(batch)) from None
        symbols = self.known.get(signature)
        if symbols is None:
            symbols = self.known[signature] = self._symbols(fields)
        for name, value in fields.items():
            if value.device != self.device or not value.is_contiguous():
                fields[name] = value.to(self.device, non_blocking=True).contiguous()
        return Loaded(fields, symbols, symbols.get("B", 1))

    def _unfit(self, batch: object) -> Diagnostic:
        if not isinstance(batch, Mapping):
            message = f"a batch is a mapping from field names to tensors, not {type(batch).__name__}"
            return Diagnostic("0656", message, place="batch")
        for name, wanted in self.types.items():
            if name not in batch:
                near = did_you_mean(name, map(str, batch))
                notes = (f"it holds {', '.join(map(str, batch)) or 'nothing'}", *((near,) if near else ()))
                message = f"the batch lacks the field `{name}`: {wanted}"
                return Diagnostic("0656", message, place="batch", notes=notes)
        name, value = next((n, batch[n]) for n in self.types if not isinstance(batch[n], Tensor))
        message = f"field `{name}` is a {type(value).__name__}, expected a tensor {self.types[name]}"
        return Diagnostic("0657", message, place="batch")

    def _symbols(self, fields: Batch) -> Mapping[str, int]:
        """Bind every plain symbol to a length, then compare all axes; raises at the first difference."""
        symbols: dict[str, int] = {}
        for name, value in fields.items():
            wanted = self.types[name]
            found = type_of(value)
            if found.dtype != wanted.dtype or len(found.shape) != len(wanted.shape):
                raise LpcError(self._differs(name, value, symbols))
            for axis, size in zip(wanted.shape, value.shape, strict=True):
                if isinstance(axis, str) and axis.isidentifier():
                    symbols.setdefault(axis, size)
        for name, value in fields.items():
            lengths = [length(axis, f"field {name}") for axis in self.types[name].shape]
            if tuple(one(symbols) for one in lengths) != tuple(value.shape):
                raise LpcError(self._differs(name, value, symbols))
        return symbols

    def _differs(self, name: str, value: Tensor, symbols: Mapping[str, int]) -> Diagnostic:
        named = ", ".join(f"{symbol} = {size}" for symbol, size in symbols.items())
        message = f"field `{name}` is {type_of(value)}, expected {self.types[name]}"
        return Diagnostic("0657", message, place="batch", notes=(f"with {named}",) if named else ())


def split_batch(batch: Batch, parts: int) -> list[dict[str, Tensor]]:
    """Return a batch cut along the batch axis into equal parts. Errors: 0658 where none are possible."""
    sizes = {len(value) for value in batch.values()}
    if len(sizes) != 1 or next(iter(sizes)) % parts:
        found = ", ".join(f"{name}: {len(value)}" for name, value in batch.items())
        message = f"a step takes {parts} batches; this one ({found}) has no {parts} equal parts"
        raise LpcError(Diagnostic("0658", message, place="batch"))
    pieces = {name: value.chunk(parts) for name, value in batch.items()}
    return [{name: chunks[i] for name, chunks in pieces.items()} for i in range(parts)]
