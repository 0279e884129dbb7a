"""How does the data section of a spec read as Python? The source, its splits, and the way of each field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lpc.ejecting.imports import imports
from lpc.ejecting.names import identifier
from lpc.ejecting.refusal import refuse
from lpc.ejecting.writing import document
from lpc.runtime.data.field import renamed
from lpc.runtime.data.opening import Splits
from lpc.runtime.data.splits import EMBEDDED_TEST, label_column, layout
from lpc.runtime.data.transform import sides
from lpc.specs.environment import filled
from lpc.specs.model import Data, Spec
from lpc.specs.signatures.data import CONTRASTS, SOURCES, TRANSFORMS
from lpc.specs.term import Term

Values = Mapping[str, Any]

DIGITS = '''\
def read(root):
    """Return scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.asarray(bunch.images).astype(np.uint8).reshape(-1, 1, 8, 8)
    return {"train": {"image": pixels, "label": np.asarray(bunch.target, np.int64)}}
'''

MNIST = '''\
def read(root):
    """Return MNIST's two splits from IDX files."""
    folder = idx.folder_of(root)
    return {
        split: {"image": idx.read(folder, f"{name}-images-idx3-ubyte")[:, None],
                "label": idx.read(folder, f"{name}-labels-idx1-ubyte")}
        for split, name in (("train", "train"), ("test", "t10k"))
    }
'''

NPZ = '''\
def read(root):
    """Return the arrays of one archive, or of `train.npz`, `test.npz` and `validation.npz` in a folder."""
    if root.is_file():
        return {"train": dict(np.load(root))}
    found = {path.stem: dict(np.load(path)) for path in sorted(root.glob("*.npz"))}
    if not found:
        raise FileNotFoundError(f"no .npz file in {root.resolve()}")
    return found
'''

# Source -> its code, and the integer that means 1 in images.
READERS: dict[str, tuple[str, int]] = {"digits": (DIGITS, 16), "mnist": (MNIST, 255), "npz": (NPZ, 255)}

WRITTEN: dict[str, Callable[[Values, int], str]] = {
    "normalize": lambda v, axes: f"images.normalize({v['mean']!r}, {v['std']!r}, axes={axes})",
    "flatten": lambda v, axes: "images.flatten()",
    "scale": lambda v, axes: f"images.scale({v['factor']!r})",
    "flip": lambda v, axes: f"images.flip(p={v['p']!r})",
    "crop": lambda v, axes: "images.crop({}, {}, padding={!r})".format(*sides(v["size"]), v["padding"]),
}


def check(spec: Spec, data: Data) -> None:
    """Refuse what is not written as code, at its place in the spec (0708)."""
    if data.source.name not in READERS:
        _refuse(spec, f"the source `{data.source.name}` is not written as code", "data.source")
    for key in ("test", "validation"):
        if isinstance(getattr(data, key), str):
            _refuse(spec, "a split from elsewhere is not written as code", f"data.{key}")
    for number, term in enumerate(data.transforms):
        if term.name not in WRITTEN:
            _refuse(spec, f"the transform `{term.name}` is not written as code", f"data.transforms.{number}")
    if data.contrast is not None and data.contrast.name != "label_overlay":
        _refuse(spec, f"the contrast `{data.contrast.name}` is not written as code", "data.contrast")


def module(data: Data, splits: Splits) -> str:
    """Return `data.py`: it reads what the spec's own splits were read from."""
    reader, peak = READERS[data.source.name]
    body = ["", "", *reader.split("\n"), *_places(data), *_fields(data, splits, peak), *_splits(data, splits)]
    before = ["from pathlib import Path", "", "import numpy as np"]
    text = "Which samples does the run see? As the spec says, read into memory."
    return document(text, [*before, *imports(body), *body])


def _places(data: Data) -> Iterator[str]:
    place = [str(part) for part in (filled(data).root, SOURCES[data.source.name].bind(data.source).get("path")) if part]
    yield ""
    yield f"ROOT = Path({', '.join(map(repr, place)) or repr('.')})"
    yield f"BATCH = {data.batch}"
    yield "COLUMNS = {  # batch field: column, where they differ"
    yield from (f"    {name!r}: {column!r}," for name, column in data.columns.items())
    yield "}"
    if _fractions(data):
        yield f"FRACTIONS = {_fractions(data)!r}  # held out from the training split"


def _fractions(data: Data) -> dict[str, float]:
    test = data.test if data.test is not None else EMBEDDED_TEST.get(data.source.name)
    both = {"test": test, "validation": data.validation}
    return {name: value for name, value in both.items() if isinstance(value, float | int)}


def _fields(data: Data, splits: Splits, peak: int) -> Iterator[str]:
    """Yield the tables of transforms and of fields as they are delivered."""
    for name, route in splits.train.routes.items():
        if route.transforms:
            shapes = [route.column.shape, *(one.shape for one in route.transforms)]
            yield f"{_table(name)} = ("
            yield from (f"    {_transform(t, len(s))}," for t, s in zip(data.transforms, shapes, strict=False))
            yield ")"
    yield "FIELDS = {"
    for name, route in splits.train.routes.items():
        options = [f"torch.{route.type.dtype}", repr(route.shape)]
        options += [f"peak={peak}"] if route.column.peak is not None else []
        options += [f"transforms={_table(name)}"] if route.transforms else []
        yield f'    "{name}": Field({", ".join(options)}),'
    yield "}"


def _table(name: str) -> str:
    return f"TRANSFORMS_OF_{identifier(name).upper()}"


def _transform(term: Term, axes: int) -> str:
    return WRITTEN[term.name](TRANSFORMS[term.name].bind(term), axes)


def _splits(data: Data, splits: Splits) -> Iterator[str]:
    names = [name for name in ("train", "validation", "test") if getattr(splits, name) is not None]
    yield f"CONTRAST = {_contrast(data, splits)}"
    yield from ("", "", "def splits(root=ROOT):", f'    """Return the samples of {", ".join(names)}."""')
    yield "    tables = {split: renamed(columns) for split, columns in read(root).items()}"
    if _fractions(data):
        label = _stratum(data)
        yield '    train = tables["train"]'
        yield f"    labels = {f'train[{label!r}]' if label else 'None'}"
        yield "    rows = holdout.cut(len(next(iter(train.values()))), labels, FRACTIONS)"
        yield "    for split, own in rows.items():"
        yield "        tables[split] = {name: column[own] for name, column in train.items()}"
    yield f"    return {{split: samples(tables[split], split) for split in {names!r}}}"
    yield from SAMPLES.format(views=data.views, indexed=splits.train.indexed).split("\n")


SAMPLES = '''

def renamed(columns):
    """Return columns by the names of batch fields."""
    rest = {{name: column for name, column in columns.items() if name not in COLUMNS.values()}}
    return rest | {{field: columns[name] for field, name in COLUMNS.items()}}


def samples(table, split):
    """Return a split: images as stored, to save memory, the rest in their fields' types."""
    stored = {{}}
    for name, field in FIELDS.items():
        column = torch.from_numpy(table[name].copy(order="C"))
        stored[name] = column if field.peak is not None else column.to(field.dtype)
    return Samples(
        stored, FIELDS, training=split == "train", batch=BATCH, views={views}, indexed={indexed}, contrast=CONTRAST
    )'''


def _stratum(data: Data) -> str | None:
    """Return the field by which held-out samples are chosen."""
    return label_column(renamed(layout(filled(data)).tables["train"], data.columns))


def _contrast(data: Data, splits: Splits) -> str:
    made = splits.train.contrast
    if data.contrast is None or made is None:
        return "None"
    given = CONTRASTS[data.contrast.name].bind(data.contrast)
    pair = f"contrasts.label_overlay(classes={given['classes']!r}, value={given['value']!r})"
    return f"contrasts.contrast({pair}, image={made.image!r}, label={made.label!r})"


def _refuse(spec: Spec, message: str, place: str) -> None:
    keys = tuple(int(part) if part.isdigit() else part for part in place.split("."))
    refuse(message, place, spec.origin(*keys))
