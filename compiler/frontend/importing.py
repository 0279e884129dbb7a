"""Which class does `module: "package:Name"` mean? Only nn.Module classes of packages that are allowed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from torch import nn

from lpc.compiler.frontend.places import first_line
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean, one_of
from lpc.specs.model import Spec

PACKAGES = ("torch", "transformers", "timm", "peft")


def network_class(spec: Spec, allow: Sequence[str] = ()) -> type[nn.Module]:
    """Import the class that `network.module` names.

    `allow` holds further package names, and paths: a Python file gives the package of its name, a folder
    all packages in it. Raises LpcError if the package is not allowed or missing, or the name no network.
    """
    package, _, name = (spec.network.module or "").partition(":")
    if not name:
        raise _problem(spec, "0204", f"`{package}` is not of the form `package:Name`")
    found = getattr(_import(spec, package, allow), name, None)
    if found is None:
        near = did_you_mean(name, dir(sys.modules[package]))
        raise _problem(spec, "0204", f"`{package}` has no `{name}`", help=near)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise _problem(spec, "0205", f"`{package}:{name}` is {_kind(found)}, not a subclass of torch.nn.Module")
    return found


def _import(spec: Spec, package: str, allow: Sequence[str]) -> ModuleType:
    for entry in allow:
        module = _from_path(package, Path(entry).expanduser())
        if module is not None:
            return _run(spec, package, module)
    top = package.partition(".")[0]
    if top not in (*PACKAGES, *allow):
        raise _problem(
            spec,
            "0204",
            f"importing `{package}` runs its code, and it is none of the allowed packages {one_of(PACKAGES)}",
            help=f"if you trust it: --allow {top}, or --allow PATH of a file or folder",
        )
    return _run(spec, package, None)


def _from_path(package: str, path: Path) -> importlib.machinery.ModuleSpec | None:
    if path.is_file() and path.stem == package:
        return importlib.util.spec_from_file_location(package, path.resolve())
    if path.is_dir():
        return importlib.machinery.PathFinder.find_spec(package, [str(path.resolve())])
    return None


def _run(spec: Spec, package: str, found: importlib.machinery.ModuleSpec | None) -> ModuleType:
    try:
        if found is None:
            return importlib.import_module(package)
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        # Code that looks itself up while it is imported (dataclasses do) must find itself.
        sys.modules[package] = module
        found.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        missing = str(error.name)
        extra = "pip install 'lpc[models]'" if missing in ("transformers", "peft") else f"pip install {missing}"
        raise _problem(spec, "0216", f"`{package}` needs `{missing}`, which is not installed", help=extra) from error
    except Exception as error:
        raise _problem(spec, "0204", f"`{package}` cannot be imported", first_line(error)) from error


def _kind(found: object) -> str:
    return f"the class `{found.__name__}`" if isinstance(found, type) else f"an object of type `{type(found).__name__}`"


def _problem(spec: Spec, code: str, text: str, *notes: str, help: str | None = None) -> LpcError:
    span = spec.origin("network", "module")
    return LpcError(Diagnostic(code, text, span, None if span else "spec: network.module", notes, help))
