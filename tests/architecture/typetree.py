"""Where do type checkers find the packages? A tree of links that looks like the installed `lpc`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def links(root: Path) -> dict[Path, Path]:
    """Return `{place in the tree: file or folder in the repository}`, from pyproject's package-dir.

    `lpc` itself is a folder of links, because the other packages must appear inside it.
    """
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    front = root / packages.pop("lpc")
    entries = {Path(entry.name): entry for entry in front.iterdir() if entry.name != "__pycache__"}
    return entries | {Path(name.partition(".")[2]): root / folder for name, folder in packages.items()}


def write(root: Path, tree: Path) -> None:
    """Make the link tree at `tree` say what `root` holds now."""
    tree.mkdir(parents=True, exist_ok=True)
    wanted = links(root)
    for entry in tree.iterdir():
        if entry.is_symlink():
            entry.unlink()
    for place, target in wanted.items():
        (tree / place).symlink_to(target)


if __name__ == "__main__":
    write(ROOT, Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".typetree" / "lpc")
