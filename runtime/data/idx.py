"""How are IDX files read? The format of MNIST: a magic number, big-endian sizes, then plain values."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from lpc.runtime.data.column import Array, Column, Shape, Table, Tables, class_count, image_peak
from lpc.runtime.data.files import split_name
from lpc.runtime.data.problem import problem

NAME = re.compile(r"(?P<split>\w+)-(?P<field>\w+)[-.]idx\d-\w+(\.gz)?")
"""`train-images-idx3-ubyte.gz`"""

FIELDS = {"images": "image", "labels": "label"}

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Third byte of the magic number; the format's definition is on Y. LeCun's MNIST page."""


@dataclass(frozen=True)
class Header:
    """Element type, number of samples, shape of one sample, and length of the header in bytes."""

    dtype: np.dtype[Any]
    count: int
    shape: Shape
    length: int

    @property
    def size(self) -> int:
        """Length of a whole file in bytes."""
        return self.length + self.count * int(np.prod(self.shape)) * self.dtype.itemsize


def idx(path: Path) -> Tables:
    """Return the splits of a folder of IDX files, each raw or gzipped."""
    files: dict[str, dict[str, Path]] = {}
    for file in sorted(_entries(path), reverse=True):  # the raw file comes last and wins over its .gz
        match = NAME.fullmatch(file.name)
        if match:
            field = FIELDS.get(match["field"], match["field"])
            files.setdefault(split_name(match["split"]), {})[field] = file
    if not files:
        raise problem("0602", "no IDX files such as `train-images-idx3-ubyte.gz` in this folder", str(path))
    return {split: partial(_table, paths) for split, paths in files.items()}


def mnist(path: Path) -> Tables:
    """Return `idx` of the folder itself, or of the folder inside it in which MNIST usually lies."""
    for folder in (path / "mnist", path / "MNIST" / "raw"):
        if folder.is_dir():
            return idx(folder)
    return idx(path)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _table(paths: dict[str, Path]) -> Table:
    headers = {field: _read_header(path) for field, path in sorted(paths.items())}
    first, *others = headers
    for field in others:
        if headers[field].count != headers[first].count:
            raise problem(
                "0604", f"{headers[field].count} samples of `{field}`, {headers[first].count} of `{first}`",
                f"{paths[field]} byte 4", notes=[f"`{first}` is read from {paths[first]}"])
    return {field: _column(path, headers[field]) for field, path in sorted(paths.items())}


def _column(path: Path, header: Header) -> Column:
    peak = image_peak(header.dtype, header.shape)
    shape = (1, *header.shape) if peak and len(header.shape) == 2 else header.shape
    read = partial(_read, path, shape)
    classes = partial(class_count, read) if not shape and header.dtype == np.uint8 else None
    return Column(shape, header.dtype, read, str(path), peak, classes=classes)


def _read_header(path: Path) -> Header:
    with _opened(path) as file:
        return _header(file.read(4 + 4 * 255), path)


def _header(head: bytes, path: Path) -> Header:
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in DTYPES or head[3] == 0:
        raise problem("0603", f"not an IDX file: it begins with {head[:4].hex(' ') or 'nothing'}, expected "
                              "00 00, a type (08 for bytes) and the number of axes", f"{path} byte 0")
    length = 4 + 4 * head[3]
    if len(head) < length:
        raise problem("0603", f"the header of {length} bytes is cut short", f"{path} byte {len(head)}")
    count, *shape = struct.unpack(f">{head[3]}I", head[4:length])
    return Header(np.dtype(DTYPES[head[2]]), count, tuple(shape), length)


def _read(path: Path, shape: Shape) -> Array:
    with _opened(path) as file:
        content = bytearray(file.read())
    header = _header(bytes(content[: 4 + 4 * 255]), path)
    if len(content) != header.size:
        raise problem(
            "0603", f"{header.count} samples need {header.size} bytes, found {len(content)}",
            f"{path} byte {min(len(content), header.size)}")
    values = np.frombuffer(content, header.dtype, offset=header.length).reshape(header.count, *shape)
    return values.astype(header.dtype.newbyteorder("="), copy=False)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a raw or gzipped file; damage to the compressed stream is told with the byte where it was met."""
    with path.open("rb") as raw:
        try:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise problem("0603", "the gzip stream is damaged or cut short", f"{path} byte {raw.tell()}",
                          notes=[str(error)]) from error
