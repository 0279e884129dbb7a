"""What does a path mean to the command: a plan, or a spec?"""

from __future__ import annotations

from pathlib import Path


def is_plan(path: Path) -> bool:
    """Tell whether a path means a plan, which is a folder or an archive, or else a spec."""
    return path.is_dir() or path.suffix in (".zip", ".plan")
