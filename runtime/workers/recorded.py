"""Which order does a journal hold? All versions of all ranks, if the journal is whole and of this plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lpc.runtime.workers.order import FORMAT
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.source import Source, Span

HEADER: dict[str, type] = {
    "format": int, "plan": str, "ranks": int, "staleness": int, "threads": int, "torch": str, "first": int,
}  # fmt: skip
ROW: dict[str, type] = {"step": int, "rank": int, "version": int, "consumed": dict, "staleness": dict}
LAST: dict[str, type] = {"steps": int, "weights": dict, "lines": str}
MOST_RANKS = 4096


@dataclass(frozen=True)
class Recorded:
    """The order of a run: for each rank, at which version it began each step; the hashes of the weights at the end."""

    ranks: int
    threads: int
    torch: str
    steps: int
    versions: tuple[Mapping[int, int], ...]
    weights: Mapping[str, str]


def read_order(path: Path, plan: str) -> Recorded:
    """Read the journal of a finished run of the plan with this hash.

    Raises LpcError, with the line: 0674 one that is damaged or not whole, 0675 one of another plan.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise LpcError(Diagnostic("0674", f"it is no text: {error.reason}", place=str(path))) from None
    return _Reader(Source(str(path), text)).read(plan)


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source, self.lines = source, source.text.splitlines()

    def read(self, plan: str) -> Recorded:
        if not self.lines:
            self.refuse(1, "it is empty")
        header = self.row(1, HEADER)
        if header["format"] != FORMAT:
            self.refuse(1, f"it has format {header['format']}, expected {FORMAT}")
        if header["plan"] != plan:
            self.refuse(1, "it is of another plan", "0675")
        if not (0 < header["ranks"] <= MOST_RANKS and header["threads"] > 0 and header["staleness"] > 0):
            self.refuse(1, "it says of no ranks, threads or staleness")
        if header["first"]:
            self.refuse(1, f"it begins at step {header['first']}, where the run went on with other processes")
        last = self.row(len(self.lines), LAST, "it has no last line: the run did not end")
        before = self.source.text[: self.source.offset(len(self.lines), 1)]
        if hashlib.sha256(before.encode()).hexdigest() != last["lines"]:
            self.refuse(len(self.lines), "the lines before are not those that the run wrote")
        versions = self.versions(header, last["steps"])
        weights = {str(block): str(digest) for block, digest in last["weights"].items()}
        return Recorded(header["ranks"], header["threads"], header["torch"], last["steps"], versions, weights)

    def versions(self, header: Mapping[str, Any], steps: int) -> tuple[dict[int, int], ...]:
        """Each rank begins each step once, in order, with versions that grow and are not older than is allowed."""
        found: tuple[dict[int, int], ...] = tuple({} for _ in range(header["ranks"]))
        for number in range(2, len(self.lines)):
            row = self.row(number, ROW)
            step, rank, version = row["step"], row["rank"], row["version"]
            if not 0 <= rank < header["ranks"] or len(found[rank]) != step:
                self.refuse(number, f"step {step} of rank {rank} does not come next")
            if not max(step - header["staleness"], found[rank].get(step - 1, 0)) <= version <= step:
                self.refuse(number, f"step {step} of rank {rank} cannot have begun at version {version}")
            found[rank][step] = version
        for rank, own in enumerate(found):
            if len(own) != steps:
                self.refuse(len(self.lines), f"of {steps} steps there are {len(own)} of rank {rank}")
        return found

    def row(self, number: int, wanted: Mapping[str, type], otherwise: str | None = None) -> dict[str, Any]:
        """Return a line as an object with the keys that it must have."""
        line = self.lines[number - 1]
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            column = getattr(error, "colno", 1)
            self.refuse(number, otherwise or f"the line is no JSON: {getattr(error, 'msg', error)}", column=column)
        for key, kind in wanted.items():
            if not isinstance(row, dict) or type(row.get(key)) is not kind:
                self.refuse(number, otherwise or f"the line has no `{key}`, of type {kind.__name__}")
        assert isinstance(row, dict)
        return row

    def refuse(self, number: int, message: str, code: str = "0674", column: int = 1) -> NoReturn:
        line = self.lines[number - 1] if number <= len(self.lines) else ""
        span = Span(self.source, number, min(column, len(line) + 1), number, len(line) + 1)
        raise LpcError(Diagnostic(code, f"the order cannot be replayed: {message}", span))
