"""Does every source give the numbers that are in its files?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lpc.runtime.data import describe, open_data
from lpc.runtime.data.sources import SOURCES
from lpc.runtime.data.transforms import TRANSFORMS
from lpc.specs.model import Data
from lpc.specs.plan.kernel import TensorType
from lpc.specs.signatures.data import SOURCES as SOURCE_WORDS
from lpc.specs.signatures.data import TRANSFORMS as TRANSFORM_WORDS
from lpc.specs.term import Term

LABEL = TensorType("int64", ("B",))


def image(*shape: int | str, dtype: str = "float32") -> TensorType:
    return TensorType(dtype, ("B", *shape))


def test_the_words_of_the_language_are_the_tables() -> None:
    assert set(SOURCES) == set(SOURCE_WORDS)
    assert set(TRANSFORMS) == set(TRANSFORM_WORDS)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data = Data()
    assert describe(data) == {"image": image(1, 8, 8), "label": LABEL}
    splits = open_data(data, {"image": image(64), "label": LABEL}, seed=0)
    assert splits.test is not None
    assert splits.validation is None
    assert (len(splits.train), len(splits.test)) == (1438, 359)
    both = [split[range(len(split))] for split in (splits.train, splits.test)]
    pixels = torch.cat([batch["image"] for batch in both]) * 16
    labels = torch.cat([batch["label"] for batch in both])
    original = load_digits()
    ours = sorted(map(tuple, torch.cat([pixels, labels[:, None].float()], 1).tolist()))
    theirs = sorted(map(tuple, np.c_[original.data, original.target].tolist()))
    assert ours == theirs


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_mnist_is_found_where_it_usually_lies(mnist_like: Path, tmp_path_factory: Any, folder: str) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / folder).mkdir(parents=True, exist_ok=True)
    for path in mnist_like.iterdir():
        (root / folder / path.name).write_bytes(path.read_bytes())
    data = Data(source=Term("mnist"), root=str(root))
    splits = open_data(data, {"image": image(1, 6, 5), "label": LABEL}, seed=0)
    assert splits.test is not None
    batch = splits.test[[3, 17]]
    assert torch.equal(batch["image"][1], torch.full((1, 6, 5), 17 / 255))
    assert batch["label"].tolist() == [3, 7]
    assert len(splits.train) == 50


def test_idx_describes_without_reading_the_values(mnist_like: Path) -> None:
    path = mnist_like / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:8])
    data = Data(source=Term("idx"), root=str(mnist_like))
    assert describe(data) == {"image": image(1, 6, 5), "label": LABEL}


def test_npz_by_array_name(npz_folder: Path) -> None:
    data = Data(source=Term("npz"), root=str(npz_folder), columns={"x": "image"})
    assert describe(data) == {"x": image(3, 8, 8), "label": LABEL, "vector": image(5)}
    splits = open_data(data, {"x": image(3, 8, 8), "vector": image(5, dtype="float64")}, seed=0)
    arrays = np.load(npz_folder / "train.npz")
    batch = splits.train[[7]]
    np.testing.assert_array_equal(batch["x"][0].numpy(), arrays["image"][7].astype(np.float32) / 255)
    np.testing.assert_array_equal(batch["vector"][0].numpy(), arrays["vector"][7])


def test_one_npz_file_with_fractions(npz_folder: Path) -> None:
    data = Data(source=Term("npz", ("train.npz",)), root=str(npz_folder), test=0.25, validation=0.25)
    splits = open_data(data, {"label": LABEL}, seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.test) if s is not None] == [20, 10, 10]


@pytest.fixture
def pixels() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 256, (9, 6, 4, 3), np.uint8)


def png(array: np.ndarray[Any, Any]) -> bytes:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["marked", "plain", "bytes"])
def test_parquet_images(tmp_path: Path, pixels: np.ndarray[Any, Any], kind: str) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    datasets = pytest.importorskip("datasets")
    files = [png(p) for p in pixels]
    column = files if kind == "bytes" else [{"bytes": f, "path": None} for f in files]
    table = pa.table({"img": column, "label": list(range(9)), "words": ["a"] * 9})
    if kind == "marked":
        features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(9),
                                      "words": datasets.Value("string")})
        table = table.cast(features.arrow_schema)
    pq.write_table(table.slice(0, 5), tmp_path / "train-00000-of-00002.parquet")
    pq.write_table(table.slice(5), tmp_path / "train-00001-of-00002.parquet")
    data = Data(source=Term("parquet"), root=str(tmp_path), columns={"image": "img"})
    assert describe(data) == {"image": image(3, 6, 4), "label": LABEL}
    train = open_data(data, {"image": image(3, 6, 4), "label": LABEL}, seed=0).train
    batch = train[range(9)]
    assert torch.equal(batch["image"] * 255, torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
    assert batch["label"].tolist() == list(range(9))


def test_parquet_lists_are_vectors(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    pq.write_table(pa.table({"tokens": rows, "y": [0.5, 1.5]}), tmp_path / "train.parquet")
    data = Data(source=Term("parquet"), root=str(tmp_path / "train.parquet"))
    wanted = {"tokens": image("T", 2, dtype="int64"), "y": TensorType("float64", ("B",))}
    batch = open_data(data, wanted, seed=0).train[[0, 1]]
    assert batch["tokens"].tolist() == rows
    assert batch["y"].tolist() == [0.5, 1.5]


def test_parquet_arrays_of_the_hub_have_their_shapes(tmp_path: Path) -> None:
    """`Array3D` and its like are types of the library's own, which store lists of lists."""
    datasets = pytest.importorskip("datasets")
    images = torch.arange(24.0).reshape(2, 1, 3, 4)
    features = datasets.Features({"image": datasets.Array3D((1, 3, 4), "float32")})
    made = datasets.Dataset.from_dict({"image": images.tolist()}, features)
    made.to_parquet(tmp_path / "train.parquet")
    data = Data(source=Term("parquet"), root=str(tmp_path / "train.parquet"))
    assert describe(data) == {"image": image(1, 3, 4)}
    assert torch.equal(open_data(data, {"image": image(1, 3, 4)}, seed=0).train[[0, 1]]["image"], images)


def test_imagefolder_labels_are_folder_names(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    pytest.importorskip("datasets")
    for row, name in enumerate(("train/cat", "train/dog", "train/dog", "test/cat")):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / f"{row}.png").write_bytes(png(pixels[row]))
    data = Data(source=Term("imagefolder"), root=str(tmp_path))
    assert describe(data) == {"image": image(3, 6, 4), "label": LABEL}
    splits = open_data(data, {"image": image(3, 6, 4), "label": LABEL}, seed=0)
    assert splits.test is not None
    assert splits.train[range(3)]["label"].tolist() == [0, 1, 1]
    assert torch.equal(splits.test[0]["image"] * 255, torch.from_numpy(pixels[3]).permute(2, 0, 1).float())


def test_images_of_many_sizes_are_brought_to_one(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train" / "a").mkdir(parents=True)
    for side in (4, 9):
        grey = np.full((side, side + 2), 20 * side, np.uint8)
        (tmp_path / "train" / "a" / f"{side}.png").write_bytes(png(grey))
    data = Data(source=Term("imagefolder", (), {"size": 4}), root=str(tmp_path))
    batch = open_data(data, {"image": image(1, 4, 4)}, seed=0).train[[0, 1]]
    expected = torch.tensor([80.0, 180.0])[:, None, None, None].expand(2, 1, 4, 4)
    assert torch.equal(batch["image"] * 255, expected)


def test_hub_data_sets_come_through_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"x": [[0.0, 1.0], [2.0, 3.0]], "label": [1, 0]})
    asked: list[object] = []

    def load_dataset(*arguments: object) -> object:
        asked.append(arguments)
        return datasets.DatasetDict({"train": table, "val": table.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = Data(source=Term("huggingface", ("someone/set", "small")))
    splits = open_data(data, {"x": image(2), "label": LABEL}, seed=0)
    assert asked == [("someone/set", "small")]
    assert splits.validation is not None
    assert splits.validation[[0]]["x"].tolist() == [[2.0, 3.0]]
    assert splits.train[[0, 1]]["label"].tolist() == [1, 0]
