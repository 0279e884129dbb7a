"""Is what docs/editors.md tells an editor to read well formed, and does it start the server?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "editors.md").read_text()


def blocks(section: str) -> list[str]:
    part = re.split(r"^## ", PAGE.partition(f"\n## {section}\n")[2], flags=re.MULTILINE)[0]
    return re.findall(r"^```text\n(.*?)^```", part, re.MULTILINE | re.DOTALL)


def test_helix() -> None:
    (text,) = blocks("Helix")
    table = tomllib.loads(text)
    assert table["language-server"]["lpc"] == {"command": "lpc", "args": ["lsp"]}
    assert {language["name"] for language in table["language"]} == {"lpc", "yaml"}


def test_vs_code(tmp_path: Path) -> None:
    package, language, extension = blocks("VS Code")
    found = json.loads(package)
    assert found["main"] == "./extension.js"
    assert json.loads(language)["comments"] == {"lineComment": "#"}
    assert 'args: ["lsp"]' in extension
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to check the script's syntax")
    (tmp_path / "extension.js").write_text(extension)
    subprocess.run([node, "--check", tmp_path / "extension.js"], check=True, timeout=60)


def test_neovim() -> None:
    (text,) = blocks("Neovim")
    assert 'cmd = { "lpc", "lsp" }' in text
    assert text.count("{") == text.count("}")
