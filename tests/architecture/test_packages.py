"""Does pyproject name every package, and does everything that is installed exist?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def test_package_list_equals_the_folders(root: Path, setuptools_table: dict[str, Any]) -> None:
    found = {
        ".".join([package, *init.parent.relative_to(root / folder).parts])
        for package, folder in setuptools_table["package-dir"].items()
        for init in (root / folder).rglob("__init__.py")
    }
    assert sorted(setuptools_table["packages"]) == sorted(found)


def test_every_folder_with_code_is_a_package(root: Path, setuptools_table: dict[str, Any]) -> None:
    lost = {
        str(path.parent.relative_to(root))
        for folder in setuptools_table["package-dir"].values()
        for path in (root / folder).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert not lost


def test_every_package_data_file_is_shipped(root: Path, setuptools_table: dict[str, Any]) -> None:
    shipped = {
        path
        for package, patterns in setuptools_table["package-data"].items()
        for pattern in patterns
        for path in folder_of(root, setuptools_table, package).glob(pattern)
    }
    present = {
        path
        for folder in setuptools_table["package-dir"].values()
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert present == shipped


def folder_of(root: Path, setuptools_table: dict[str, Any], package: str) -> Path:
    """Return the repository's folder of an installed package."""
    folders = setuptools_table["package-dir"]
    top = max((name for name in folders if f"{package}.".startswith(f"{name}.")), key=len)
    return root.joinpath(folders[top], *package.removeprefix(top).strip(".").split("."))


def test_link_tree_shows_the_installed_package(root: Path, tmp_path: Path, modules: dict[str, Any]) -> None:
    spec = importlib.util.spec_from_file_location("typetree", root / "tests" / "architecture" / "typetree.py")
    assert spec is not None
    assert spec.loader is not None
    typetree = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(typetree)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    typetree.write(root, tmp_path)
    seen = {
        ".".join(["lpc", *path.relative_to(tmp_path).with_suffix("").parts]).removesuffix(".__init__")
        for entry in tmp_path.iterdir()
        for path in (entry.rglob("*.py") if entry.is_dir() else [entry])
        if path.suffix == ".py"
    }
    assert seen == set(modules)
