"""Which pages of docs/ are written from tables in the code? Each by its file name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lpc.specs.files import write_atomically
from lpc.views import errors, schema, vocabulary

PAGES: dict[str, Callable[[], str]] = {
    "errors.md": errors.page,
    "schema.json": schema.page,
    "vocabulary.md": vocabulary.page,
}


def write(folder: str | Path) -> None:
    """Write every page into `folder`."""
    for name, page in PAGES.items():
        write_atomically(Path(folder, name), page().encode())
