"""Which source files does the project consist of? Parsed once, as fixtures for the architecture tests."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One source file under its installed name."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    def imports(self, known: frozenset[str], *, anywhere: bool = False) -> Iterator[str]:
        """Yield the imported module names: those run at import, or `anywhere` also inside functions."""
        for node in ast.walk(self.tree) if anywhere else run_at_import(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.path}:{node.lineno}: relative import"
                base = node.module or ""
                for alias in node.names:
                    yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that are executed when the module is imported; typing-only blocks are not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def setuptools_table() -> dict[str, Any]:
    """The `[tool.setuptools]` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return table


@pytest.fixture(scope="session")
def modules(setuptools_table: dict[str, Any]) -> dict[str, Module]:
    """Every module of the four folders, by installed name; a package is named without `__init__`."""
    found: dict[str, Module] = {}
    for package, folder in setuptools_table["package-dir"].items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            text = path.read_text()
            found[name] = Module(name, path.relative_to(ROOT), text, ast.parse(text))
    return found
