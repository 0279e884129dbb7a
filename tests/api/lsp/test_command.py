"""Does `lpc lsp` say what it lacks, stay light, and outlive whatever is typed?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Editor
from .samples import SAMPLES

HIDE = """
import sys
sys.modules[{library!r}] = None
from lpc.cli import main
main(["lsp"])
"""

ODD = (
    "§", ")§", "((([[[{{{§", "\t- §", '"§', "'§", "a: [b: {c: (§", ":::§", "learn\r\n  §", "\n\n  §\n", "*§", "🎼§",
)  # fmt: skip

LOADED = """
import lpc.lsp.server, sys
print(*{"torch", "networkx", "numpy", "sklearn"} & set(sys.modules))
"""


@pytest.mark.parametrize("library", ["pygls", "lsprotocol"])
def test_without_its_library_it_says_what_to_install(library: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HIDE.format(library=library)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "error[LPC0707]" in done.stderr
    assert "--> command line:1:5" in done.stderr
    assert "pip install 'lpc[lsp]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_loads_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("spelling", SAMPLES)
def test_every_beginning_of_a_spec_is_answered(editor: Editor, tmp_path: Path, spelling: str) -> None:
    """A spec typed from its first to its last character, with completion and hover on the way."""
    path, text = tmp_path / f"spec.{spelling}", SAMPLES[spelling]
    for end in range(0, len(text), 13):
        begun = f"{text[:end]}§"
        assert isinstance(editor.completed(path, begun), dict)
        assert isinstance(editor.explained(path, begun), str)
    assert editor.write(path, text) == []


@pytest.mark.parametrize("spelling", SAMPLES)
def test_anything_else_is_answered(editor: Any, tmp_path: Path, spelling: str) -> None:
    path = tmp_path / f"spec.{spelling}"
    for odd in ODD:
        assert isinstance(editor.completed(path, odd), dict)
        assert isinstance(editor.explained(path, odd), str)
        assert isinstance(editor.led(path, odd), list)
