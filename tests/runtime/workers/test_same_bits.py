"""Do two and three ranks end with the bits of one process, for every kind of link and of step?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lpc
from lpc.runtime import pieces
from lpc.runtime.checkpoint import Progress
from lpc.runtime.meter import Meter
from lpc.runtime.workers.worker import Worker

NET = """\
network:
  inputs: {image: [1, 8, 8]}
  layers:
    - flatten
    - fc1: linear(12)
    - norm1: batch_norm
    - relu
    - dropout(0.2)
    - fc2: linear(12)
    - tanh
    - fc3: linear(12)
    - skip: add(from=[fc3, fc1])
    - out: linear(10)
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
"""
BLOCKS = "decompose: {blocks: {b1: [fc1, norm1], b2: fc2, b3: [fc3, skip], head: out}, links: LINK}\n"
LOCAL = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=0.01)}]\n'
STOP, GRADIENT = BLOCKS.replace("LINK", "stop"), BLOCKS.replace("LINK", "gradient")
PHASES = "run: {phases: [{train: b1, steps: 2}, {train: [b2, b3, head], steps: 2}, {train: probe, steps: 1}]}\n"
SPECS = {
    "backprop": GRADIENT + 'learn: [{blocks: "*", optimizer: sgd(lr=0.1, momentum=0.9)}]\n',
    "local": STOP + LOCAL,
    "supervised": GRADIENT + LOCAL,
    "mixed": BLOCKS.replace("LINK", '{"*": stop, "b2->b3": gradient}') + LOCAL,
    "summed": GRADIENT + LOCAL + "run: {memory: summed}\n",
    "recompute": GRADIENT + LOCAL.replace("adam(", "memory: recompute, optimizer: adam(").replace("optimizer: m", "m"),
    "accumulated": STOP + LOCAL + "run: {accumulate: 2}\n",
    "corrected": STOP + LOCAL.replace("(lr=0.01)", "(lr=0.01), correct: bp_offset(period=2)"),
    "phased": STOP + LOCAL + "readouts: {probe: {from: [b1, b3], optimizer: adam}}\n" + PHASES,
    "feedback": "recipe: feedback_alignment(optimizer=sgd(lr=0.1))\n" + GRADIENT.replace(", links: gradient", ""),
    "direct": "recipe: direct_feedback(optimizer=sgd(lr=0.1))\n" + GRADIENT.replace(", links: gradient", ""),
    "two variables on a boundary": (
        "decompose: {blocks: {b1: [fc1, norm1, fc2], b2: [fc3, skip], head: out}, links: variable}\n"
        'learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]\n'
    ),
    "loco": "recipe: loco(optimizer=sgd(lr=0.1))\n" + GRADIENT.replace(", links: gradient", ""),
}
# Batches of 14 in pieces, not all equal; ranks go back through a piece when they can.
SPLIT = {
    "pieces": (GRADIENT + LOCAL + "run: {microbatches: 4}\n", (2, 3)),
    "pieces backprop": (SPECS["backprop"] + "run: {microbatches: 5}\n", (3, 4)),
    "pieces local": (STOP + LOCAL + "run: {microbatches: 2}\n", (2,)),
    "replicas": (SPECS["mixed"] + "run: {replicas: 2, microbatches: 2}\n", (2, 3, 4)),
    "three replicas": (STOP + LOCAL + "run: {replicas: 3, accumulate: 2}\n", (2, 3)),
    "clipped": (SPECS["supervised"] + "run: {clip: 0.05}\n", (2, 3)),
    "clipped in turns": (
        GRADIENT + LOCAL + "run: {clip: 0.05, accumulate: 2, placement: {b1: 0, b2: 1, b3: 0, head: 1}}\n", (2,)
    ),
    "clipped backprop in pieces": (SPECS["backprop"] + "run: {clip: 0.05, microbatches: 3, replicas: 2}\n", (2, 4)),
    "replicas direct": (SPECS["direct"] + "run: {replicas: 2}\n", (4,)),
}
CHAIN = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(12), tanh, fc2: linear(12), tanh, fc3: linear(12), tanh, out: linear(10)]
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
"""
CHAINED = "decompose: {blocks: {b1: fc1, b2: fc2, b3: fc3, head: out}, links: LINK}\n"
SGD = 'learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]\n'


def chained(link: str, learn: str = SGD) -> str:
    return CHAINED.replace("LINK", link) + learn


# Of a plain chain: targets, and variables that are solved one after another, several times, or all at once.
CHAINS = {
    "target": chained("target", 'learn: [{blocks: "*", loss: squared, steps: 3, optimizer: sgd(lr=0.1)}]\n'),
    "dtp": "recipe: dtp(step=5)\n" + CHAINED.replace(", links: LINK", ""),
    "blockprop": "recipe: blockprop(steps=2)\n" + CHAINED.replace(", links: LINK", ""),
    "altmin": "recipe: altmin\n" + CHAINED.replace(", links: LINK", ""),
    "sweeps": chained('{"*": {variable: {sweeps: 2, steps: 3}}}'),
    "jacobi": chained('{"*": {variable: {sweep: jacobi, sweeps: 2, steps: 3}}}'),
    "remembering": chained('{"*": {variable: {sweeps: 2, optimizer: adam(lr=0.01), state: persistent}}}'),
    "pieces of variables": chained('{"*": gradient, "b1->b2": variable(steps=2, sweeps=2, optimizer=sgd(lr=0.1))}'),
    "growing": chained('{"*": {variable: {penalty: squared(weight=grow(start=0.1, add=0.1)), l1: 0.01}}}'),
}
# One variable that two blocks read: the slope of the second goes to the rank that solves it.
SKIPPING = CHAIN.replace("linear(12), tanh, fc2", "linear(12), act: tanh, fc2").replace(
    "fc3: linear(12), tanh", "fc3: linear(12), skip: add(from=[fc3, act]), tanh"
) + chained("variable").replace("b3: fc3", "b3: [fc3, skip]")
STEPS = 5
# Variables that are kept for each sample, solved at some of its visits.
CACHED = {
    "cached": chained('{"*": {variable: {init: cache, refresh: 2, steps: 2}}}'),
    "cached all at once": chained('{"*": {variable: {init: cache, sweep: jacobi, sweeps: 2, steps: 2}}}'),
    "cached and remembering": chained(
        '{"*": {variable: {init: cache, optimizer: sgd(lr=0.1, momentum=0.9), state: persistent}}}'
    ),
}


def batches(plan: lpc.Plan) -> list[dict[str, Tensor]]:
    """Every sample of those with numbers comes several times, at first one by one."""
    size, fields = 14 * plan.spec.run.accumulate, plan.data.program.fields
    torch.manual_seed(0)
    found = [{"image": torch.randn(size, 1, 8, 8), "label": torch.randint(0, 10, (size,))} for _ in range(STEPS)]
    if "index" not in fields:
        return found
    order = [torch.arange(size) + 7 * min(step, 1) for step in range(STEPS)]
    return [batch | {"index": index.roll(step)} for step, (batch, index) in enumerate(zip(found, order, strict=True))]


def trained(trainer: Any, data: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, float], Tensor]:
    for batch in data:
        trainer.step(batch)
    return trainer.state_dict(), trainer.evaluate(data[:2]), trainer.predict({"image": data[0]["image"]})


TEXTS = {
    **{name: (NET + text, (2, 3)) for name, text in SPECS.items()},
    **{name: (CHAIN + text, (2, 3)) for name, text in CHAINS.items()},
    "a variable that two read": (SKIPPING, (2, 3, 4)),
    **{name: (CHAIN + text, (2, 4)) for name, text in CACHED.items()},
    **{name: (NET + text, workers) for name, (text, workers) in SPLIT.items()},
}


@pytest.mark.parametrize("name", TEXTS)
def test_ranks_have_the_bits_of_one_process(name: str, ranks: Callable[..., list[Any]]) -> None:
    text, numbers = TEXTS[name]
    plan = lpc.build(text)
    data = batches(plan)
    state, measured, predicted = trained(lpc.Trainer(plan, "cpu"), data)
    for workers in numbers:
        found = ranks(plan, workers, lambda worker: trained(worker, data))
        joined = {key: tensor for own, _, _ in reversed(found) for key, tensor in own.items()}
        assert joined.keys() == state.keys()
        assert [key for key, tensor in state.items() if not torch.equal(tensor, joined[key])] == []
        assert [own for _, own, _ in found] == [measured] * workers
        assert all(torch.equal(own, predicted) for _, _, own in found)


@pytest.mark.parametrize("text", [CHAINS["remembering"], CACHED["cached and remembering"]])
def test_what_two_ranks_remember_one_process_and_four_go_on_with(
    text: str, ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    plan = lpc.build(CHAIN + text)
    data = batches(plan)
    whole, resumed = lpc.Trainer(plan, "cpu"), lpc.Trainer(plan, "cpu")
    trained(whole, data)

    def saved(worker: Worker) -> None:
        for batch in data[:2]:
            worker.step(batch)
        meter = Meter(plan.data.program.metrics)
        pieces.write(tmp_path / "last.safetensors", "p", worker.machine, Progress(step=2), meter, worker.transport)

    def goes_on(trainer: Any) -> dict[str, Tensor]:
        pieces.read(tmp_path / "last.safetensors").restore(trainer.machine, "p")
        trainer.steps_done = 2
        return trained(trainer, data[2:])[0]

    ranks(plan, 2, saved)
    for found in (goes_on(resumed), *ranks(plan, 4, goes_on)):
        assert found
        assert all(torch.equal(whole.state_dict()[key], tensor) for key, tensor in found.items())


def test_gradients_are_those_of_one_process(ranks: Callable[..., list[Any]]) -> None:
    plan = lpc.build(NET + SPECS["supervised"])
    data = batches(plan)
    wanted = lpc.Trainer(plan, "cpu").gradients(data[0])

    def gradients(worker: Worker) -> dict[str, Tensor]:
        return worker.gradients(data[0])

    found = {key: tensor for own in ranks(plan, 3, gradients) for key, tensor in own.items()}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())


def test_the_first_rank_runs_ahead(ranks: Callable[..., list[Any]]) -> None:
    """With `stop` links nothing comes back: rank 0 is done with its steps before rank 1 begins."""
    plan = lpc.build(NET + SPECS["local"])
    data = batches(plan)[:2]
    ahead = threading.Event()

    def act(worker: Worker) -> bool:
        in_time = ahead.wait(20) if worker.transport.rank else True
        for batch in data:
            worker.step(batch)
        ahead.set()
        return in_time

    assert ranks(plan, 2, act) == [True, True]
