"""Where are a plan's weights? In memory, or in the file that they were loaded from, which is read as it is needed.

Weights are most of a plan's bytes, and a process that runs a part of it needs a part of them.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator
from typing import Protocol

from lpc.specs.diagnostics import Diagnostic, LpcError

CHUNK = 2**20  # bytes that are read at a time


class Image(Protocol):
    """Bytes that can be asked for; `bytes` are an image."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> bytes: ...

    def __bytes__(self) -> bytes: ...


def chunks(image: Image) -> Iterator[bytes]:
    """Yield all bytes of an image, a chunk at a time."""
    return (image[first : first + CHUNK] for first in range(0, len(image), CHUNK))


class Stored:
    """A stretch of an open file, which stays readable when another file takes its name.

    `file` is a descriptor, which is duplicated; `start` and `size` count bytes; `place` names the file in errors.
    `sha256` is that of the stretch as it was first read, in hexadecimal. Reading raises LpcError (0505) where the
    file was changed since.
    """

    def __init__(self, file: int, start: int, size: int, place: str) -> None:
        self.file, self.start, self.place = os.dup(file), start, place
        weakref.finalize(self, os.close, self.file)
        self.seen = self._seen()
        self.size = max(min(size, self.seen[0] - start), 0)
        self.sha256 = self._digest()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, span: slice, /) -> bytes:
        first, last, step = span.indices(self.size)
        return self._read(first, max(last - first, 0))[::step]

    def __bytes__(self) -> bytes:
        found = self[:]
        if hashlib.sha256(found).hexdigest() != self.sha256:
            raise self._changed()
        return found

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Stored):
            return self.size == other.size and self.sha256 == other.sha256
        return isinstance(other, bytes) and self.size == len(other) and self.sha256 == sha256_of(other)

    __hash__ = None  # type: ignore[assignment]

    def _digest(self) -> str:
        found = hashlib.sha256()
        for chunk in chunks(self):
            found.update(chunk)
        return found.hexdigest()

    def _read(self, first: int, size: int) -> bytes:
        """Return so many bytes; the system may give them piece by piece."""
        pieces: list[bytes] = []
        while size and self.seen == self._seen():
            pieces.append(os.pread(self.file, size, self.start + first))
            if not pieces[-1]:
                break
            first, size = first + len(pieces[-1]), size - len(pieces[-1])
        if size:
            raise self._changed()
        return b"".join(pieces)

    def _seen(self) -> tuple[int, int]:
        found = os.fstat(self.file)
        return found.st_size, found.st_mtime_ns

    def _changed(self) -> LpcError:
        return LpcError(Diagnostic("0505", "the file was changed since the plan was loaded", place=self.place))


def sha256_of(data: Image) -> str:
    """Return the SHA-256 of an image in hexadecimal; that of what is stored is known."""
    return data.sha256 if isinstance(data, Stored) else hashlib.sha256(bytes(data)).hexdigest()
