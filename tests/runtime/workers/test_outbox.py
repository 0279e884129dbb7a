"""Do ranks keep of what they send as many bytes as was foretold? Counted on the memory that was sent, and over gloo."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import Tensor

import lpc
from lpc.runtime.workers.gloo import Gloo
from lpc.runtime.workers.meeting import GIVEN_UP, Meeting
from lpc.runtime.workers.store import address, reach, serve
from lpc.runtime.workers.transport import ROOM, Stamp
from lpc.runtime.workers.worker import Worker
from lpc.specs.memory.outbox import LIMIT, Outbox, between
from lpc.specs.ranks.plan import edges_of, rank_plans, room_of
from lpc.views import memory as views

OnRanks = Callable[..., list[Any]]
BATCH, STEPS = 12, 4
NET = """\
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(24), tanh, fc2: linear(20), tanh, out: linear(10)]}
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}LINKS}
learn: [{blocks: "*", LOCALoptimizer: sgd(lr=0.1)}]
run: {metrics: [], RUN}
"""


def text(link: str, run: str) -> str:
    local = "head: linear, loss: cross_entropy, " if link == "stop" else ""
    return NET.replace("LINKS", f", links: {link}").replace("LOCAL", local).replace("RUN", run)


@dataclass(frozen=True)
class Case:
    """A spec, and how many ranks are to run it."""

    text: str
    ranks: int


CASES = {
    "local": Case(text("stop", "checkpoint: every(3)"), 3),
    "backprop in pieces": Case(text("gradient", "microbatches: 3, steps: 7"), 2),
    "a clipped whole": Case(text("gradient", "clip: 0.1"), 2),
    "replicas": Case(text("stop", "replicas: 2"), 4),
    "parts": Case(text("gradient", "replicas: 2, shard: true"), 4),
    "variables": Case(text("variable", ""), 2),
}


def batches(count: int) -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    return [{"image": torch.randn(BATCH, 1, 8, 8), "label": torch.randint(0, 10, (BATCH,))} for _ in range(count)]


def held(noted: list[tuple[Stamp, Tensor, Tensor]]) -> int:
    """Return the bytes of all memory that the tensors which were sent are in."""
    storages = (tensor.untyped_storage() for _, tensor, _ in noted)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept_is_foretold(name: str, ranks: OnRanks) -> None:
    plan, data = lpc.build(CASES[name].text), batches(STEPS)

    def act(worker: Worker) -> tuple[int, int]:
        transport: Any = worker.transport
        for batch in data:
            worker.step(batch)
        steps = held(transport.noted)
        transport.noted.clear()
        worker.evaluate(data)
        return steps, held(transport.noted)

    found = ranks(plan, CASES[name].ranks, act)
    outboxes = [own.memory(BATCH).outbox for own in plan.ranks(CASES[name].ranks)]
    assert [(o.step * STEPS, o.batch * STEPS) if o is not None else (0, 0) for o in outboxes] == found
    assert any(steps for steps, _ in found)


def test_gloo_counts_the_same_and_drops_what_is_too_much() -> None:
    plan, data = lpc.build(CASES["local"].text), batches(STEPS)
    plans = rank_plans(plan.data, plan.spec, 2)
    outbox = plan.ranks(2)[0].memory(BATCH).outbox
    assert outbox is not None
    limit = outbox.step * 2
    assert Outbox(outbox.step, outbox.batch, None, limit).room == 2
    board, counts, given_up = serve(), [[0], [0]], [False]

    def run(rank: int) -> None:
        store = reach(address(board), timedelta(seconds=60))
        meeting = Meeting(store, rank, 2, 0, True)
        transport = Gloo(edges_of(plans), torch.device("cpu"), meeting, 60.0, max(ROOM, room_of(plans)), limit)
        transport.commit(0, lambda: None, Stamp(0, 0, "checkpoint"))
        worker = Worker(plan.data, plans, transport, "cpu")
        for batch in data[:2]:
            worker.step(batch)
            counts[rank].append(transport.held)
        worker.transport.commit(2, lambda: None, Stamp(2, 0, "checkpoint"))
        counts[rank].append(transport.held)
        for batch in data[:3]:
            worker.step(batch)
        given_up[0] |= store.check([GIVEN_UP])
        worker.transport.close()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    board.close()
    assert counts == [[0, outbox.step, 2 * outbox.step, 0], [0] * 4]  # the second rank has nobody to send to
    assert given_up == [True]


@pytest.mark.parametrize(
    ("run", "steps"),
    [
        ("epochs: 3", None),
        ("steps: 30", 30),
        ("epochs: 3, checkpoint: every(20)", 20),
        ("steps: 7, checkpoint: every(20)", 7),
        ("steps: 7, checkpoint: every(step)", 1),
        ("epochs: 2, checkpoint: none", None),
        ("checkpoint: none, phases: [{train: b1, steps: 4}, {train: [b2, head], steps: 5}]", 9),
        ("checkpoint: none, phases: [{train: b1, steps: 4}, {train: [b2, head], epochs: 5}]", None),
    ],
)
def test_steps_between_checkpoints(run: str, steps: int | None) -> None:
    assert between(lpc.check(text("stop", run)).run) == steps


def test_it_is_told() -> None:
    plan = lpc.build(text("stop", "steps: 40, checkpoint: every(20)"))
    assert plan.memory(BATCH).outbox is None
    memory = plan.ranks(2)[0].memory(BATCH)
    outbox = memory.outbox
    assert outbox is not None
    assert outbox == Outbox(BATCH * 24 * 4, BATCH * 24 * 4, 20, LIMIT)
    told = json.loads(json.dumps(views.plain(memory)))["outbox"]
    assert told == {"step": 1152, "batch": 1152, "steps": 20, "limit": 2**29, "most": 23040}
    assert "22.5 KiB after 20 steps, and no more than 512 MiB (`lpc run --keep`)" in views.peak(memory)
    assert "outbox" not in views.plain(plan.memory(BATCH))
