"""Do ranks that hold parts of their blocks' parameters have the bits of one process, in what memory, and saved how?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

import lpc
from lpc.runtime import pieces
from lpc.runtime.checkpoint import BEST, LAST
from lpc.runtime.machine import loaded_fields
from lpc.runtime.workers.worker import Worker
from lpc.specs.plan.shards import UNIT
from lpc.specs.ranks.plan import rank_plans

OnRanks = Callable[..., list[Any]]
NET = """\
network:
  inputs: {image: [1, 8, 8]}
  layers:
    - flatten
    - fc1: linear(20)
    - norm1: batch_norm
    - tanh
    - dropout(0.2)
    - fc2: linear(28)
    - tanh
    - fc3: linear(20)
    - skip: add(from=[fc3, fc1])
    - out: linear(30)
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: [fc1, norm1], b2: fc2, b3: [fc3, skip], head: out}, links: LINK}
learn: [{blocks: "*", LOCALoptimizer: OPTIMIZER}]
run: {RUN, shard: SHARD}
"""
LOCAL = "head: linear, loss: cross_entropy, "
MOMENTUM, ADAM = "sgd(lr=0.1, momentum=0.9, weight_decay=0.01)", "adam(lr=0.01)"


def text(link: str, local: str, optimizer: str, run: str, shard: str = "true") -> str:
    words = {"LINK": link, "LOCAL": local, "OPTIMIZER": optimizer, "RUN": run, "SHARD": shard}
    found = NET
    for word, value in words.items():
        found = found.replace(word, value)
    return found


MIXED = '{"*": stop, "b2->b3": gradient}'
# Text, numbers of workers (3 with two replicas: nothing is sharded there), samples in a batch.
CASES = {
    "local": (text("stop", LOCAL, ADAM, "replicas: 2"), (2, 4), 14),
    "backprop": (text("gradient", "", MOMENTUM, "replicas: 2"), (2, 4), 14),
    "supervised in pieces": (text("gradient", LOCAL, "adamw(lr=0.01)", "replicas: 2, microbatches: 3"), (2, 3, 4), 14),
    "three replicas": (text(MIXED, LOCAL, "rmsprop(lr=0.01, momentum=0.5)", "replicas: 3, accumulate: 2"), (3, 6), 26),
    "phases": (
        text("stop", LOCAL, ADAM, "replicas: 2, phases: [{train: b1, steps: 2}, {train: [b2, b3, head], steps: 2}]")
        .replace("norm1: batch_norm", "norm1: layer_norm"), (2, 4), 14,
    ),
    "some blocks": (text("gradient", LOCAL, "adagrad(lr=0.1)", "replicas: 2, memory: summed", "[b2, he*]"), (4,), 14),
    "feedback": (
        "recipe: direct_feedback(optimizer=sgd(lr=0.1))\n"
        + text("", "", "", "replicas: 2").replace(", links: ", "").replace('learn: [{blocks: "*", optimizer: }]\n', ""),
        (2, 4),
        14,
    ),
    "narrow pieces": (
        text("gradient", LOCAL, ADAM, "replicas: 2, microbatches: 4").replace("batch_norm", "relu"), (2, 4), 3,
    ),
}  # fmt: skip


def batches(size: int, count: int = 4, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    return [
        {"image": torch.randn(size, 1, 8, 8, dtype=dtype), "label": torch.randint(0, 10, (size,))}
        for _ in range(count)
    ]


def trained(trainer: Any, data: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, float], Tensor]:
    for batch in data:
        trainer.step(batch)
    measured, predicted = trainer.evaluate(data[:2]), trainer.predict({"image": data[0]["image"]})
    return trainer.state_dict(), measured, predicted


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert [name for name, tensor in found.items() if not torch.equal(tensor, wanted[name])] == []


@pytest.mark.parametrize("name", CASES)
def test_shards_have_the_bits_of_one_process(name: str, ranks: OnRanks) -> None:
    given_text, numbers, size = CASES[name]
    plan, data = lpc.build(given_text), batches(size)
    state, measured, predicted = trained(lpc.Trainer(plan, "cpu"), data)
    for workers in numbers:
        divided = workers % plan.spec.run.replicas == 0
        assert any(own.data.program.shards for own in plan.ranks(workers)) == divided
        found = ranks(plan, workers, lambda worker: trained(worker, data))
        assert {name for own, _, _ in found for name in own} == state.keys()
        buffers = {name for name, entry in plan.data.program.state.items() if entry.kind == "buffer"}
        for rank, (own, evaluated, given_back) in enumerate(found):
            first = not divided or rank < workers // plan.spec.run.replicas  # who keeps running statistics
            assert_same({key: tensor for key, tensor in own.items() if first or key not in buffers}, state)
            assert evaluated == measured
            assert torch.equal(given_back, predicted)


@pytest.fixture(scope="module")
def plan() -> lpc.Plan:
    return lpc.build(text(MIXED, LOCAL, ADAM, "replicas: 2"))


def test_gradients_and_states_are_whole(plan: lpc.Plan, ranks: OnRanks) -> None:
    """What is loaded is whole as well; each rank keeps its part."""
    (batch,) = batches(14, 1)
    one = lpc.Trainer(plan, "cpu")
    one.step(batch)
    state, wanted = {name: t.clone() for name, t in one.state_dict().items()}, one.gradients(batch)

    def act(worker: Worker) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        own = {name: tensor for name, tensor in state.items() if name in worker.state.owner}
        worker.load_state_dict(own)
        worker.steps_done = one.steps_done
        parts = {name: worker.state.own[name] for name in worker.plan.program.shards}
        return worker.state_dict(), worker.gradients(batch), parts

    for own, gradients, parts in ranks(plan, 2, act):
        assert_same(own, state)
        assert gradients.keys() == wanted.keys()
        assert_same(gradients, wanted)
        assert parts
        assert all(tensor.numel() < state[name].numel() and tensor.dim() == 1 for name, tensor in parts.items())


class Copying:
    """A transport over which copies travel, as between processes; what arrives counts as made by the receiver."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def send(self, to: int, stamp: Any, tensors: Any) -> None:
        with _disable_current_modes():
            held = [tensor.clone() for tensor in tensors]
        self.transport.send(to, stamp, held)

    def receive(self, source: int, stamp: Any) -> list[Tensor]:
        return [tensor.clone() for tensor in self.transport.receive(source, stamp)]


WIDE = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(96), tanh, fc2: linear(96), tanh, fc3: linear(96), tanh, out: linear(10)]
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, b3: fc3, head: out}, links: LINK}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: OPTIMIZER}]
run: {RUN, shard: true}
"""


@pytest.mark.parametrize(
    ("link", "optimizer", "run", "workers", "share"),
    [
        ("stop", ADAM, "replicas: 4", 4, 0.36),
        ("gradient", MOMENTUM, "replicas: 2", 2, 0.60),
        ("gradient", "rmsprop(lr=0.01)", "replicas: 2, microbatches: 2, accumulate: 2", 4, 0.80),
    ],
)
def test_memory_is_what_was_predicted(
    link: str, optimizer: str, run: str, workers: int, share: float, ranks: OnRanks
) -> None:
    """To the byte, and well under that of a rank that holds whole blocks."""
    given_text = WIDE.replace("LINK", link).replace("OPTIMIZER", optimizer).replace("RUN", run)
    plan = lpc.build(given_text)
    (batch,) = batches(8 * plan.spec.run.accumulate, 1)

    def act(worker: Worker) -> dict[str, int]:
        worker.machine.transport = Copying(worker.machine.transport)  # type: ignore[assignment]
        return worker.measure({name: batch[name] for name in loaded_fields(worker.plan.program.step)})

    found = ranks(plan, workers, act, watched=False)
    assert [own["measured"] for own in found] == [own["predicted"] for own in found]
    assert [own["predicted"] for own in found] == [own.memory(8).total for own in plan.ranks(workers)]
    whole = plan.spec.model_copy(update={"run": plan.spec.run.model_copy(update={"shard": ()})})
    largest = max(lpc.Plan(own).memory(8).total for own in rank_plans(plan.data, whole, workers))
    assert max(own["measured"] for own in found) < share * largest


SAVING = text("stop", LOCAL, ADAM, "replicas: 2, steps: 24, target: cpu, log: every(3), checkpoint: every(4)").replace(
    "data: none\nfields: {label: {shape: [], dtype: int64}}", "data: {source: digits, batch: 128, validation: 0.1}"
)


@pytest.fixture(scope="module")
def saving() -> lpc.Plan:
    return lpc.build(SAVING)


def test_runs_go_on_with_other_parts(saving: lpc.Plan, tmp_path: Path, ranks: OnRanks, stopping: Any) -> None:
    """Four ranks, then two, three of whole blocks, one, and four again; each loses what it did not save."""
    one, many = tmp_path / "one", tmp_path / "many"
    wanted = lpc.Trainer(saving, "cpu").fit(one)
    for workers, step in ((4, 6), (2, 10), (3, 14), (1, 17), (4, 22)):
        with pytest.raises(RuntimeError, match="stopped by the test"):
            ranks(saving, workers, lambda worker, step=step: stopping(worker, step).fit(many, resume=True))
    found = ranks(saving, 2, lambda worker: worker.fit(many, resume=True))
    for name in (LAST, BEST):
        own, other = pieces.read(many / name), pieces.read(one / name)
        assert own.tensors.keys() == other.tensors.keys()
        assert_same(dict(own.tensors), dict(other.tensors))
        assert (own.numbers, own.progress.step) == (other.numbers, other.progress.step)
    assert all({**summary, "seconds": 0} == {**wanted, "seconds": 0} for summary in found)


def test_each_rank_saves_its_parts(saving: lpc.Plan, tmp_path: Path, ranks: OnRanks) -> None:
    ranks(saving, 2, lambda worker: worker.fit(tmp_path))
    blocks = json.loads((tmp_path / "last.json").read_text())["blocks"]
    assert {name: len(entry["parts"]) for name, entry in blocks.items()} == {"b1": 2, "b2": 2, "b3": 2, "head": 2}
    files = [load_file(tmp_path / "last.blocks" / one["file"]) for one in blocks["b1"]["parts"]]
    sizes = [file["state.fc1.weight"].numel() for file in files]
    assert sum(sizes) == 20 * 64
    assert all(size % UNIT == 0 for size in sizes)
    assert ["state.norm1.running_mean" in file for file in files] == [True, False]
    damaged = tmp_path / "last.blocks" / blocks["b2"]["parts"][1]["file"]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    with pytest.raises(lpc.LpcError, match=r"LPC0670.*block `b2` was altered"):
        pieces.read(tmp_path / LAST)
    del blocks["b1"]["parts"][1]
    manifest = tmp_path / "last.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"blocks": blocks}))
    with pytest.raises(lpc.LpcError, match=r"LPC0670.*a part of `.*` is missing"):
        pieces.read(tmp_path / LAST, ["b1"])


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    widths=st.lists(st.integers(5, 40), min_size=2, max_size=4),
    replicas=st.integers(2, 4),
    pieces_of=st.integers(1, 3),
    stages=st.integers(1, 2),
    link=st.sampled_from(["stop", "gradient"]),
    optimizer=st.sampled_from([MOMENTUM, ADAM, "adamw(lr=0.01, amsgrad=true)", "rmsprop(lr=0.01, centered=true)"]),
    size=st.integers(1, 13),
)
def test_any_network_has_the_bits_of_one_process(
    ranks: OnRanks, widths: list[int], replicas: int, pieces_of: int, stages: int, link: str, optimizer: str, size: int
) -> None:
    layers = [layer for i, width in enumerate(widths) for layer in (f"fc{i}: linear({width})", "tanh")]
    blocks = ", ".join(f"b{i}: fc{i}" for i in range(len(widths)))
    plan = lpc.build(f"""\
network: {{inputs: {{image: [1, 8, 8]}}, layers: [flatten, {", ".join(layers)}, out: linear(10)]}}
data: none
fields: {{label: {{shape: [], dtype: int64}}}}
loss: cross_entropy
decompose: {{blocks: {{{blocks}, head: out}}, links: {link}}}
learn: [{{blocks: "*", {LOCAL}optimizer: "{optimizer}"}}]
run: {{dtype: float64, replicas: {replicas}, microbatches: {pieces_of}, shard: true}}
""")
    data = batches(size, 2, torch.float64)
    state, measured, predicted = trained(lpc.Trainer(plan, "cpu"), data)
    for own, evaluated, given_back in ranks(plan, replicas * stages, lambda worker: trained(worker, data)):
        assert_same(own, state)
        assert evaluated == measured
        assert torch.equal(given_back, predicted)
