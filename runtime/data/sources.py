"""Which data sources exist? One row each: the spec's word and the function that opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lpc.runtime.data.column import Tables
from lpc.runtime.data.csv import csv
from lpc.runtime.data.curves import curves
from lpc.runtime.data.digits import digits
from lpc.runtime.data.idx import idx, mnist
from lpc.runtime.data.npz import npz
from lpc.runtime.data.problem import problem
from lpc.runtime.data.tables import huggingface, imagefolder, parquet
from lpc.runtime.data.term import arguments
from lpc.specs.signatures.data import SOURCES as WORDS
from lpc.specs.term import Term
from lpc.specs.texts import near_file

SOURCES: dict[str, Callable[..., Tables]] = {
    "digits": digits,            # 1,797 digits of 8x8 pixels, embedded
    "curves": curves,            # 28x28 images of smooth curves, drawn from a seed
    "mnist": mnist,              # IDX files in `path`, `path/mnist` or `path/MNIST/raw`
    "idx": idx,                  # IDX files, raw or gzipped
    "parquet": parquet,          # Parquet files, images included
    "imagefolder": imagefolder,  # a folder of images for each label
    "huggingface": huggingface,  # a data set of the hub, by name
    "csv": csv,                  # rows of numbers, read once and mapped
    "npz": npz,                  # numpy arrays by field name
}


def open_source(term: Term, root: str | None) -> Tables:
    """Return the splits of a source; none of them is read yet.

    Errors: 0600 unknown source, 0601 no path, 0602 nothing there, 0615 bad arguments.
    """
    values = arguments(term, WORDS, "0600", "data source", "data.source")
    if "path" in values:
        values["path"] = _existing(term, values["path"], root)
    return SOURCES[term.name](**values)


def _begun(path: Path) -> tuple[str, ...]:
    return () if path.is_absolute() else ("a relative path begins in the folder where `lpc` is started",)


def _existing(term: Term, path: str | None, root: str | None) -> Path:
    """Return `path` inside `root`, or the one of the two that is given."""
    given = [part for part in (root, path) if part is not None]
    if not given:
        raise problem("0601", f"the source `{term.name}` needs to know where its files are", "data.source")
    found = Path(*given).expanduser()
    if not found.exists():
        place = "data.root" if path is None else "data.source"
        raise problem("0602", f"no file or folder `{found}`", place, notes=_begun(found), help=near_file(found))
    return found
