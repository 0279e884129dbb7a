"""How is a text file read? UTF-8, a user's of bounded size, and what cannot be read is told."""

from __future__ import annotations

from pathlib import Path
from pkgutil import get_data

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean

MAX_BYTES = 4 * 2**20


def read_text(path: Path) -> str:
    """Return a spec file's text.

    Raises:
        LpcError: 0100, if it is missing, no file, too large, or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LpcError(
            Diagnostic("0100", f"cannot read the spec: {reason}", place=str(path), help=near_file(path))
        ) from None
    if len(data) > MAX_BYTES:
        raise LpcError(
            Diagnostic("0103", f"the spec has {len(data)} bytes, more than {MAX_BYTES}", place=str(path))
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"{path}: byte {error.start}"
        raise LpcError(Diagnostic("0100", f"the spec is not UTF-8: {error.reason}", place=place)) from None


def shipped_text(package: str, name: str) -> str:
    """Return a text file that is installed with a package."""
    # Not importlib.resources, which takes longer to import than all of the files to read.
    data = get_data(package, name)
    assert data is not None
    return data.decode()


def near_file(path: Path) -> str | None:
    """Suggest a file or folder with a similar name in the same folder."""
    try:
        if path.exists() or not path.parent.is_dir():
            return None
        return did_you_mean(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except (OSError, ValueError):  # a name that no file can have, or a folder that may not be read
        return None
