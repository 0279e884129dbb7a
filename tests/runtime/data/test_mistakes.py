"""Is every mistake with data told with its place, its cause and one thing to try?"""

from __future__ import annotations

import gzip
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpc.runtime.data import describe, open_data
from lpc.specs.diagnostics import LpcError
from lpc.specs.model import Data
from lpc.specs.plan.kernel import TensorType
from lpc.specs.source import Source, Span
from lpc.specs.term import Term

IMAGE = TensorType("float32", ("B", 1, 6, 5))
LABEL = TensorType("int64", ("B",))
BOTH = {"image": IMAGE, "label": LABEL}


def told(data: Data, fields: dict[str, TensorType], code: str, *words: str) -> None:
    """Assert that opening fails with exactly one diagnostic that says all of `words`."""
    with pytest.raises(LpcError) as caught:
        open_data(data, fields, seed=0)
    (diagnostic,) = caught.value.diagnostics
    text = diagnostic.render()
    assert diagnostic.code == code, text
    assert "-->" in text
    for word in words:
        assert word in text, text


def idx(root: Path, **more: Any) -> Data:
    return Data(source=Term("idx"), root=str(root), **more)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def wrong_magic(path: Path) -> None:
    path.write_bytes(b"\x89PNG" + path.read_bytes()[4:])


def short_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6])


def one_more(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("damage", "words"), [
    (cut_short, ("58 bytes, found 54", "byte 54")),
    (wrong_magic, ("89 50 4e 47", "byte 0")),
    (short_header, ("header of 8 bytes", "byte 6")),
    (one_more, ("58 bytes, found 59", "byte 58")),
    (empty, ("nothing", "byte 0")),
])
def test_damaged_idx(mnist_like: Path, damage: Callable[[Path], None], words: tuple[str, ...]) -> None:
    damage(mnist_like / "train-labels-idx1-ubyte")
    told(idx(mnist_like), BOTH, "0603", "train-labels-idx1-ubyte", *words)


def test_truncated_idx_inside_gzip(mnist_like: Path) -> None:
    path = mnist_like / "t10k-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:100]))
    told(idx(mnist_like), BOTH, "0603", "616 bytes, found 100", "byte 100")


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip"])
def test_damaged_gzip(mnist_like: Path, damage: str) -> None:
    path = mnist_like / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[-6] ^= 0xFF
    else:
        content[:2] = b"no"
    path.write_bytes(content)
    told(idx(mnist_like), BOTH, "0603", "gzip", str(path), "byte")


def test_more_images_than_labels(mnist_like: Path) -> None:
    path = mnist_like / "t10k-labels-idx1-ubyte"
    (mnist_like / "train-labels-idx1-ubyte").write_bytes(path.read_bytes())
    told(idx(mnist_like), BOTH, "0604", "20 samples", "50", "train-labels-idx1-ubyte")


@pytest.mark.parametrize(("data", "code", "words"), [
    (Data(source=Term("digit")), "0600", ("unknown data source `digit`", "did you mean `digits`")),
    (Data(source=Term("mnist")), "0601", ("needs to know", "data.root")),
    (Data(source=Term("mnist"), root="/no/such/folder"), "0602", ("/no/such/folder",)),
    (Data(source=Term("digits", (3,))), "0615", ("takes 0 arguments",)),
    (Data(source=Term("huggingface")), "0615", ("lacks `name`", "name: str")),
    (Data(test="holdout"), "0613", ("no split `holdout`", "data.test")),
    (Data(test=1.5), "0614", ("1.5",)),
    (Data(test=0.5, validation=0.5), "0614", ("leave no samples",)),
    (Data(test=0.0001), "0612", ("`test`", "1797")),
    (Data(columns={"image": "picture"}), "0605", ("no column `picture`", "image, label")),
    (Data(transforms=(Term("normalise", (0, 1)),)), "0615", ("mean `normalize`", "data.transforms.0")),
    (Data(transforms=(Term("flatten"), Term("normalize", (0.5,)))), "0615", ("lacks `std`", "transforms.1")),
    (Data(transforms=(Term("normalize", ("half", 1)),)), "0615", ("`mean` = 'half'",)),
    (Data(transforms=(Term("normalize", (0.0, 0.0)),)), "0616", ("positive",)),
    (Data(transforms=(Term("normalize", ([0.0, 1.0], 1)),)), "0616", ("one per channel", "2 for shape [1")),
    (Data(transforms=(Term("crop", (9,)),)), "0616", ("8x8", "9x9")),
    (Data(transforms=(Term("flatten"), Term("flip"))), "0616", ("rows and columns", "[64]")),
    (Data(transforms=(Term("flip", (2,)),)), "0615", ("`p` = 2",)),
])
def test_mistakes_in_the_data_section(data: Data, code: str, words: tuple[str, ...]) -> None:
    told(data, {"image": TensorType("float32", ("B", 1, 8, 8)), "label": LABEL}, code, *words)


@pytest.mark.parametrize(("fields", "code", "words"), [
    ({"image": TensorType("float32", ("B", 3, 32, 32))}, "0606", ("[1, 8, 8]", "[3, 32, 32]")),
    ({"image": TensorType("float32", ("B", 8, 4, 2))}, "0606", ("[8, 4, 2]",)),
    ({"image": TensorType("int64", ("B", 64))}, "0607", ("image values", "int64")),
    ({"images": TensorType("float32", ("B", 64))}, "0605", ("did you mean `image`",)),
    ({"label": TensorType("int64", ("B", 2))}, "0606", ("[]", "[2]")),
    ({"label": TensorType("complex64", ("B",))}, "0607", ("complex64",)),
])
def test_data_that_do_not_fit_the_plan(
    fields: dict[str, TensorType], code: str, words: tuple[str, ...]
) -> None:
    told(Data(), fields, code, *words)


def test_channels_last_is_not_taken_for_channels_first(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", image=np.zeros((4, 8, 8, 3), np.uint8))
    data = Data(source=Term("npz"), root=str(tmp_path))
    told(data, {"image": TensorType("float32", ("B", 3, 8, 8))}, "0606", "[8, 8, 3]", "[3, 8, 8]")


def test_npz_with_objects_is_refused_unread(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", label=np.array([{"a": 1}, None], object))
    told(Data(source=Term("npz"), root=str(tmp_path)), {"label": LABEL}, "0611", "train.npz", "`label`")


@pytest.mark.parametrize(("arrays", "code", "words"), [
    ({"label": np.array(["cat", "dog"])}, "0608", ("`label`", "<U3")),
    ({"label": np.array(3)}, "0603", ("no axis of samples",)),
    ({"label": np.zeros(0, np.int64)}, "0612", ("`train` has no samples",)),
    ({"label": np.zeros(3, np.int64), "image": np.zeros((4, 6, 5), np.uint8)}, "0604", ("has 3", "has 4")),
    ({"label": np.array([0.5])}, "0607", ("float64", "int64")),
])
def test_npz_mistakes(tmp_path: Path, arrays: dict[str, Any], code: str, words: tuple[str, ...]) -> None:
    np.savez(tmp_path / "train.npz", **arrays)
    fields = {"label": LABEL} | ({"image": IMAGE} if "image" in arrays else {})
    told(Data(source=Term("npz"), root=str(tmp_path)), fields, code, *words)


def test_damaged_npz(npz_folder: Path) -> None:
    path = npz_folder / "train.npz"
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)
    data = Data(source=Term("npz"), root=str(npz_folder))
    fields = {"image": TensorType("float32", ("B", 3, 8, 8))}
    told(data, fields, "0603", "train.npz")
    path.write_bytes(content[:1000])
    told(data, fields, "0603", "train.npz")


def test_npz_that_holds_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        archive.writestr("label.npy", b"nothing of numpy")
    told(Data(source=Term("npz"), root=str(tmp_path)), {"label": LABEL}, "0603", "not a numpy array")


def test_transforms_need_a_field_to_work_on(npz_folder: Path) -> None:
    np.savez(npz_folder / "train.npz", a=np.zeros((2, 3)), b=np.zeros((2, 3)))
    data = Data(source=Term("npz"), root=str(npz_folder), transforms=(Term("scale", (2,)),))
    told(data, {"a": TensorType("float32", ("B", 3))}, "0616", "`a` or `b`")


def test_folders_without_files(tmp_path: Path) -> None:
    for source in ("idx", "npz", "parquet"):
        told(Data(source=Term(source), root=str(tmp_path)), BOTH, "0602", str(tmp_path))


def write_parquet(path: Path, **columns: Any) -> Data:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path / "train.parquet")
    return Data(source=Term("parquet"), root=str(path))


@pytest.mark.parametrize(("column", "code", "words"), [
    (["cat", "dog"], "0608", ("`label`", "string")),
    ([1, None], "0603", ("missing", "row 1")),
    ([[1], [1, 2]], "0618", ("different lengths",)),
    ([], "0612", ("no rows",)),
    ([b"no image", b"neither"], "0617", ("cannot be decoded", "row 0")),
])
def test_parquet_mistakes(tmp_path: Path, column: list[Any], code: str, words: tuple[str, ...]) -> None:
    fields = {"label": TensorType("int64", ("B", "T"))} if code == "0618" else {"label": LABEL}
    told(write_parquet(tmp_path, label=column), fields, code, "train.parquet", *words)


def test_truncated_parquet(tmp_path: Path) -> None:
    data = write_parquet(tmp_path, label=[1, 2])
    path = tmp_path / "train.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    told(data, {"label": LABEL}, "0603", "Parquet", "train.parquet")


def test_images_of_two_sizes(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "train" / "a").mkdir(parents=True)
    for name, array in (("1", np.zeros((6, 5), np.uint8)), ("2", np.zeros((7, 5), np.uint8))):
        image.fromarray(array).save(tmp_path / "train" / "a" / f"{name}.png")
    data = Data(source=Term("imagefolder"), root=str(tmp_path))
    told(data, {"image": IMAGE}, "0617", "[1, 7, 5]", "[1, 6, 5]", "row 1", "imagefolder(size=64)")
    image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(tmp_path / "train" / "a" / "2.png")
    told(data, {"image": IMAGE}, "0617", "colour", "row 1")


def test_a_folder_without_images(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    told(Data(source=Term("imagefolder"), root=str(tmp_path)), BOTH, "0603", str(tmp_path))


def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    data = Data(source=Term("imagefolder"), root=str(tmp_path))
    told(data, BOTH, "0609", "`datasets`", "pip install 'lpc[data]'")


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*arguments: object) -> object:
        raise ConnectionError("Couldn't reach 'someone/set' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = Data(source=Term("huggingface", ("someone/set",)))
    told(data, BOTH, "0610", "cannot load `someone/set`", "Couldn't reach", "online")


def test_mistakes_are_located_in_the_spec() -> None:
    source = Source("spec.yaml", "data: {source: digits, test: 2.0}")
    span = Span(source, 1, 30, 1, 33)
    asked: list[tuple[str | int, ...]] = []

    def origin(*path: str | int) -> Span:
        asked.append(path)
        return span

    with pytest.raises(LpcError, match=r"spec\.yaml:1:30"):
        describe(Data(test=2.0), origin)
    assert asked == [("data", "test")]
    with pytest.raises(LpcError, match=r"spec\.yaml:1:30"):
        open_data(Data(transforms=(Term("spin"),)), {"image": IMAGE}, 0, origin)
    assert asked[1] == ("data", "transforms", 0)


def test_a_file_is_no_path_in_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.npz").write_bytes(b"")
    with pytest.raises(LpcError, match=r"--> data\.npz"):
        describe(Data(source=Term("npz"), root="data.npz"), lambda *path: Span(Source("s", "x"), 1, 1, 1, 2))


def test_an_unset_variable_is_told_at_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LPC_NO_SUCH", raising=False)
    text = 'root: "${LPC_NO_SUCH}/mnist"'
    span = Span(Source("spec.yaml", text), 1, 7, 1, 29)
    with pytest.raises(LpcError) as caught:
        describe(Data(source=Term("mnist"), root="${LPC_NO_SUCH}/mnist"), lambda *path: span)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.span) == ("0105", span)


def test_variables_stand_for_their_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", image=np.zeros((4, 6), np.float32), label=np.zeros(4, np.int64))
    monkeypatch.setenv("LPC_SOME", str(tmp_path))
    assert set(describe(Data(source=Term("npz"), root="${LPC_SOME}"))) == {"image", "label"}
