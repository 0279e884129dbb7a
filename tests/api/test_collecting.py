"""Is the collector off while a command imports, and only then?"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from lpc.collecting import keeping_all, load


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that notes whether the collector was on as it was imported."""
    (tmp_path / "slow_to_import.py").write_text("import gc\nCOLLECTS = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "slow_to_import", None)  # which takes the module away after the test
    del sys.modules["slow_to_import"]
    return "slow_to_import"


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was frozen, without freezing it: other tests' garbage is to be collected."""
    found: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: found.append("all"))
    return found


def test_nothing_is_collected_while_modules_are_imported(slow: str, frozen: list[str]) -> None:
    load(slow)
    assert not sys.modules[slow].COLLECTS
    assert gc.isenabled()
    assert frozen == ["all"]


def test_what_is_there_already_changes_nothing(slow: str, frozen: list[str]) -> None:
    load("gc", "sys")
    assert frozen == []


def test_a_collector_that_was_off_stays_off(slow: str, frozen: list[str]) -> None:
    gc.disable()
    try:
        with pytest.raises(ModuleNotFoundError):
            load(slow, "no_such_module")
        with keeping_all():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
