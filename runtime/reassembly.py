"""How do tensors of a checkpoint fit what a rank holds? Parts are put together, and cut anew where it holds others.

A file of one rank's part of a block names the tensors that are parts, with their whole shapes. What a rank wants of
them are views of mapped files, which are read when they are used; only what several files hold is put together before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from lpc.runtime.state import State

Shape = tuple[int, ...]


def subject(name: str) -> str:
    """Return the parameter that an entry of a checkpoint is of or belongs to; nothing where it is of none."""
    kind, _, key = name.partition(".")
    if kind == "state":
        return key
    return str(json.loads(key)[1]) if kind == "optimizer" else ""


def parts(tensors: Mapping[str, Tensor], state: State) -> dict[str, Shape]:
    """Return the entries of a checkpoint of which this rank has a part each, with the shapes of the whole ones."""
    found: dict[str, Shape] = {}
    for name, tensor in tensors.items():
        parameter = subject(name)
        if parameter in state.shards and tensor.shape == state.own[parameter].shape:
            found[name] = tuple(int(axis) for axis in state.entries[parameter].type.shape)
    return found


def cut(tensors: Mapping[str, Tensor], state: State | None) -> dict[str, Tensor]:
    """Return entries of whole blocks as a rank with this state holds them."""
    if state is None or not state.shards:
        return dict(tensors)
    return {name: state.part(subject(name), tensor) for name, tensor in tensors.items()}


@dataclass
class Reassembly:
    """Puts the entries of a block together from the files of its parts, which come in order."""

    state: State | None  # of whoever wants them; without one all of them are wanted
    shapes: dict[str, Shape] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    pieces: dict[str, list[Tensor]] = field(default_factory=dict)
    others: dict[str, Tensor] = field(default_factory=dict)

    def add(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> None:
        """Take a file's tensors, those in `shapes` being parts."""
        for name, tensor in tensors.items():
            if name not in shapes:
                self.others[name] = tensor
                continue
            self.shapes[name] = tuple(shapes[name])
            first = self.ends.get(name, 0)
            self.ends[name] = last = first + tensor.numel()
            low, high = (max(first, min(bound, last)) - first for bound in self.wanted(name))
            self.pieces.setdefault(name, []).append(tensor[low:high])

    def wanted(self, name: str) -> tuple[int, int]:
        """Return the first number that is wanted of an entry, and the one after the last."""
        shard = self.state.shards.get(subject(name)) if self.state is not None else None
        return (shard.first, shard.last) if shard is not None else (0, prod(self.shapes[name]))

    def joined(self) -> dict[str, Tensor]:
        """Return all entries. Raises ValueError where a part is missing."""
        found = dict(self.others)
        for name, own in self.pieces.items():
            if self.ends[name] != prod(self.shapes[name]):
                raise ValueError(f"a part of `{name}` is missing")
            filled = [piece for piece in own if len(piece)]
            joined = filled[0] if len(filled) == 1 else torch.cat(filled)
            whole = self.wanted(name) == (0, self.ends[name])
            found[name] = joined.reshape(self.shapes[name]) if whole else joined
        return found
