"""How are Parquet files, image folders and hub data sets read? Through pyarrow and the `datasets` library."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from lpc.runtime.data.arrow import Rows, arrow_table
from lpc.runtime.data.column import Table, Tables
from lpc.runtime.data.files import split_files, split_name
from lpc.runtime.data.library import library
from lpc.runtime.data.problem import problem


def parquet(path: Path, size: int | None = None) -> Tables:
    """Return the splits of `train.parquet`, `test-00000-of-00002.parquet`, ... in a folder, or one file."""
    files = split_files(path, "parquet")
    return {split: partial(_parquet_table, tuple(paths), size) for split, paths in files.items()}


def imagefolder(path: Path, size: int | None = None) -> Tables:
    """Return the splits of a folder of images, `train/cat/1.png`: the last folder's name is the label."""
    datasets = library("datasets")
    try:
        splits = datasets.load_dataset("imagefolder", data_dir=str(path), streaming=True)
    except (OSError, ValueError) as error:
        raise problem("0603", "not a folder of images", str(path), notes=[_first_line(error)]) from error
    return {split_name(str(name)): partial(_stream_table, stream, f"{path} split `{name}`", size)
            for name, stream in splits.items()}


def huggingface(name: str, config: str | None = None, size: int | None = None) -> Tables:
    """Return the splits of a data set of the Hugging Face hub, from the library's cache where it is there.

    Errors: 0610 where it cannot be had, the hub out of reach included.
    """
    datasets = library("datasets")
    try:
        splits = datasets.load_dataset(name, config)
    except Exception as error:  # the hub's client fails in the ways of four libraries
        raise problem("0610", f"cannot load `{name}` from the Hugging Face hub", "data.source",
                      notes=[f"{type(error).__name__}: {_first_line(error)}"]) from error
    return {split_name(str(split)): partial(_hub_table, table, f"{name} split `{split}`", size)
            for split, table in splits.items()}


def _parquet_table(paths: tuple[Path, ...], size: int | None) -> Table:
    reader = library("pyarrow.parquet")
    features = library("datasets").Features
    try:
        files = [reader.ParquetFile(path) for path in paths]
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise problem("0603", "not a whole Parquet file", _names(paths),
                      notes=[_first_line(error)]) from error
    schema = files[0].schema_arrow
    return arrow_table(Rows(features.from_arrow_schema(schema), partial(_parquet_head, files[0]),
                            partial(_parquet_column, paths), _names(paths), size))


def _parquet_head(file: Any) -> Any:
    first = next(file.iter_batches(1), None)
    return library("pyarrow").Table.from_batches([] if first is None else [first], file.schema_arrow)


def _parquet_column(paths: tuple[Path, ...], name: str) -> Any:
    reader, arrow = library("pyarrow.parquet"), library("pyarrow")
    try:
        return arrow.concat_tables([reader.read_table(path, columns=[name]) for path in paths]).column(name)
    except (OSError, ValueError, KeyError) as error:
        raise problem("0603", f"the column `{name}` cannot be read", _names(paths),
                      notes=[_first_line(error)]) from error


def _stream_table(stream: Any, place: str, size: int | None) -> Table:
    """Read paths and labels, no pixels; streaming keeps the library from copying the images to its cache."""
    plain = _undecoded(stream).with_format("arrow")

    @cache
    def whole() -> Any:
        return library("pyarrow").concat_tables(list(plain.iter(1000)))

    return arrow_table(Rows(stream.features, lambda: next(iter(plain.iter(1))),
                            lambda name: whole().column(name), place, size))


def _hub_table(table: Any, place: str, size: int | None) -> Table:
    plain = _undecoded(table).with_format("arrow")
    return arrow_table(Rows(table.features, lambda: plain[:1],
                            lambda name: plain.select_columns([name])[:].column(name), place, size))


def _undecoded(table: Any) -> Any:
    image = library("datasets").Image
    for name, feature in table.features.items():
        if isinstance(feature, image):
            table = table.cast_column(name, image(decode=False))
    return table


def _names(paths: tuple[Path, ...]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
