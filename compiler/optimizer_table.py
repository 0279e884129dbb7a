"""Which optimizers does this torch have? Writes the table that specs are checked against."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch

TABLE = Path(__file__).resolve().parent.parent / "specs" / "tables" / "optimizers.json"

# LBFGS evaluates the loss by a closure and SparseAdam needs sparse gradients: a plan has neither.
EXCLUDED = frozenset({"LBFGS", "SparseAdam"})


def optimizer_table() -> dict[str, Any]:
    """Return every usable torch.optim class by lower-cased name, with its arguments, types and defaults."""
    classes = (value for value in vars(torch.optim).values() if inspect.isclass(value))
    found = [c for c in classes if issubclass(c, torch.optim.Optimizer) and c is not torch.optim.Optimizer]
    return {
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "optimizers": {
            c.__name__.lower(): {"class": c.__name__, "arguments": _arguments(c)}
            for c in sorted(found, key=lambda c: c.__name__.lower())
            if c.__name__ not in EXCLUDED
        },
    }


def _arguments(optimizer: type[torch.optim.Optimizer]) -> list[dict[str, Any]]:
    """Return the arguments after `self` and `params`."""
    parameters = list(inspect.signature(optimizer).parameters.values())[1:]
    return [_argument(parameter) for parameter in parameters]


def _argument(parameter: inspect.Parameter) -> dict[str, Any]:
    entry = {"name": parameter.name, "type": _type(str(parameter.annotation), parameter.default)}
    if parameter.default is inspect.Parameter.empty:
        return entry
    default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return entry | {"default": default}


def _type(annotation: str, default: object) -> str:
    """Return the type in the language of signatures; torch writes it as an annotation."""
    if "tuple" in annotation.lower():
        return "[any]" if "None" in annotation else "[float]"
    base = next((name for name in ("float", "int", "bool", "str") if name in annotation), "any")
    return f"none | {base}" if default is None else base


def main() -> None:
    """Write the table."""
    TABLE.write_text(json.dumps(optimizer_table(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
