"""Is the order of samples a pure function of seed and epoch, and does a resumed epoch equal its tail?"""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpc.runtime.data import Split, batches, epoch_order, num_batches, open_data
from lpc.specs.model import Data
from lpc.specs.plan.kernel import TensorType
from lpc.specs.term import Term

FIELDS = {
    "image": TensorType("float64", ("B", 1, 6, 6)),
    "label": TensorType("int64", ("B",)),
    "index": TensorType("int64", ("B",)),
}
TRANSFORMS = (Term("flip"), Term("crop", (6,), {"padding": 1}), Term("normalize", (0.5, 0.2)))
DATA = Data(test=0.9, transforms=TRANSFORMS)
TRAIN = open_data(DATA, FIELDS, seed=0).train
COUNT = len(TRAIN)


def epoch(split: Split, batch: int, *, start: int = 0, number: int = 3, drop_last: bool = False,
          shuffle: bool = True) -> list[dict[str, torch.Tensor]]:
    return list(batches(
        split, batch, seed=5, epoch=number, start=start, shuffle=shuffle, drop_last=drop_last, device="cpu"
    ))


def same(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> bool:
    pairs = list(zip(one, other, strict=False))
    return len(one) == len(other) and all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
                                          for a, b in pairs)


@given(count=st.integers(0, 300), seed=st.integers(-(2**63), 2**64), number=st.integers(0, 2**31))
def test_the_order_is_a_pure_permutation(count: int, seed: int, number: int) -> None:
    order = epoch_order(count, seed, number, shuffle=True)
    assert torch.equal(order, epoch_order(count, seed, number, shuffle=True))
    assert sorted(order.tolist()) == list(range(count))


def test_orders_differ_between_seeds_and_epochs() -> None:
    orders = {tuple(epoch_order(50, seed, number, True).tolist()) for seed in range(4) for number in range(4)}
    assert len(orders) == 16


def test_the_order_is_fixed_for_ever() -> None:
    assert epoch_order(8, 0, 0, True).tolist() == [7, 6, 3, 2, 4, 1, 5, 0]
    assert epoch_order(5, 0, 0, False).tolist() == [0, 1, 2, 3, 4]


@settings(deadline=None, max_examples=25)
@given(batch=st.integers(1, 300), start=st.integers(0, 200), drop_last=st.booleans())
def test_resuming_equals_the_tail(batch: int, start: int, drop_last: bool) -> None:
    whole = epoch(TRAIN, batch, drop_last=drop_last)
    assert len(whole) == num_batches(TRAIN, batch, drop_last)
    assert same(epoch(TRAIN, batch, start=start, drop_last=drop_last), whole[start:])


def test_every_sample_comes_once_and_the_last_batch_may_be_smaller() -> None:
    whole = epoch(TRAIN, 32)
    assert [len(b["index"]) for b in whole] == [32] * (COUNT // 32) + [COUNT % 32]
    assert sorted(torch.cat([b["index"] for b in whole]).tolist()) == list(range(COUNT))
    assert len(epoch(TRAIN, 32, drop_last=True)) == COUNT // 32


def test_a_batch_larger_than_the_set_is_the_set() -> None:
    assert [len(b["label"]) for b in epoch(TRAIN, 10 * COUNT)] == [COUNT]
    assert epoch(TRAIN, 10 * COUNT, drop_last=True) == []


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(1, 300), shuffle=st.booleans())
def test_augmentation_depends_on_the_sample_alone(batch: int, shuffle: bool) -> None:
    expected = epoch(TRAIN, COUNT, shuffle=False)[0]["image"]
    for fields in epoch(TRAIN, batch, shuffle=shuffle):
        assert torch.equal(fields["image"], expected[fields["index"]])


def test_augmentation_changes_with_the_epoch_and_the_seed() -> None:
    images = [TRAIN.at(seed, number)[range(COUNT)]["image"] for seed in (0, 1) for number in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_batches_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    epoch(TRAIN, 64)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_split_is_a_map_style_data_set() -> None:
    batch = TRAIN.__getitems__([4, 2])
    assert torch.equal(batch["image"][1], TRAIN[2]["image"])
    assert torch.equal(TRAIN[torch.tensor([4, 2])]["image"], batch["image"])
    assert TRAIN.fields == {k: TensorType(t.dtype, t.shape[1:]) for k, t in FIELDS.items()}
    assert {k: (v.dtype, tuple(v.shape)) for k, v in TRAIN[0].items()} == {
        "image": (torch.float64, (1, 6, 6)), "label": (torch.int64, ()), "index": (torch.int64, ())
    }
