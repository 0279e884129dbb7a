"""How does an Arrow table become columns? The kinds of feature that the `datasets` library knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lpc.runtime.data.column import Array, Column, Shape, Table, Text, image_peak
from lpc.runtime.data.images import Blob, decode, image_shape
from lpc.runtime.data.problem import problem


@dataclass(frozen=True)
class Rows:
    """A table that is not read yet.

    `features` are `datasets.Features`, `head` is a pyarrow table of the first row, `column(name)` reads
    a whole column. `size`: common side of the images, see `images.decode`.
    """

    features: Any
    head: Callable[[], Any]
    column: Callable[[str], Any]
    place: str
    size: int | None = None


def arrow_table(rows: Rows) -> Table:
    """Return a column for each feature: images, numbers, or lists of numbers; anything else is text.

    Errors: 0612 for an empty table.
    """
    head = rows.head()
    if head.num_rows == 0:
        raise problem("0612", "the table has no rows", rows.place)
    return {name: _column(rows, name, feature, head.column(name)) for name, feature in rows.features.items()}


def _column(rows: Rows, name: str, feature: Any, head: Any) -> Column | Text:
    place = f"{rows.place} column `{name}`"
    if _is_image(feature):
        shape = image_shape(_blobs(head, place)[0], rows.size, f"{place} row 0")
        return Column(shape, np.dtype(np.uint8), partial(_images, rows, name, shape, place), place, peak=255)
    first = np.asarray(head.to_pylist()[0])
    if first.dtype.kind not in "biuf":
        return Text(f"values of type {head.type}", place)
    sample = _numbers(head, place)
    dtype, shape = sample.dtype, sample.shape[1:]
    named = getattr(feature, "num_classes", None)  # of a ClassLabel
    classes = (lambda: int(named)) if named is not None else None
    return Column(shape, dtype, partial(_read, rows, name, place), place, image_peak(dtype, shape), classes=classes)


def _is_image(feature: Any) -> bool:
    """Recognise images with the library's own mark, and those written by others as {bytes, path} or bytes."""
    if isinstance(feature, dict):
        return "bytes" in feature
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _images(rows: Rows, name: str, shape: Shape, place: str) -> Array:
    return decode(_blobs(rows.column(name), place), shape, rows.size, place)


def _read(rows: Rows, name: str, place: str) -> Array:
    return _numbers(rows.column(name), place)


def _blobs(column: Any, place: str) -> list[Blob]:
    blobs = [_blob(value) for value in column.to_pylist()]
    if None in blobs:
        raise problem("0603", "an image is missing", f"{place} row {blobs.index(None)}")
    return [blob for blob in blobs if blob is not None]


def _blob(value: Any) -> Blob | None:
    """The bytes inside the table win over the path: the path may be of another machine."""
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]
    return value.get("bytes") or value.get("path")


def _numbers(column: Any, place: str) -> Array:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise problem("0603", "a value is missing", f"{place} row {row}")
    if not _nested(column.type):
        return np.asarray(column.to_numpy())
    try:
        values = np.array(column.to_pylist(), _scalar(column.type).to_pandas_dtype())
    except (ValueError, TypeError) as error:
        raise problem("0618", "the lists in this column have different lengths or missing values", place,
                      notes=[str(error)]) from error
    return values


def _nested(kind: Any) -> bool:
    return hasattr(kind, "value_type") or hasattr(kind, "storage_type")


def _scalar(kind: Any) -> Any:
    """Return the element type of lists of lists; `Array2D` and its like store such lists."""
    while _nested(kind):
        kind = kind.storage_type if hasattr(kind, "storage_type") else kind.value_type
    return kind
