"""Do overlapping steps keep their bound and their meaning, and has a replay in any recorded order the same bits?"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

import lpc
from lpc.runtime.workers.pace import Overlap
from lpc.runtime.workers.worker import Worker

HEAD = """\
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
"""
CHAIN = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(6), norm1: batch_norm, tanh, fc2: linear(6), dropout(0.2), tanh, fc3: linear(6), tanh]
decompose: {blocks: {b1: [fc1, norm1], b2: fc2, b3: fc3}, links: LINK}
""".replace("tanh]", "tanh, out: linear(10)]").replace("b3: fc3}", "b3: fc3, head: out}")
PLAIN = CHAIN.replace(" norm1: batch_norm,", "").replace(" dropout(0.2),", "").replace("[fc1, norm1]", "fc1")
LOCAL = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=0.01)}]\n'
JACOBI = '{"*": {variable: {sweep: jacobi, sweeps: 2, steps: 2, weights_input: forward}}}'
PIECES = '{"*": gradient, "b2->b3": {variable: {steps: 2, state: persistent, optimizer: adam(lr=0.01)}}}'
TWO = "run: {staleness: 2, placement: {b1: 0, b2: 0, b3: 1, head: 1}}\n"
# What can be late: variables, solved one after another or at once; sums of replicas, on stages or not.
KINDS = {
    "blockprop": (PLAIN.replace(", links: LINK", "") + "recipe: blockprop(steps=2)\nrun: {staleness: 3}\n", 3),
    "jacobi": (PLAIN.replace("LINK", JACOBI) + 'learn: [{blocks: "*", optimizer: adam}]\nrun: {staleness: 2}\n', 3),
    "pieces": (PLAIN.replace("LINK", PIECES) + 'learn: [{blocks: "*", optimizer: adam}]\n' + TWO, 2),
    "stop": (CHAIN.replace("LINK", "stop") + LOCAL + "run: {staleness: 2}\n", 3),
    "replicas": (CHAIN.replace("LINK", "stop") + LOCAL + "run: {staleness: 2, replicas: 2, microbatches: 2}\n", 4),
    "backprop": (CHAIN.replace("LINK", "gradient") + LOCAL + "run: {staleness: 1, replicas: 2}\n", 2),
    "accumulated": (CHAIN.replace("LINK", "stop") + LOCAL + "run: {staleness: 1, replicas: 2, accumulate: 2}\n", 2),
}
STEPS = 8
Weights = dict[str, Tensor]
Batches = list[Weights]


def batches(plan: lpc.Plan, dtype: torch.dtype = torch.float32, steps: int = STEPS) -> Batches:
    size = 14 * plan.spec.run.accumulate
    generator = torch.Generator().manual_seed(0)
    shape = plan.data.program.fields["image"].shape[1:]
    images = torch.randn(steps, size, *map(int, shape), generator=generator, dtype=dtype)
    labels = torch.randint(0, 3, (steps, size), generator=generator)
    return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]


def trained(worker: Worker, data: Batches) -> tuple[Weights, list[Overlap]]:
    for batch in data:
        worker.step(batch)
    state = {name: tensor.clone() for name, tensor in worker.state_dict().items()}
    assert worker.pace is not None
    return state, worker.pace.taken()


def joined(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {key: tensor for own in reversed(states) for key, tensor in own.items()}


def different(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    assert found.keys() == wanted.keys()
    return [key for key, tensor in wanted.items() if not torch.equal(found[key], tensor)]


def in_order(ranks: Any, plan: lpc.Plan, data: Batches, versions: Sequence[Mapping[int, int]]) -> list[Weights]:
    """Return the ranks' states after the steps of an order."""
    found = ranks(plan, len(versions), lambda w: trained(w, data)[0], recorded=versions)
    return list(found)


@pytest.mark.parametrize("name", KINDS)
def test_what_was_late_is_replayed(name: str, ranks: Callable[..., list[Any]]) -> None:
    """Of random delays: the bound holds, their order has the same bits again, and that of none those of one process."""
    text, workers = KINDS[name]
    plan = lpc.build(HEAD + text)
    data, bound = batches(plan), plan.spec.run.staleness

    def delayed(worker: Worker) -> tuple[Weights, list[Overlap]]:
        """What is here is taken for not being here, two times of three."""
        draw, pace = random.Random(worker.transport.rank), worker.pace
        assert pace is not None
        ready = pace.is_ready

        def seldom(waiting: Any) -> bool:
            return (not waiting.half.awaited or draw.random() < 1 / 3) and ready(waiting)

        pace.is_ready = seldom  # type: ignore[method-assign]
        return trained(worker, data)

    found = ranks(plan, workers, delayed)
    for _, overlaps in found:
        assert [one.step for one in overlaps] == list(range(STEPS))
        for one in overlaps:
            used = [one.version, *one.consumed.values(), *(one.step - late for late in one.staleness.values())]
            assert one.step - bound <= min(used) <= max(used) <= one.step
    versions = [{one.step: one.version for one in overlaps} for _, overlaps in found]
    late = max(stale for _, overlaps in found for one in overlaps for stale in one.staleness.values())
    assert (late == 0) == (name in ("stop", "accumulated"))

    again = in_order(ranks, plan, data, versions)
    assert [different(state, own) for state, (own, _) in zip(again, found, strict=True)] == [[]] * workers
    alone = lpc.Trainer(plan, "cpu")
    for batch in data:
        alone.step(batch)
    punctual = in_order(ranks, plan, data, [{step: step for step in range(STEPS)}] * workers)
    assert different(joined(punctual), alone.state_dict()) == []


ORDERS = st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6), min_size=2, max_size=2)


def versions_of(lags: Sequence[int]) -> dict[int, int]:
    """Return versions that never shrink, at most so many steps behind as the numbers say."""
    found, last = dict[int, int](), 0
    for step, lag in enumerate(lags):
        last = found[step] = max(step - lag, last)
    return found


SMALL = "network: {inputs: {image: [4]}, layers: [fc1: linear(5), tanh, out: linear(3)]}\n"
TWO = "decompose: {blocks: {b1: fc1, head: out}, links: LINK}\n"
FLOAT = "dtype: float64, staleness: 2"
REPLICAS = (
    HEAD + SMALL + TWO.replace("LINK", "gradient") + 'learn: [{blocks: "*", optimizer: sgd(lr=0.3)}]\n'
    f"run: {{{FLOAT}, replicas: 2}}\n"
)  # fmt: skip


VARIABLES = (
    HEAD + SMALL + TWO.replace(", links: LINK", "") + "recipe:\n  blockprop: {steps: 2, optimizer: sgd(lr=0.3)}\n"
    f"run: {{{FLOAT}}}\n"
)  # fmt: skip


def leaves(weights: Weights) -> Weights:
    return {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}


def hidden(at: Weights, images: Tensor) -> Tensor:
    return torch.tanh(images @ at["fc1.weight"].T + at["fc1.bias"])


def scores(at: Weights, values: Tensor) -> Tensor:
    return values @ at["out.weight"].T + at["out.bias"]


def stepped(new: Weights, at: Weights, loss: Tensor, rate: float) -> None:
    """Step by the gradient at some weights."""
    names = list(at)
    found = torch.autograd.grad(loss, [at[name] for name in names], allow_unused=True)
    for name, gradient in zip(names, found, strict=True):
        new[name] -= 0.0 if gradient is None else rate * gradient


def by_replicas(weights: list[Weights], versions: list[dict[int, int]], step: int, batch: Weights) -> Weights:
    """W_{t+1} = W_t - lr * sum over shards of share * gradient at the weights that the shard's rank began with."""
    new = {name: tensor.clone() for name, tensor in weights[-1].items()}
    for rank, rows in enumerate((slice(0, 7), slice(7, 14))):
        at = leaves(weights[versions[rank][step]])
        loss = cross_entropy(scores(at, hidden(at, batch["image"][rows])), batch["label"][rows])
        stepped(new, at, loss, 0.3 * 0.5)
    return new


def by_variables(weights: list[Weights], versions: list[dict[int, int]], step: int, batch: Weights) -> Weights:
    """The variable begins and is anchored at what b1 makes with older weights; both blocks learn with those of now."""
    anchor = hidden(weights[versions[0][step]], batch["image"])
    variable, now = anchor.clone(), leaves(weights[-1])
    for _ in range(2):
        at = variable.clone().requires_grad_()
        loss = cross_entropy(scores(weights[-1], at), batch["label"], reduction="sum") + ((at - anchor) ** 2).sum()
        variable -= 0.01 * torch.autograd.grad(loss, at)[0]
    new = {name: tensor.clone() for name, tensor in weights[-1].items()}
    stepped(new, now, ((hidden(now, batch["image"]) - variable) ** 2).sum(1).mean(), 0.3)
    stepped(new, now, cross_entropy(scores(now, variable), batch["label"]), 0.3)
    return new


built = cache(lpc.build)


@pytest.mark.parametrize(("text", "rule"), [(REPLICAS, by_replicas), (VARIABLES, by_variables)])
@given(orders=ORDERS)
@settings(max_examples=8, deadline=None)
def test_any_order_means_what_its_versions_say(
    text: str, rule: Callable[..., Weights], orders: list[list[int]], ranks: Callable[..., list[Any]]
) -> None:
    """Against autograd by hand, in float64; the second rank of variables waits for nobody."""
    plan = built(text)
    data, versions = batches(plan, torch.float64, 6), [versions_of(lags) for lags in orders]
    found = joined(in_order(ranks, plan, data, versions))
    weights = [{name: tensor.clone() for name, tensor in lpc.Trainer(plan, "cpu").state_dict().items()}]
    for step, batch in enumerate(data):
        weights.append(rule(weights, versions, step, batch))
    for name, tensor in weights[-1].items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-12)
