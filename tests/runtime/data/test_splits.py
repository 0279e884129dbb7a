"""Are held-out samples disjoint from the training samples, stratified, and independent of the run's seed?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpc.runtime.data import Split, open_data
from lpc.runtime.data.holdout import cut
from lpc.specs.model import Data
from lpc.specs.plan.kernel import TensorType
from lpc.specs.term import Term

FIELDS = {"image": TensorType("float32", ("B", 64)), "label": TensorType("int64", ("B",))}


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    test=st.floats(0.01, 0.6),
    validation=st.floats(0.01, 0.39),
)
def test_fractions_partition_the_samples(labels: list[int], test: float, validation: float) -> None:
    parts = cut(len(labels), np.array(labels), {"test": test, "validation": validation})
    everything = np.concatenate(list(parts.values()))
    assert sorted(everything.tolist()) == list(range(len(labels)))
    assert len(parts["test"]) == round(test * len(labels))
    assert len(parts["validation"]) == min(round(validation * len(labels)), len(labels) - len(parts["test"]))


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=6), fraction=st.floats(0.05, 0.95))
def test_every_label_keeps_its_share(counts: list[int], fraction: float) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    held = cut(len(labels), labels, {"test": fraction})["test"]
    share = len(held) / max(1, len(labels))
    for label, count in enumerate(counts):
        assert abs((labels[held] == label).sum() - count * share) <= 1


def everything(split: Split | None) -> torch.Tensor:
    assert split is not None
    return split[range(len(split))]["image"]


def test_the_cut_does_not_depend_on_the_seed() -> None:
    data = Data(validation=0.1)
    one, other = open_data(data, FIELDS, seed=0), open_data(data, FIELDS, seed=1)
    assert torch.equal(everything(one.test), everything(other.test))
    assert torch.equal(everything(one.validation), everything(other.validation))


def test_the_cut_is_not_the_order_of_the_file() -> None:
    held = cut(1000, np.zeros(1000, np.int64), {"test": 0.5})["test"]
    assert 200 < (held < 500).sum() < 300


def test_the_test_set_can_be_a_file_of_its_own(npz_folder: Path) -> None:
    (npz_folder / "other").mkdir()
    (npz_folder / "test.npz").rename(npz_folder / "other" / "test.npz")
    for test in ("other", "other/test.npz", str(npz_folder / "other")):
        data = Data(source=Term("npz"), root=str(npz_folder), test=test)
        held = open_data(data, {"label": FIELDS["label"]}, seed=0).test
        assert held is not None
        assert len(held) == 12


def test_a_split_of_the_source_by_name(npz_folder: Path) -> None:
    data = Data(source=Term("npz"), root=str(npz_folder), validation="test")
    splits = open_data(data, {"label": FIELDS["label"]}, seed=0)
    assert splits.validation is not None
    assert len(splits.validation) == 12


def test_held_out_splits_are_not_augmented(npz_folder: Path) -> None:
    data = Data(source=Term("npz"), root=str(npz_folder), validation=0.5, transforms=(Term("flip", (1.0,)),))
    plain = data.model_copy(update={"transforms": ()})
    fields = {"image": TensorType("float32", ("B", 3, 8, 8))}
    augmented, original = open_data(data, fields, 0), open_data(plain, fields, 0)
    assert torch.equal(everything(augmented.test), everything(original.test))
    assert torch.equal(everything(augmented.validation), everything(original.validation))
    assert torch.equal(everything(augmented.train), everything(original.train).flip(-1))
