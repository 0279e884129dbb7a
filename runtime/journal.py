"""Where are metrics written? One JSON object a line, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.files import naming, write_atomically

FILE = "metrics.jsonl"


class Journal:
    """Appends rows to `metrics.jsonl`; a row is on disk, apart from power cuts, when `write` returns."""

    def __init__(self, folder: Path | None, upto: int = 0, tensorboard: bool = False) -> None:
        """Keep the rows of the first `upto` steps of an earlier run: later ones will be written again."""
        self.path = None if folder is None else folder / FILE
        if self.path is not None:
            kept = [row for row in rows(self.path) if row["step"] <= upto] if upto else []
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self.board = _board(folder, upto) if tensorboard and folder is not None else None

    def write(self, kind: str, step: int, epoch: float, values: Mapping[str, float], **more: float) -> None:
        """Append one row: `kind` is `train`, `validation` or `test`; infinities and NaN become null."""
        if self.path is not None:
            row = {"kind": kind, "step": step, "epoch": epoch, **values, **more}
            line = json.dumps({k: _finite(v) for k, v in row.items()}, allow_nan=False) + "\n"
            with naming(self.path), self.path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        if self.board is not None:
            for metric, value in values.items():
                self.board.add_scalar(f"{kind}/{metric}", value, step)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the complete rows of a journal; a line that a killed run left unfinished is skipped."""
    found = []
    with suppress(FileNotFoundError):
        for line in path.read_text("utf-8", errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                row = json.loads(line)
                found += [row] if isinstance(row, dict) and isinstance(row.get("step"), int) else []
    return found


def _finite(value: Any) -> Any:
    infinite = isinstance(value, float) and value - value != 0.0
    return None if infinite else value


def _board(folder: Path, upto: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        message = "TensorBoard is asked for, and it is not installed"
        raise LpcError(Diagnostic("0669", message, place="run")) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=upto + 1 if upto else None)
