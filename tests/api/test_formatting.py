"""Does `lpc fmt` change a file only when asked, and say so with its exit code?"""

from __future__ import annotations

from pathlib import Path

import pytest

from lpc.cli import main

MESSY = """\
run: {epochs: 1}
loss: [mse]   # why
network: {zoo: mlp, args: {widths: [4, 3]}}
decompose: {blocks: per_layer}
learn: []
"""


def code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["fmt", *arguments])
    return int(ended.value.code or 0)


def test_fmt_writes_checks_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(MESSY)
    assert code(str(file), "--check") == 1
    assert code(str(file), "--diff") == 0
    assert "+loss: mse  # why" in capsys.readouterr().out
    assert file.read_text() == MESSY
    assert code(str(file)) == 0
    assert "loss: mse  # why\n" in file.read_text()
    assert code(str(file), "--check") == 0


def test_fmt_prints_the_other_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(MESSY)
    assert code(str(file), "--to", "dsl") == 0
    assert capsys.readouterr().out.endswith(
        "loss mse  # why\ndecompose blocks per_layer\nlearn []\nrun epochs 1\n"
    )
    assert file.read_text() == MESSY


def test_fmt_tells_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "spec.lpc"
    file.write_text("run epochs: 1\n")
    assert code(str(file)) == 2
