"""How do these tests run the command? In this process where that is enough, in one of its own where it matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lpc.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def lpc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str | Path) -> Outcome:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    return command


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Run the command in a process of its own, in an empty folder."""

    def command(*arguments: str | Path) -> Outcome:
        line = [sys.executable, "-m", "lpc", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            line, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False, env=environment
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return command
