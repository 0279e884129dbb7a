"""Which class does `package:Class` mean as an optimizer? One of an installed package that a plan may name.

A plan is data that may come from anywhere, so that the packages are a fixed list: naming one imports it.
"""

from __future__ import annotations

import importlib
import re

PACKAGES = ("torch", "pytorch_optimizer", "transformers", "timm")

_FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)


class UnknownOptimizerError(ValueError):
    """There is no such class: the text says why."""


def is_class(name: str) -> bool:
    """Is an optimizer's name that of a class of a package, rather than of torch.optim?"""
    return ":" in name


def package(name: str) -> str:
    """Return the package that `package.module:Class` is of."""
    return name.partition(":")[0].partition(".")[0]


def misnamed(name: str) -> str | None:
    """Return what is wrong with the name of a class as it is written; None where nothing is."""
    if _FORM.fullmatch(name) is None:
        return f"`{name}` is not of the form `package:Class`"
    if package(name) not in PACKAGES:
        return f"`{name}` is of none of the packages {', '.join(PACKAGES)}"
    return None


def imported(name: str) -> object:
    """Import what `package:Class` names. Raises UnknownOptimizerError where it cannot be had."""
    wrong = misnamed(name)
    if wrong is not None:
        raise UnknownOptimizerError(wrong)
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        extra = "pip install 'lpc[optim]'" if error.name == "pytorch_optimizer" else f"pip install {error.name}"
        raise UnknownOptimizerError(f"`{name}` needs `{error.name}`, which is not installed: {extra}") from error
    except AttributeError as error:
        raise UnknownOptimizerError(f"`{module}` has no `{attribute}`") from error
