"""What is kept of a run whose steps overlap? In which order its halves ran, a line for each step of each rank.

`order.jsonl` begins with a line on the run: plan, ranks, staleness, threads. A line for each step and rank follows (see
`pace.Overlap`), and the last one holds what the run came to: steps, the largest and mean staleness of an update, a hash
of each block's weights, and one of all lines before. Lines are added whenever all ranks meet, before a checkpoint that
covers them, and dropped when a run goes on from an earlier one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lpc.runtime.state import State
from lpc.runtime.workers.transport import Stamp
from lpc.specs.files import naming, write_atomically

if TYPE_CHECKING:
    from lpc.runtime.engine import Engine

FILE = "order.jsonl"
FORMAT = 1


class Order:
    """Writes the order of a run, on its first rank; all ranks call the same methods."""

    def __init__(self, worker: Engine, folder: Path | None, done: int) -> None:
        """Begin anew, or after `done` steps of an earlier run with the same ranks, of which later lines are dropped."""
        self.worker, self.transport = worker, worker.transport
        self.path = None if folder is None or self.transport.rank else folder / FILE
        self.count = self.total = self.largest = 0
        if self.path is not None:
            kept = self._kept(self.path, done) if done else []
            lines = kept or [self._header(done)]
            write_atomically(self.path, "".join(map(_line, lines)).encode())
            self._tell(lines[1:])

    def write(self) -> None:
        """Add the lines of steps that have ended; all ranks are at the same step, and none is under way."""
        assert self.worker.pace is not None
        rank, step = self.transport.rank, self.worker.steps_done
        own = [overlap.row(rank) for overlap in self.worker.pace.taken()]
        found = self.transport.exchange(own, Stamp(step, 0, "order"))
        rows = sorted((row for rows in found for row in rows), key=lambda row: (row["step"], row["rank"]))
        self._tell(rows)
        self._append(rows)

    def end(self) -> dict[str, Any]:
        """Add the last line, and return what the summary says of staleness."""
        worker = self.worker
        own = weights_of(worker.state) if worker.keeps else {}
        found = self.transport.exchange(own, Stamp(worker.steps_done, 0, "weights"))
        weights = {block: digest for held in found for block, digest in held.items()}
        mean = round(self.total / self.count, 6) if self.count else 0.0
        summary = {"largest": self.largest, "mean": mean}
        if self.path is not None:
            lines = hashlib.sha256(self.path.read_bytes()).hexdigest()
            last = {"steps": worker.steps_done, **summary, "weights": weights, "lines": lines}
            self._append([last])
        return {"staleness": summary}

    def _header(self, done: int) -> dict[str, Any]:
        return {
            "format": FORMAT, "plan": self.worker.identity, "ranks": self.transport.size,
            "staleness": self.worker.spec.run.staleness, "threads": torch.get_num_threads(),
            "torch": str(torch.__version__), "first": done,
        }  # fmt: skip

    def _kept(self, path: Path, done: int) -> list[dict[str, Any]]:
        """Return the lines that hold of an earlier run; none where it was another one, or lacks a step."""
        lines = rows_of(path.read_text("utf-8", errors="replace")) if path.exists() else []
        header = lines[0] if lines else {}
        kept = [row for row in lines[1:] if "rank" in row and row["step"] < done]
        whole = len(kept) == (done - header.get("first", done)) * self.transport.size
        same = {**header, "first": done} == self._header(done)
        return [header, *kept] if same and whole else []

    def _tell(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for staleness in (value for row in rows for value in row["staleness"].values()):
            self.count, self.total = self.count + 1, self.total + staleness
            self.largest = max(self.largest, staleness)

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.path is not None:
            with naming(self.path), self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(map(_line, rows)))


def rows_of(text: str) -> list[dict[str, Any]]:
    """Return the whole lines of an order up to the first that is none: a killed run may have left half of one."""
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict):
            break
        found.append(row)
    return found


def weights_of(state: State) -> dict[str, str]:
    """Return a hash of the parameters and buffers of each block."""
    found: dict[str, Any] = {}
    for name, entry in sorted(state.entries.items()):
        tensor: Tensor = state[name].detach().cpu().contiguous()
        data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        found.setdefault(entry.block, hashlib.sha256()).update(name.encode() + b"\0" + data)
    return {block: digest.hexdigest() for block, digest in found.items()}


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"
