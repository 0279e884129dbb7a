"""Does a replaced file hold the old or the new content, whatever fails?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lpc.specs.files import leftovers, locked, replacing, write_atomically


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_in_the_body_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as stream:
        stream.write(bytes(1 // 0))
    assert path.read_bytes() == b"old"
    assert leftovers(path) == []


def test_leftovers_are_those_of_one_file(tmp_path: Path) -> None:
    for name in (".a.json.01234567.tmp", ".b.json.01234567.tmp", ".a.json.tmp", "a.json"):
        (tmp_path / name).touch()
    assert [path.name for path in leftovers(tmp_path / "a.json")] == [".a.json.01234567.tmp"]


def test_readers_share_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True):
        pass
    with locked(tmp_path):
        pass
