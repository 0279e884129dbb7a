"""What does generated code import? What it uses, by one table of where each name comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MODULES = ("blocks", "contrasts", "holdout", "idx", "images", "noise", "optimizers", "rates", "rmsprop", "weights")

NAMES: dict[str, tuple[str, ...]] = {
    "cache": ("SampleCache",),
    "gradients": ("accumulate", "clipped", "summed"),
    "learner": ("Learner", "descend"),
    "meter": ("Meter",),
    "offset": ("Offset",),
    "pieces": ("pieces",),
    "rates": ("growing",),
    "samples": ("Field", "Samples", "load"),
    "settings": ("DEVICE",),
    "weights": ("write",),
}
_RELATIVE = re.compile(r"^from \.+(\w*) import ([\w, ]+)$", re.MULTILINE)


def imports(code: Iterable[str], level: str = ".") -> Iterator[str]:
    """Yield the lines that import what code uses; `level` leads to the package."""
    text = re.sub(r'"[^"\n]*"', "", re.sub(r"#.*", "", "\n".join(code)))
    words = set(re.findall(r"(?<![.\w])[A-Za-z_]\w*", text))
    prefixes = set(re.findall(r"(?<![.\w])([A-Za-z_]\w*)\.", text))
    if "torch" in words:
        yield from ("import torch", "")
    modules = [name for name in MODULES if name in prefixes]
    if modules:
        yield f"from {level} import {', '.join(modules)}"
    for module, names in NAMES.items():
        wanted = [name for name in names if name in words]
        if wanted:
            yield f"from {level}{module} import {', '.join(wanted)}"


def imported(text: str) -> set[str]:
    """Return the modules of its own package that a module imports."""
    found: set[str] = set()
    for module, names in _RELATIVE.findall(text):
        found |= {module} if module else set(names.split(", "))
    return found
