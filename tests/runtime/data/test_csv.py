"""Are CSV files of any length read once, in blocks, mapped, and refused at their row where they are malformed?"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import lpc
from lpc.runtime.data import batches, csv, describe, open_data
from lpc.specs import load_spec
from lpc.specs.model import Data
from lpc.specs.plan.kernel import TensorType

COUNT, WIDTH = 2000, 28
FIELDS = {"x": TensorType("float32", ("B", WIDTH)), "label": TensorType("int64", ("B",)),
          "index": TensorType("int64", ("B",))}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(csv, "BLOCK", 2**14)  # many blocks
    return tmp_path / "cache" / "lpc" / "csv"


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.integers(0, 2, COUNT), draw.normal(size=(COUNT, WIDTH)).astype(np.float32)


def higgs(numbers: tuple[np.ndarray, np.ndarray]) -> list[str]:
    """Rows in the form of the HIGGS file: the class first, all in scientific notation, no header."""
    return [",".join(f"{v:.18e}" for v in (label, *row)) for label, row in zip(*numbers, strict=True)]


def data(path: Path, arguments: str, more: str = "") -> Data:
    spec = load_spec(
        "network: {inputs: {x: [28]}, layers: [out: linear(2)]}\n"
        f"data: {{source: 'csv({arguments})', root: {path}, batch: 64{more}}}\nrecipe: backprop\nrun: {{epochs: 1}}\n"
    )
    assert spec.data is not None
    return spec.data


@pytest.mark.parametrize("packed", [False, True])
def test_the_form_of_higgs(tmp_path: Path, cache: Path, numbers: tuple[np.ndarray, np.ndarray], packed: bool) -> None:
    """Labels and features are the file's, the last rows are for the test, and arrays lie on disk."""
    path, text = tmp_path / ("HIGGS.csv.gz" if packed else "HIGGS.csv"), "\n".join(higgs(numbers)) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    section = data(path, "label=0, header=false, test=300")
    assert describe(section) == {"x": FIELDS["x"], "label": FIELDS["label"]}
    splits = open_data(section, FIELDS, 0)
    assert splits.test is not None
    assert (len(splits.train), len(splits.test)) == (1700, 300)
    batch = splits.train[torch.tensor([5, 1699, 0])]
    np.testing.assert_array_equal(batch["x"], numbers[1][[5, 1699, 0]])
    np.testing.assert_array_equal(batch["label"], numbers[0][[5, 1699, 0]])
    np.testing.assert_array_equal(splits.test[torch.arange(300)]["x"], numbers[1][1700:])
    (folder,) = cache.iterdir()
    assert (folder / "x.bin").stat().st_size == COUNT * WIDTH * 4
    before = (folder / "x.bin").stat().st_mtime_ns
    open_data(section, FIELDS, 0)
    assert (folder / "x.bin").stat().st_mtime_ns == before  # read once
    path.write_bytes(gzip.compress(b"1,2\n") if packed else b"1,2\n")
    assert describe(section)["x"].shape == ("B", 1)  # another file


def test_nothing_is_loaded_as_a_whole(tmp_path: Path, numbers: tuple[np.ndarray, np.ndarray]) -> None:
    """What splits hold is the mapped file, parts for the test included; the order is that of any data."""
    (tmp_path / "a.csv").write_text("\n".join(higgs(numbers)))
    splits = open_data(data(tmp_path / "a.csv", "label=0, header=false", ", test: 0.1"), FIELDS, 0)
    assert splits.test is not None
    assert len(splits.train) == 1800
    pointers = {s.stored["x"].untyped_storage().data_ptr() for s in (splits.train, splits.test)}
    assert len(pointers) == 1
    both = torch.cat([s[torch.arange(len(s))]["x"] for s in (splits.train, splits.test)])
    assert torch.equal(both.sort(0).values, torch.from_numpy(numbers[1]).sort(0).values)
    own = {"seed": 3, "epoch": 2, "shuffle": True, "device": "cpu"}
    whole = list(batches(splits.train, 64, **own))
    resumed = list(batches(splits.train, 64, start=20, **own))
    assert torch.equal(whole[20]["index"], resumed[0]["index"])
    assert torch.equal(whole[-1]["x"], resumed[-1]["x"])


def test_a_header_names_the_label(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a;y;b\n1;0.5;2\n3;-1.5;4\n")
    fields = {"x": TensorType("float64", ("B", 2)), "label": TensorType("float64", ("B",))}
    section = data(tmp_path, 'label=y, delimiter=\\";\\", kind=number'.replace("\\", ""))
    batch = open_data(section, fields, 0).train[torch.arange(2)]
    assert batch["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert batch["label"].tolist() == [0.5, -1.5]


GOOD = "1,2,3\n" * 3000
WRONG = {
    "short": ("label=0, header=false", GOOD + "1,2\n" + GOOD, "0603", "row 3001"),
    "word": ("label=0, header=false", GOOD + "1,two,3\n", "0603", "column 1"),
    "missing": ("label=0, header=false", GOOD + "1,,3\n", "0603", "row 3001 column 1"),
    "label": ("label=0, header=false", GOOD + "0.5,2,3\n", "0603", "row 3001 column 0"),
    "no label": ("label=7, header=false", GOOD, "0605", "numbers from 0"),
    "no name": ("label=y", "a,b\n1,2\n", "0605", "its columns are a, b"),
    "empty": ("header=false", "", "0612", "no rows"),
    "head alone": ("", "a,b\n", "0612", "no rows"),
    "alone": ("label=0, header=false", "1\n2\n", "0603", "no column beside"),
    "test": ("label=0, header=false, test=6000", GOOD, "0614", "none to train on"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_malformed_is_told_with_its_row(tmp_path: Path, cache: Path, name: str) -> None:
    arguments, text, code, reason = WRONG[name]
    (tmp_path / "a.csv").write_text(text)
    fields = {"x": TensorType("float32", ("B", len(text.partition("\n")[0].split(",")) - ("label" in arguments)))}
    with pytest.raises(lpc.LpcError) as caught:
        open_data(data(tmp_path / "a.csv", arguments), fields, 0)
    (problem,) = caught.value.diagnostics
    assert problem.code == code
    assert reason in str(problem)
    assert not list(cache.glob("tmp*"))  # nothing is left half written
