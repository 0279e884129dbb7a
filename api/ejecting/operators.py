"""How is an operator of a kernel written in Python? Readably where that is the same overload, else by its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lpc.runtime.operators import BINDINGS, IDENTITIES
from lpc.specs.plan.kernel import Json
from lpc.specs.plan.operators import GETITEM

Written = Sequence[str]

SIGNS = {
    "aten.add.Tensor": "+", "aten.sub.Tensor": "-", "aten.mul.Tensor": "*", "aten.div.Tensor": "/",
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "truediv": "/", "mod": "%", "pow": "**",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
FUNCTIONS = {"max": "max", "min": "min", "sym_max": "max", "sym_min": "min", "sym_float": "float", "sym_int": "int"}
METHODS = {"aten.t.default": "t", "aten.view.default": "view", "aten.expand.default": "expand"}

SPECIAL: Mapping[str, Callable[[Written], str]] = {
    GETITEM: lambda given: f"{given[0]}[{given[1]}]",
    "aten.sym_size.int": lambda given: f"{given[0]}.shape[{given[1]}]",
    "neg": lambda given: f"-{given[0]}",
}


def expression(op: str, given: Written, keywords: Mapping[str, str]) -> str | tuple[str, list[str]]:
    """Return an operator's call with written arguments: an expression, or a function and its arguments."""
    if op in IDENTITIES:
        return given[0]
    if op in SPECIAL:
        return SPECIAL[op](given)
    if op in SIGNS and len(given) == 2 and not keywords:
        return f"{given[0]} {SIGNS[op]} {given[1]}"
    if op in METHODS and not keywords:
        return f"{given[0]}.{METHODS[op]}({', '.join(given[1:])})"
    return function(op), [*given, *(f"{name}={value}" for name, value in keywords.items())]


def function(op: str) -> str:
    """Return the callable of an operator, as `runtime` calls it."""
    known = BINDINGS.get(op, "")
    if op in FUNCTIONS:
        return FUNCTIONS[op]
    return known if known.count(".") == 1 else f"torch.ops.{op}"


FORMATS = {
    "contiguous": "torch.contiguous_format", "preserve": "torch.preserve_format",
    "channels_last": "torch.channels_last", "channels_last_3d": "torch.channels_last_3d",
}  # fmt: skip

FORMS: Mapping[str, Callable[[str], str]] = {
    "dtype": lambda name: f"torch.{name}",
    "device": lambda name: "DEVICE" if name == "plan" else 'torch.device("cpu")',
    "layout": lambda name: f"torch.{name}",
    "memory_format": lambda name: FORMATS[name],
    "float": lambda name: f'float("{name}")',
}


def argument(value: Json, names: Callable[[str], str]) -> str:
    """Return a node's argument as Python; `names` gives those of values."""
    if isinstance(value, list):
        return f"[{', '.join(argument(item, names) for item in value)}]"
    if isinstance(value, dict):
        ((kind, name),) = value.items()
        return names(str(name)) if kind == "ref" else FORMS[kind](str(name))
    return repr(value)
