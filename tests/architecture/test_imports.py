"""Does every import point down the diamond specs < compiler, runtime < api?"""

from __future__ import annotations

import ast
from typing import Any

import networkx as nx
import pytest

MAY_IMPORT = {
    "specs": {"specs"},
    "compiler": {"specs", "compiler"},
    "runtime": {"specs", "runtime"},
    "api": {"specs", "compiler", "runtime", "api"},
}
HEAVY = {"torch", "networkx", "numpy", "sklearn", "transformers", "datasets", "safetensors"}


def layer(name: str) -> str:
    """Return the folder that a module of the installed package lives in."""
    second = name.split(".")[1] if "." in name else ""
    return second if second in MAY_IMPORT else "api"


def internal(module: Any, known: frozenset[str], **how: bool) -> set[str]:
    return {name for name in module.imports(known, **how) if name == "lpc" or name.startswith("lpc.")}


def test_imports_follow_the_diamond(modules: dict[str, Any]) -> None:
    known = frozenset(modules)
    wrong = [
        f"{module.path} imports {target}"
        for module in modules.values()
        for target in internal(module, known, anywhere=True)
        if layer(target) not in MAY_IMPORT[layer(module.name)]
    ]
    assert not wrong


def test_no_import_cycles(modules: dict[str, Any]) -> None:
    known = frozenset(modules)
    graph = nx.DiGraph(
        (module.name, target)
        for module in modules.values()
        for target in internal(module, known)
        if target != module.name
    )
    # Importing a package from inside it is a cycle too: the edges stay between a package and its parts.
    assert not [sorted(cycle) for cycle in nx.strongly_connected_components(graph) if len(cycle) > 1]


def test_every_internal_import_exists(modules: dict[str, Any]) -> None:
    known = frozenset(modules)
    missing = [
        f"{module.path} imports {target}"
        for module in modules.values()
        for target in internal(module, known, anywhere=True)
        if target not in known
    ]
    assert not missing


def test_specs_imports_nothing_heavy(modules: dict[str, Any]) -> None:
    wrong = [
        f"{module.path} imports {target}"
        for module in modules.values()
        if layer(module.name) == "specs"
        for target in module.imports(frozenset(modules), anywhere=True)
        if target.split(".")[0] in HEAVY
    ]
    assert not wrong


@pytest.fixture(scope="module")
def imported(root: Any) -> list[tuple[str, str]]:
    """Where each top-level name is imported in all of the repository's Python, parsed once."""
    found = []
    for top in (*MAY_IMPORT, "tests", "benchmarks", "examples"):
        for path in (root / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found += [(f"{path}:{node.lineno}", name.split(".")[0]) for name in names]
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_bare_imports(folder: str, imported: list[tuple[str, str]]) -> None:
    """From the repository's root `import specs` would succeed and yield second, different classes."""
    assert "lpc" in {name for _, name in imported}
    assert not [place for place, name in imported if name == folder]
