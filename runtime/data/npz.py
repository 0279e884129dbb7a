"""How are .npz archives read? Arrays by field name, never with pickled objects."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from lpc.runtime.data.column import Array, Column, Shape, Table, Tables, Text, class_count, image_peak
from lpc.runtime.data.files import split_files
from lpc.runtime.data.problem import problem

Header = tuple[Shape, bool, np.dtype[Any]]

HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], Header]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def npz(path: Path) -> Tables:
    """Return the splits of `train.npz`, `test.npz`, ... in a folder, or of one archive."""
    return {split: partial(_table, paths[-1]) for split, paths in split_files(path, "npz").items()}


def _table(path: Path) -> Table:
    with _opened(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        return {name.removesuffix(".npy"): _column(archive, name, path) for name in names}


def _column(archive: zipfile.ZipFile, name: str, path: Path) -> Column | Text:
    """Read an array's header only: a description must not load gigabytes."""
    place = f"{path} array `{name.removesuffix('.npy')}`"
    with archive.open(name) as member:
        shape, _, dtype = _header(member, place)
    if dtype.hasobject:
        raise problem("0611", "an array holds Python objects, which could run code when loaded", place)
    if dtype.kind not in "biuf":
        return Text(f"values of type {dtype}", place)
    if not shape:
        raise problem("0603", "an array has no axis of samples: its shape is []", place)
    read = partial(_read, path, name)
    classes = partial(class_count, read) if len(shape) == 1 and dtype.kind in "iu" else None
    return Column(shape[1:], dtype, read, place, image_peak(dtype, shape[1:]), classes=classes)


def _header(member: IO[bytes], place: str) -> Header:
    try:
        return HEADERS[np.lib.format.read_magic(member)](member)
    except (ValueError, KeyError) as error:
        raise problem("0603", "this is not a numpy array", place, notes=[str(error)]) from error


def _read(path: Path, name: str) -> Array:
    place = f"{path} array `{name.removesuffix('.npy')}`"
    with _opened(path) as archive, archive.open(name) as member:
        try:
            return np.lib.format.read_array(member, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise problem("0603", "the array cannot be read", place, notes=[str(error)]) from error


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise problem("0603", "not a whole .npz archive", str(path), notes=[str(error)]) from error
