"""Where are a sample's variables kept between its visits? Rows by its number, in memory, or in a file beyond a size."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

IN_MEMORY = 2**30  # bytes of one variable's rows; more are in a temporary file that the system pages
VISITS = "visits"
ROW = "row."  # before what is kept of a variable
MEMORY = "@"  # between a variable and an entry of its optimizer's memory


def variable_of(entry: str) -> str:
    """Return the variable that an entry of a cache belongs to; "" for the visits, which are those of all."""
    name = entry.removeprefix(ROW)
    return "" if name == entry else name.partition(MEMORY)[0]


class SampleCache:
    """Rows of each variable and visits of each sample, by the sample's number; as many as were seen."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self.in_memory = in_memory
        self.visits = torch.zeros(0, dtype=torch.int64)
        self.rows: dict[str, Tensor] = {}
        self.in_files: set[str] = set()

    def counted(self, index: Tensor) -> Tensor:
        """Return how often samples were visited before, by their numbers [B]."""
        self._hold(int(index.max()) + 1)
        return self.visits[index]

    def due(self, index: Tensor, period: int) -> Tensor:
        """Return which samples [B] are due: those at a first visit (period 0), or at one of every `period`."""
        counts = self.counted(index)
        return counts == 0 if period == 0 else counts % period == 0

    def fetch(self, name: str, index: Tensor) -> Tensor:
        """Return the rows of samples, on the CPU."""
        return self.rows[name][index]

    def store(self, name: str, index: Tensor, value: Tensor) -> None:
        """Keep rows [B, ...] as those of samples."""
        if name not in self.rows:
            self.rows[name] = self._room(name, len(self.visits), value[:0].cpu())
        self.rows[name][index] = value.cpu()

    def memory(self, name: str, index: Tensor) -> dict[str, Tensor]:
        """Return {entry: rows} of what a variable's optimizer knows of samples; nothing before it was solved."""
        prefix = f"{name}{MEMORY}"
        found = [kept for kept in self.rows if kept.startswith(prefix)]
        return {kept.removeprefix(prefix): self.fetch(kept, index) for kept in found}

    def remember(self, name: str, index: Tensor, memory: Mapping[str, Tensor]) -> None:
        """Keep {entry: rows} as what a variable's optimizer knows of samples."""
        for entry, rows in memory.items():
            self.store(f"{name}{MEMORY}{entry}", index, rows)

    def visit(self, index: Tensor) -> None:
        """Count a visit of each sample."""
        self.counted(index)
        self.visits[index] += 1

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (entry, tensor) of all that is kept."""
        if len(self.visits):
            yield VISITS, self.visits
            yield from ((f"{ROW}{name}", rows) for name, rows in self.rows.items())

    def load_state(self, values: Mapping[str, Tensor]) -> None:
        """Replace all that is kept by {entry: tensor}."""
        self.visits = values[VISITS].clone() if VISITS in values else torch.zeros(0, dtype=torch.int64)
        self.rows = {}
        for entry, value in values.items():
            if entry != VISITS:
                name = entry.removeprefix(ROW)
                self.rows[name] = self._room(name, len(value), value[:0])
                self.rows[name].copy_(value)

    def _hold(self, count: int) -> None:
        """Make room for samples with numbers below `count`, twice as much as before at least."""
        known = len(self.visits)
        if count <= known:
            return
        room = max(count, 2 * known)
        self.visits = torch.cat([self.visits, torch.zeros(room - known, dtype=torch.int64)])
        for name, old in self.rows.items():
            new = self._room(name, room, old[:0])
            new[:known] = old
            self.rows[name] = new

    def _room(self, name: str, count: int, like: Tensor) -> Tensor:
        shape = (count, *like.shape[1:])
        size = count * like[0:0].new_empty(like.shape[1:]).numel() * like.element_size()
        if size <= self.in_memory:
            return torch.zeros(shape, dtype=like.dtype)
        self.in_files.add(name)
        with tempfile.TemporaryFile() as file:  # what is mapped of it outlives its name and its handle
            mapped = np.memmap(file, dtype=str(like.dtype).removeprefix("torch."), mode="w+", shape=shape)
        return torch.from_numpy(mapped)
