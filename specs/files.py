"""How is a file replaced without a moment at which it is broken? Written beside, synced, renamed."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


def write_atomically(path: Path | str, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a machine that dies, sees the old file or the new one.

    A killed writer can leave a hidden temporary file beside `path`; `leftovers` finds it.
    Raises OSError when the folder is missing or cannot be written; the old file is then untouched.
    """
    with replacing(path) as stream:
        stream.write(data)


@contextmanager
def replacing(path: Path | str) -> Iterator[BinaryIO]:
    """Yield a binary stream; when the body ends without an error, its content is at `path`, all at once."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(path), temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError that names no file, as that of a full disk, name `path`."""
    try:
        yield
    except OSError as problem:
        if problem.filename is None:
            problem.filename = str(path)
        raise


def leftovers(path: Path | str) -> list[Path]:
    """Return the temporary files that killed writers of `path` left behind, sorted."""
    path = Path(path)
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    return sorted(other for other in path.parent.iterdir() if pattern.fullmatch(other.name))


@contextmanager
def locked(folder: Path | str, shared: bool = False) -> Iterator[None]:
    """Hold the folder's advisory lock: one writer, or any number of readers (`shared`).

    The system releases it when the holder dies. Where the file system has no such locks there is none.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; Windows has no such call."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
