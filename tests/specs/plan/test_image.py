"""Is a stored image what is in the file, as long as the file is, and refused once it was changed?"""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.image import CHUNK, Stored
from lpc.specs.plan.manifest import plan_hash
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.store import load, save

DATA = bytes(range(256)) * 5000  # more than a chunk
AMPLE = 2 * CHUNK
AT = 37


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("image") / "file"
    found.write_bytes(b"x" * AT + DATA)
    return found


def stored(path: Path, start: int = AT, size: int = len(DATA)) -> Stored:
    with path.open("rb") as stream:
        return Stored(stream.fileno(), start, size, str(path))


@given(st.integers(-AMPLE, AMPLE) | st.none(), st.integers(-AMPLE, AMPLE) | st.none(), st.sampled_from((None, 1, 3)))
@settings(max_examples=60, deadline=None)
def test_slices_are_those_of_bytes(path: Path, first: int | None, last: int | None, step: int | None) -> None:
    assert stored(path)[first:last:step] == DATA[first:last:step]


def test_it_is_equal_to_its_bytes(path: Path) -> None:
    found = stored(path)
    assert found.sha256 == hashlib.sha256(DATA).hexdigest()
    assert len(found) == len(DATA)
    assert bytes(found) == DATA
    for same in (DATA, stored(path)):
        assert found == same
        assert same == found
    for other in (DATA[:-1] + b"?", DATA[:-1], stored(path, AT - 1)):
        assert found != other
    assert len(stored(path, AT, AMPLE)) == len(DATA)  # what is there


def test_it_stays_when_another_file_takes_its_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    found = stored(path, 0)
    (tmp_path / "other").write_bytes(b"other")
    os.replace(tmp_path / "other", path)
    assert bytes(found) == DATA
    path.unlink()
    assert found[5:9] == DATA[5:9]


@pytest.mark.parametrize("change", ["shorter", "other"])
def test_a_file_that_was_changed_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    found = stored(path, 0)
    with path.open("r+b") as stream:
        if change == "shorter":
            stream.truncate(100)
        else:
            stream.write(b"?")
    os.utime(path, ns=(1, 1))
    for read in (lambda: found[:10], lambda: bytes(found)):
        with pytest.raises(LpcError, match=r"LPC0505.*changed since"):
            read()


@pytest.mark.parametrize("name", ["a.plan", "a.zip"])
def test_a_plan_leaves_its_weights_in_the_file(plan: Plan, tmp_path: Path, name: str) -> None:
    big = replace(plan, weights=bytes(plan.weights) + bytes(2 * CHUNK))
    save(big, tmp_path / name)
    found = load(tmp_path / name)
    assert isinstance(found.weights, Stored)
    assert found == big
    assert plan_hash(found) == plan_hash(big) != plan_hash(plan)
    save(replace(plan, spec="lpc: 1\nname: other\n"), tmp_path / name)  # takes its place
    assert bytes(found.weights) == big.weights
    assert found.weights[-5:] == bytes(5)


def test_more_before_a_file_of_an_archive(plan: Plan, tmp_path: Path) -> None:
    """Where the weights begin in an archive is told before them: names and more have any length."""
    save(plan, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, zipfile.ZipFile(tmp_path / "b.zip", "w") as other:
        for info in archive.infolist():
            info.extra = b"\xca\xfe\x04\x00more"
            other.writestr(info, archive.read(info.filename))
    (tmp_path / "c.zip").write_bytes(b"before" + (tmp_path / "b.zip").read_bytes())
    for name in ("b.zip", "c.zip"):
        assert load(tmp_path / name) == plan
