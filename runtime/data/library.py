"""Where do heavy libraries come from? Imported on first use, with the remedy where one is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lpc.runtime.data.problem import problem


def library(module: str, place: str = "data.source", extra: str = "lpc[data]") -> Any:
    """Return an imported module. `place` in the spec wants it, `extra` of the package brings it.

    Errors: 0609 where it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        what = "this data source needs" if place == "data.source" else "these transforms need"
        raise problem("0609", f"{what} the library `{name}`", place,
                      notes=[str(error)], help=f"install it: pip install '{extra}'") from error
