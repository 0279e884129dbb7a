"""lpc: a declarative compiler for local learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lpc.reading import check
from lpc.specs import Diagnostic, LpcError, Spec, expand

if TYPE_CHECKING:
    from lpc.building import build
    from lpc.plan import Plan, load
    from lpc.trainer import Trainer
    from lpc.verification import verify

__version__: str

__all__ = [
    "Diagnostic",
    "LpcError",
    "Plan",
    "Spec",
    "Trainer",
    "__version__",
    "build",
    "check",
    "expand",
    "load",
    "verify",
]

# The names that need torch or networkx, and the module of each: loaded when they are first used.
_LATER = {
    "Plan": "lpc.plan",
    "Trainer": "lpc.trainer",
    "build": "lpc.building",
    "load": "lpc.plan",
    "verify": "lpc.verification",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Looking into the installation takes as long as importing the rest.
        return import_module("importlib.metadata").version("lpc")
    if name not in _LATER:
        raise AttributeError(f"lpc has no public name {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
