"""Is it told when a spec is built that it has fewer classes than its data, and where?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lpc
from lpc.runtime.data import describe, ensure_classes
from lpc.specs import LpcError, load_spec

SPEC = """\
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), out: linear(10)]}
data: {source: SOURCE, contrast: "label_overlay(classes=CONTRAST)"}
decompose: {blocks: {b1: fc1, b2: out}}
learn: [{blocks: "*", head: identity, loss: ff_bce, optimizer: adam}]
readouts:
  digits: {from: [b1], with: "label_overlay(neutral, classes=READOUT)", optimizer: adam}
run: {epochs: 1, predict: PREDICT}
"""


def text(contrast: int = 10, readout: int = 10, predict: str = "readout(digits)", source: str = "digits") -> str:
    written = SPEC.replace("CONTRAST", str(contrast)).replace("READOUT", str(readout))
    return written.replace("PREDICT", predict).replace("SOURCE", source)


@pytest.mark.parametrize(
    ("spec", "code", "told", "place"),
    [
        (text(contrast=3), "0616", "`label_overlay` has 3", (2, 49)),
        (text(readout=9), "0418", "`label_overlay` has 9", (6, 54)),
        (text(predict='"goodness(classes=4)"'), "0418", "`goodness` has 4", (7, 37)),
    ],
)
def test_fewer_classes_than_the_digits(spec: str, code: str, told: str, place: tuple[int, int]) -> None:
    with pytest.raises(LpcError) as caught:
        lpc.build(spec)
    [problem] = caught.value.diagnostics
    assert problem.code == code
    assert problem.message == f"{told} classes, and `label` of the data has 10"
    assert problem.help == "write `classes=10`"
    assert problem.span is not None
    assert (problem.span.line, problem.span.column) == place


def of_source(source: str, contrast: int) -> None:
    spec = load_spec(text(contrast, source=source))
    assert spec.data is not None
    ensure_classes(spec, describe(spec.data, spec.origin))


def test_classes_of_files(mnist_like: Path) -> None:
    of_source(f"'mnist(\"{mnist_like}\")'", 10)
    with pytest.raises(LpcError, match="has 9 classes, and `label` of the data has 10"):
        of_source(f"'mnist(\"{mnist_like}\")'", 9)


def test_classes_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", image=np.zeros((4, 1, 8, 8), np.uint8), label=np.arange(4))
    of_source(f"'npz(\"{tmp_path}\")'", 10)  # more than the data have, of the readout and of the contrast
    with pytest.raises(LpcError, match="has 3 classes, and `label` of the data has 4"):
        of_source(f"'npz(\"{tmp_path}\")'", 3)


def test_class_labels_of_tables(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    image = datasets.Sequence(datasets.Value("float32"))
    features = datasets.Features({"image": image, "label": datasets.ClassLabel(names=["a", "b", "c", "d"])})
    rows = {"image": [[0.0] * 64] * 2, "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(LpcError, match="has 3 classes, and `label` of the data has 4"):
        of_source(f"'parquet(\"{tmp_path}\")'", 3)
