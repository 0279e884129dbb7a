"""Are variables kept for each sample: rows, visits, files, and over a checkpoint?"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import lpc
from lpc.runtime import checkpoint
from lpc.runtime.cache import SampleCache
from lpc.runtime.checkpoint import Progress

SPEC = """
network: {inputs: {x: [3]}, layers: [a: linear(4), tanh, b: linear(2)]}
data: none
fields: {y: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: per_layer, links: "variable(init=cache, refresh=2, optimizer=sgd(lr=0.5))"}
learn: [{blocks: "*", optimizer: adam(lr=0.1)}]
run: {epochs: 1}
"""


def batch(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step % 3)
    first = 4 * (step % 3)
    return {
        "x": torch.randn(4, 3, generator=generator),
        "y": torch.randint(0, 2, (4,), generator=generator),
        "index": torch.arange(first, first + 4),
    }


def test_rows_are_those_of_their_samples() -> None:
    cache = SampleCache()
    index = torch.tensor([5, 1])
    assert cache.due(index, 0).tolist() == [True, True]
    cache.store("h", index, torch.tensor([[5.0], [1.0]]))
    cache.visit(index)
    later = torch.tensor([1, 9, 5])
    assert cache.due(later, 0).tolist() == [False, True, False]
    cache.store("h", torch.tensor([9]), torch.tensor([[9.0]]))
    assert cache.fetch("h", later).tolist() == [[1.0], [9.0], [5.0]]
    assert cache.due(later, 2).tolist() == [False, True, False]
    cache.visit(torch.tensor([5]))
    assert cache.due(later, 2).tolist() == [False, True, True]


def test_beyond_a_size_rows_are_in_a_file() -> None:
    cache = SampleCache(in_memory=64)
    rows = torch.arange(200, dtype=torch.float64).reshape(100, 2)
    for first in (0, 50):
        index = torch.arange(first, first + 50)
        cache.due(index, 0)
        cache.store("h", index, rows[index])
        cache.visit(index)
    assert cache.in_files == {"h"}
    assert torch.equal(cache.fetch("h", torch.arange(100)), rows)
    other = SampleCache(in_memory=64)
    other.load_state(dict(cache.state()))
    assert torch.equal(other.fetch("h", torch.arange(100)), rows)
    assert other.due(torch.arange(100), 0).sum() == 0


def test_variables_are_solved_at_some_visits_and_reused_between() -> None:
    trainer = lpc.Trainer(lpc.build(SPEC), device="cpu")
    ages, found = [], []
    for step in range(9):
        metrics = trainer.step(batch(step))
        ages.append(float(metrics["variables.age"]))
        found.append(trainer.variables()["a->b"])
    assert ages == [0.0] * 3 + [1.0] * 3 + [0.0] * 3
    assert all(torch.equal(found[i], found[i + 3]) for i in range(3))
    assert not any(torch.equal(found[i], found[i + 6]) for i in range(3))


def test_samples_of_one_batch_may_be_due_at_different_times() -> None:
    trainer = lpc.Trainer(lpc.build(SPEC), device="cpu")
    trainer.step(batch(0))
    first = trainer.variables()["a->b"]
    mixed = {**batch(1), "index": torch.tensor([0, 1, 8, 9])}
    trainer.step(mixed)
    second = trainer.variables()["a->b"]
    assert torch.equal(second[:2], first[:2])  # not due: as they were kept
    assert not torch.equal(second[2:], first[2:])


def test_a_checkpoint_holds_what_is_kept(tmp_path: Path) -> None:
    plan = lpc.build(SPEC)
    whole, resumed = lpc.Trainer(plan, device="cpu"), lpc.Trainer(plan, device="cpu")
    for step in range(7):
        if step == 4:
            checkpoint.write(tmp_path / "c", "p", whole.machine, Progress(step=4), {})
        whole.step(batch(step))
    checkpoint.read(tmp_path / "c").restore(resumed.machine, "p")
    resumed.steps_done = 4
    for step in range(4, 7):
        resumed.step(batch(step))
    assert all(torch.equal(t, resumed.state_dict()[n]) for n, t in whole.state_dict().items())
    assert torch.equal(whole.variables()["a->b"], resumed.variables()["a->b"])
    assert "variables.age" in whole.machine.recorded  # whose open averages are kept as well
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(
        whole.machine.cache.state(), resumed.machine.cache.state(), strict=True
    ))  # fmt: skip
