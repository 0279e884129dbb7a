"""Does an editor lay a text out as `lpc fmt` does, comments kept, and leave alone what cannot be read?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lpc.specs.formatting import format_spec

from .samples import SAMPLES

UNTIDY = {
    "yaml": SAMPLES["yaml"].replace("run: {epochs: 1}", "run:   {  seed: 2, epochs: 1}  # one pass"),
    "lpc": SAMPLES["lpc"].replace("run epochs 1", "run    seed 2   epochs   1   # one pass"),
}


@pytest.mark.parametrize("spelling", SAMPLES)
@pytest.mark.parametrize("ends", ["\n", ""])
def test_layout_is_that_of_fmt(editor: Any, tmp_path: Path, spelling: str, ends: str) -> None:
    path = tmp_path / f"spec.{spelling}"
    text = UNTIDY[spelling].rstrip("\n") + ends
    after = editor.laid_out(path, text)
    assert after == format_spec(path, text)
    assert "# one pass" in after
    assert after != text
    assert editor.laid_out(path, after) == after


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_text_that_cannot_be_read_stays(editor: Any, tmp_path: Path, spelling: str) -> None:
    text = UNTIDY[spelling].replace("epochs", "epochs (")
    assert editor.laid_out(tmp_path / f"spec.{spelling}", text) == text
