"""How are CSV files read? Once, in blocks, into plain arrays on disk that are mapped and never loaded as a whole.

`x` holds the number columns of a row in their order, `label` the column that is named as label. pyarrow reads, raw or
compressed files; the arrays lie in the user's cache folder, by the file's place, size and time, and what was read.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lpc.runtime.data.column import Array, Column, Table, Tables
from lpc.runtime.data.files import split_files
from lpc.runtime.data.library import library
from lpc.runtime.data.problem import problem

FEATURES, LABEL = "x", "label"
BLOCK = 2**22  # bytes of text that are read at a time
ROW = re.compile(r"Row #(\d+)")
COLUMN = re.compile(r"CSV column #(\d+)")


@dataclass(frozen=True)
class Reading:
    """How a file is read. `label` is a column's number or name; `last` rows are the test split."""

    path: Path
    label: int | str | None
    header: bool
    delimiter: str
    kind: str
    last: int

    @property
    def whole(self) -> bool:
        """Are labels class numbers?"""
        return self.kind == "class"


def csv(
    path: Path, label: int | str | None, header: bool, delimiter: str, kind: str, test: int
) -> Tables:
    """Return the splits of one file, or of `train.csv`, `test.csv.gz`, ... in a folder."""
    files = {} if path.is_file() else split_files(path, "csv" if _holds(path, "csv") else "csv.gz")
    reading = partial(Reading, label=label, header=header, delimiter=delimiter, kind=kind)
    if files:
        return {split: partial(_table, reading(path=found[-1], last=0), "all") for split, found in files.items()}
    whole = reading(path=path, last=test)
    return {split: partial(_table, whole, split) for split in (("train", "test") if test else ("train",))}


def _holds(folder: Path, extension: str) -> bool:
    return any(True for place in (folder, folder / "data") for _ in place.glob(f"*.{extension}"))


def _table(reading: Reading, part: str) -> Table:
    """Look at the first block only: the rest is read when a column is."""
    names = _names(reading)
    place = str(reading.path)
    label = _label(reading, names)
    width = len(names) - (label is not None)
    if not width:
        raise problem("0603", "there is no column beside the label", f"{place} row 1")
    table = {FEATURES: Column((width,), np.dtype(np.float32), partial(_mapped, reading, FEATURES, part), place,
                              mapped=True)}
    if label is not None:
        dtype = np.dtype(np.int64 if reading.whole else np.float32)
        table[LABEL] = Column((), dtype, partial(_mapped, reading, LABEL, part), place, mapped=True)
    return table


def _label(reading: Reading, names: list[str]) -> int | None:
    """Return the number of the label's column. Errors: 0605 where there is none."""
    if reading.label is None:
        return None
    if isinstance(reading.label, int) and 0 <= reading.label < len(names):
        return reading.label
    if isinstance(reading.label, str) and reading.header and reading.label in names:
        return names.index(reading.label)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    has = f"its columns are {shown}" if reading.header else f"its {len(names)} columns have numbers from 0"
    raise problem("0605", f"the data have no column `{reading.label}`", "data.source",
                  notes=[f"read from {reading.path}", has])


def _names(reading: Reading) -> list[str]:
    with _opened(reading) as stream:
        return list(stream.schema.names)


@contextmanager
def _opened(reading: Reading, kinds: dict[str, Any] | None = None) -> Iterator[Any]:
    """Open a stream of blocks. Errors: 0603 with the row, 0612 for a file without any."""
    arrow = library("pyarrow.csv")
    if not reading.path.stat().st_size:
        raise problem("0612", "the file has no rows", str(reading.path))
    try:
        stream = arrow.open_csv(
            reading.path,
            arrow.ReadOptions(use_threads=False, block_size=BLOCK, autogenerate_column_names=not reading.header),
            arrow.ParseOptions(delimiter=reading.delimiter),
            arrow.ConvertOptions(column_types=kinds or {}),
        )
        with stream:
            yield stream
    except (OSError, ValueError, EOFError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise _malformed(reading, error) from error


def _malformed(reading: Reading, error: Exception) -> Exception:
    text = str(error).partition("\n")[0]
    row, column = ROW.search(text), COLUMN.search(text)
    place = f"{reading.path}" + (f" row {row[1]}" if row else "") + (f" column {column[1]}" if column else "")
    return problem("0603", "this is no table of numbers, with as many in each row", place, notes=[text])


# The arrays on disk


def _mapped(reading: Reading, name: str, part: str) -> Array:
    """Return a column of a split as an array on disk; what is written into it stays in memory."""
    folder = _read(reading)
    width = len(_names(reading)) - (reading.label is not None)
    dtype: Any = np.float32 if name == FEATURES or not reading.whole else np.int64
    file = folder / f"{name}.bin"
    count = file.stat().st_size // np.dtype(dtype).itemsize // (width if name == FEATURES else 1)
    shape = (count, width) if name == FEATURES else (count,)
    array = np.memmap(file, dtype, "c", shape=shape)
    if reading.last >= count:
        raise problem("0614", f"{count} rows leave none to train on beside {reading.last} for the test", "data.source")
    first = count - reading.last
    return array[first:] if part == "test" else array[:first]


def _read(reading: Reading) -> Path:
    """Return the folder with a file's arrays, which are written where they are not there yet."""
    state = reading.path.stat()
    told = (str(reading.path.resolve()), state.st_size, state.st_mtime_ns, reading.label, reading.header,
            reading.delimiter, reading.kind)
    folder = _cache() / hashlib.sha256(repr(told).encode()).hexdigest()[:24]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    torn = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _write(reading, torn)
        torn.rename(folder)
    except FileExistsError:  # another process was faster
        shutil.rmtree(torn)
    except OSError as error:
        shutil.rmtree(torn, ignore_errors=True)
        if folder.is_dir():
            return folder
        raise problem("0610", f"the arrays of `{reading.path}` cannot be kept: {error}", str(folder.parent),
                      help="set XDG_CACHE_HOME to a folder with room for them") from error
    except BaseException:
        shutil.rmtree(torn, ignore_errors=True)
        raise
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lpc" / "csv"


def _write(reading: Reading, folder: Path) -> None:
    arrow, names = library("pyarrow"), _names(reading)
    label = _label(reading, names)
    kinds = {n: arrow.float64() if i == label else arrow.float32() for i, n in enumerate(names)}
    rows = 0
    with (
        (folder / f"{FEATURES}.bin").open("wb") as features,
        (folder / f"{LABEL}.bin").open("wb") as labels,
        _opened(reading, kinds) as stream,
    ):
        for block in stream:
            rows = _append(reading, block, label, rows, (features, labels))
    if not rows:
        raise problem("0612", "the file has no rows", str(reading.path))


def _append(reading: Reading, block: Any, label: int | None, rows: int, files: tuple[BinaryIO, BinaryIO]) -> int:
    """Write a block's numbers behind those before; return how many rows there are now."""
    columns = [_numbers(reading, column, number, rows) for number, column in enumerate(block.columns)]
    if label is not None:
        found = columns.pop(label)
        broken = np.flatnonzero(found != np.floor(found)) if reading.whole else np.empty(0)
        if len(broken):
            place = f"{reading.path} row {_row(reading, rows + int(broken[0]))} column {label}"
            raise problem("0603", f"the label {found[broken[0]]:g} is no class number", place,
                          help="write `kind=number` where labels are numbers of another kind")
        files[1].write(found.astype(np.int64 if reading.whole else np.float32).tobytes())
    files[0].write(np.stack(columns, 1).astype(np.float32, copy=False).tobytes())
    return rows + int(block.num_rows)


def _numbers(reading: Reading, column: Any, number: int, rows: int) -> Array:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        place = f"{reading.path} row {_row(reading, rows + row)} column {number}"
        raise problem("0603", "a value is missing", place)
    return np.asarray(column.to_numpy())


def _row(reading: Reading, index: int) -> int:
    """Return the number of a row as pyarrow counts them: from 1, the header's line included."""
    return index + 1 + reading.header


