"""Which tensors does a plan train? Parameters and buffers by name, allocated once and updated in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor, nn

from lpc.runtime.decode import dtype_of
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.image import CHUNK, Image
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Shard, StateEntry
from lpc.specs.plan.weights import tensor_places

Places = Mapping[str, tuple[TensorType, int]]  # of the tensors in an image of weights: type, first byte


class State:
    """The network's and the heads' tensors; tied names share one tensor. Each keeps its identity for life.

    Of a parameter in `shards` it holds a part, which is flat.
    """

    def __init__(
        self, entries: Mapping[str, StateEntry], weights: Image, device: torch.device,
        shards: Mapping[str, Shard] | None = None,
    ) -> None:
        self.entries, self.shards = dict(entries), dict(shards or {})
        self.owner = {alias: e.name for e in entries.values() for alias in (e.name, *e.aliases)}
        places = _places(weights)
        self.own = {n: _allocate(e, places, weights, device, self.shards.get(n)) for n, e in self.entries.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor of a name or of an alias; it is updated in place."""
        if name in self.owner:
            return self.own[self.owner[name]]
        raise LpcError(_unknown(name, self.owner, "the plan"))

    def state_dict(self) -> dict[str, Tensor]:
        """Return {name: tensor} with all tied names, as `nn.Module.state_dict()`; tensors share memory."""
        return {name: self[name].detach() for name in self._names()}

    def load_state_dict(self, values: Mapping[str, Tensor], strict: bool = True) -> None:
        """Copy values into the state, whole ones or parts as they are held; a tied tensor may have any of its names.

        Errors, all in one LpcError before anything is copied: shapes that differ; with `strict` also unknown
        and missing names.
        """
        problems = list(self._problems(values, strict))
        if problems:
            raise LpcError(problems)
        with torch.no_grad():
            for name, value in values.items():
                if name in self.owner:
                    self[name].copy_(self.part(name, value))

    def part(self, name: str, value: Tensor) -> Tensor:
        """Return what the state holds of a tensor that is like a whole one: all of it, or a flat part."""
        shard, entry = self.shards.get(name), self.entries.get(name)
        if shard is None or entry is None or tuple(value.shape) != entry.type.shape:
            return value
        return value.reshape(-1)[shard.first : shard.last]

    def _names(self) -> list[str]:
        return [name for entry in self.entries.values() for name in (entry.name, *entry.aliases)]

    def _problems(self, values: Mapping[str, Tensor], strict: bool) -> Iterator[Diagnostic]:
        given = {self.owner[name] for name in values if name in self.owner}
        for name, value in values.items():
            if name in self.owner and self.part(name, value).shape != self[name].shape:
                found, wanted = tuple(value.shape), self.entries[self.owner[name]].type.shape
                yield Diagnostic("0647", f"`{name}` has shape {found}, expected {wanted}", place="state_dict")
            elif strict and name not in self.owner:
                yield _unknown(name, self.owner, "the state")
        if strict:
            for name in self.own:
                if name not in given:
                    yield Diagnostic("0649", f"`{name}` is missing", place="state_dict")


def _places(weights: Image) -> Places:
    try:
        return tensor_places(weights)
    except LpcError as error:
        message = f"the plan's weights cannot be read: {error.diagnostics[0].message}"
        raise LpcError(Diagnostic("0505", message, place="weights")) from None


def _allocate(
    entry: StateEntry, places: Places, weights: Image, device: torch.device, shard: Shard | None
) -> Tensor:
    """Return a tensor's value in memory of its own, or that of the part that is held: nothing else is read."""
    place = f"state {entry.name}"
    if entry.name not in places:
        raise LpcError(Diagnostic("0649", f"the plan's weights lack `{entry.name}`", place=place))
    found, start = places[entry.name]
    dtype = dtype_of(entry.type.dtype, place)
    if found != entry.type:
        message = f"the plan's weights hold `{entry.name}` as {found}, expected {entry.type}"
        raise LpcError(Diagnostic("0647", message, place=place))
    shape = [int(axis) for axis in entry.type.shape]
    first, last = (0, prod(shape)) if shard is None else (shard.first, shard.last)
    own = torch.empty(shape if shard is None else [last - first], dtype=dtype)
    flat, most = own.view(-1), CHUNK // dtype.itemsize
    for index, one in enumerate(range(first, last, most)):
        read = weights[start + one * dtype.itemsize : start + min(one + most, last) * dtype.itemsize]
        flat[index * most :][:most].copy_(torch.frombuffer(bytearray(read), dtype=dtype))
    own = own.to(device)
    return nn.Parameter(own, requires_grad=entry.trainable) if entry.kind == "parameter" else own


def _unknown(name: str, known: Mapping[str, str], where: str) -> Diagnostic:
    near = did_you_mean(name, known)
    notes = (near,) if near else ()
    return Diagnostic("0648", f"`{name}` is no tensor of {where}", place="state_dict", notes=notes)
