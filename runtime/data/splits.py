"""Which samples are for training, for validation and for test? Named splits, other files, or fractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lpc.runtime.data.column import Column, Table, Tables
from lpc.runtime.data.files import split_name
from lpc.runtime.data.problem import problem
from lpc.runtime.data.sources import open_source
from lpc.specs.diagnostics import did_you_mean
from lpc.specs.model import Data

HELD_OUT = ("test", "validation")

EMBEDDED_TEST = {"digits": 0.2}
"""Test fraction of a source that has no test split, where the spec names none."""


@dataclass(frozen=True)
class Layout:
    """The tables of the splits that have their own, and the fractions to cut from `train` for the others."""

    tables: dict[str, Table]
    fractions: dict[str, float]


def layout(data: Data) -> Layout:
    """Decide where each split comes from, by `data.test` and `data.validation`.

    A source's own split of that name is taken where the spec is silent.
    Errors: 0613 for a split that does not exist, 0614 for a fraction outside 0..1.
    """
    splits = open_source(data.source, data.root)
    tables = {"train": _named(splits, "train", "data.source")()}
    fractions: dict[str, float] = {}
    for name in HELD_OUT:
        wanted = data.test if name == "test" else data.validation
        if wanted is None and name == "test":
            wanted = EMBEDDED_TEST.get(data.source.name)
        if isinstance(wanted, str):
            tables[name] = _elsewhere(data, splits, wanted, name)
        elif wanted is not None:
            fractions[name] = _fraction(wanted, f"data.{name}")
        elif name in splits:
            tables[name] = splits[name]()
    if sum(fractions.values()) >= 1:
        raise problem("0614", "`test` and `validation` leave no samples to train on", "data.validation")
    return Layout(tables, fractions)


def label_column(table: Table) -> str | None:
    """Return the column by which to stratify: the one of single integers, `label` where there are several."""
    found = [name for name, column in table.items()
             if isinstance(column, Column) and not column.shape and column.dtype.kind in "iu"]
    if len(found) == 1:
        return found[0]
    return "label" if "label" in found else None


def _fraction(value: float, place: str) -> float:
    if not 0 < value < 1:
        raise problem("0614", f"the fraction {value} is not between 0 and 1", place)
    return value


def _named(splits: Tables, name: str, place: str) -> Callable[[], Table]:
    if split_name(name) not in splits:
        raise problem("0613", f"there is no split `{name}`", place,
                      notes=[f"the source has: {', '.join(splits)}"], help=did_you_mean(name, splits))
    return splits[split_name(name)]


def _elsewhere(data: Data, splits: Tables, wanted: str, name: str) -> Table:
    """Return a split of the source, or the data in another file or folder (relative to the root first)."""
    near = Path(data.root or ".").expanduser()
    found = [path for path in (near / wanted, near.parent / wanted, Path(wanted)) if path.exists()]
    if split_name(wanted) in splits or not found or data.root is None:
        return _named(splits, wanted, f"data.{name}")()
    others = open_source(data.source, str(found[0]))
    own = next(split for split in (name, "test", "train", *others) if split in others)
    return others[own]()
