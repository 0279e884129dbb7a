"""How do environment variables enter a spec? `${VAR}` in the strings under `data`, when the data is opened.

The spec, and the plan that holds it, keep the variable: a plan built here runs where the data lie elsewhere.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Data
from lpc.specs.term import Term

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


def filled(data: Data) -> Data:
    """Return the data section with the variables in its strings replaced by their values.

    Raises LpcError 0105 for a variable that is not set; its place is the key, such as `data.root`.
    """
    return data.model_copy(update={key: _filled(getattr(data, key), f"data.{key}") for key in Data.model_fields})


def _filled(value: Any, place: str) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _value(match[1], place), value)
    if isinstance(value, tuple | list):
        return type(value)(_filled(item, place) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, place) for key, item in value.items()}
    if isinstance(value, Term):
        return replace(value, args=_filled(value.args, place), kwargs=_filled(value.kwargs, place))
    return value


def _value(name: str, place: str) -> str:
    if name not in os.environ:
        raise LpcError(Diagnostic("0105", f"the environment variable `{name}` is not set", place=place))
    return os.environ[name]
