"""Is the code within the limits that CONTRIBUTING.md states?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE_LINES = 500
TEST_FILE_LINES = 800
FUNCTION_LINES = 60
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "X" * 3, "raise NotImpl" + "emented")


def functions(module: Any) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_module_says_what_it_answers(modules: dict[str, Any]) -> None:
    assert not [str(module.path) for module in modules.values() if not ast.get_docstring(module.tree)]


def test_functions_are_short(modules: dict[str, Any]) -> None:
    long = [
        f"{module.path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for module in modules.values()
        for node in functions(module)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not long


def test_files_are_short(modules: dict[str, Any], root: Path) -> None:
    limits = {root / module.path: FILE_LINES for module in modules.values()}
    for folder in ("tests", "benchmarks"):
        limits |= dict.fromkeys((root / folder).rglob("*.py"), TEST_FILE_LINES)
    long = [str(path) for path, limit in limits.items() if len(path.read_text().splitlines()) > limit]
    assert not long


def test_nothing_is_left_unfinished(root: Path) -> None:
    left = [
        f"{path}:{number}: {line.strip()}"
        for folder in ("specs", "compiler", "runtime", "api", "tests", "benchmarks", "examples", "docs")
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".md", ".yaml", ".lark"}
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if any(word in line for word in UNFINISHED)
    ]
    assert not left
