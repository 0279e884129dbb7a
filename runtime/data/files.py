"""Which files hold which split? Names such as `train.npz` or `train-00000-of-00002.parquet`."""

from __future__ import annotations

import re
from pathlib import Path

from lpc.runtime.data.problem import problem

ALIASES = {"t10k": "test", "valid": "validation", "val": "validation", "dev": "validation"}


def split_name(name: str) -> str:
    """Return the one name under which a split is known here."""
    return ALIASES.get(name, name)


def split_files(root: Path, extension: str) -> dict[str, list[Path]]:
    """Return the files of each split of a folder, or of its `data` folder; one file alone is `train`.

    Errors: 0602 where there are none.
    """
    if root.is_file():
        return {"train": [root]}
    pattern = re.compile(rf"(?P<split>[A-Za-z]\w*?)([-_]\d+(-of-\d+)?)?\.{extension}")
    for folder in (root, root / "data"):
        found: dict[str, list[Path]] = {}
        for path in sorted(folder.glob(f"*.{extension}")):
            match = pattern.fullmatch(path.name)
            if match:
                found.setdefault(split_name(match["split"]), []).append(path)
        if found:
            return found
    raise problem("0602", f"no files such as `train.{extension}` in this folder", str(root))
