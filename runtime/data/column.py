"""What is a column? One field of a data set: its type is known at once, its values are read on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """Values of one field for all samples.

    `shape` is one sample's. `read()` returns an array [samples, *shape]. `peak`: an image whose stored
    integers 0..peak mean 0..1; None: not an image. `place` names the file, for messages. What `read()`
    gives of a `mapped` column lies on disk, and is not to be copied as a whole. `classes()` counts those of a label,
    where little is read for that.
    """

    shape: Shape
    dtype: np.dtype[Any]
    read: Callable[[], Array]
    place: str
    peak: int | None = None
    mapped: bool = False
    classes: Callable[[], int] | None = None


@dataclass(frozen=True)
class Text:
    """A column that no network reads, such as words; an error only if the plan asks for it."""

    found: str
    place: str


Table: TypeAlias = Mapping[str, Column | Text]
"""The columns of one split."""

Tables: TypeAlias = Mapping[str, Callable[[], Table]]
"""The splits of a source, each opened on demand."""


def delivered(column: Column) -> str:
    """Return the dtype in which a column reaches a network that asks for no other."""
    if column.peak is not None or column.dtype.kind == "f":
        return "float32"
    return "int64"


def class_count(read: Callable[[], Array]) -> int:
    """Return how many classes there are in a column of class numbers."""
    values = read()
    return int(values.max()) + 1 if values.size else 0


def image_peak(dtype: np.dtype[Any], shape: Shape) -> int | None:
    """Return 255 for bytes in a plane or a stack of planes, which are an image; otherwise None."""
    return 255 if dtype == np.uint8 and len(shape) >= 2 else None
