"""Where do heavy libraries come from? Imported on first use, with the remedy where one is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lpc.runtime.data.problem import problem


def library(module: str) -> Any:
    """Return an imported module.

    Errors: 0609 where it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise problem("0609", f"this data source needs the library `{name}`", "data.source",
                      notes=[str(error)]) from error
