"""What did a run come to, whatever interrupted it and however many processes did it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from lpc.runtime import pieces
from lpc.runtime.checkpoint import LAST


def outcome(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[Any]]:
    """Return the last checkpoint's tensors and numbers, and the journal's rows without times."""
    last = pieces.read(folder / LAST)
    tensors = {name: tensor for name, tensor in last.tensors.items() if not name.startswith("meter.")}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tensors, dict(last.numbers), [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
