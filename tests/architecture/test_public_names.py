"""What does `lpc` promise? Its names, sorted, complete and cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lpc
import lpc.specs

HEAVY = ("torch", "networkx", "numpy", "sklearn", "lpc.compiler", "lpc.runtime")


def modules_after(code: str, cwd: Path | None = None) -> set[str]:
    """Return the names of all modules that a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint('LOADED', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("LOADED", 1)[1].split())


def test_public_names_are_sorted_and_complete() -> None:
    assert list(lpc.__all__) == sorted(lpc.__all__)
    assert dir(lpc) == sorted(lpc.__all__)


def test_every_public_name_resolves_and_is_documented() -> None:
    for name in lpc.__all__:
        value = getattr(lpc, name)
        assert name == "__version__" or value.__doc__, name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no public name"):
        _ = lpc.nothing_of_this_name


@pytest.mark.parametrize("code", ["import lpc", "import lpc.specs", "from lpc import LpcError, Spec"])
def test_import_is_light(code: str) -> None:
    assert not modules_after(code) & set(HEAVY)


def test_check_loads_no_torch(root: Path) -> None:
    code = "from lpc.cli import app; app(['check', 'examples/digits/spec.yaml'], standalone_mode=False)"
    assert not modules_after(code, cwd=root) & set(HEAVY)


def test_help_waits_for_no_part_of_the_language() -> None:
    loaded = modules_after("from lpc.cli import app; app(['--help'], standalone_mode=False)")
    assert not loaded & {*HEAVY, "pydantic", "lark", "ruamel.yaml", "lpc.specs.model"}


def test_checking_yaml_loads_neither_the_dsl_nor_rich(root: Path) -> None:
    code = "from lpc.cli import app; app(['check', 'examples/digits/spec.yaml'], standalone_mode=False)"
    assert not modules_after(code, cwd=root) & {"lpc.specs.dsl_text", "lpc.specs.codes", "rich.console"}


def test_no_public_name_is_a_submodule(modules: dict[str, Any]) -> None:
    """An imported submodule takes the place of a name that is loaded late."""
    for package in (lpc, lpc.specs):
        assert not {f"{package.__name__}.{name}" for name in package.__all__} & set(modules)
