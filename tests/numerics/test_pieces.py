"""Are shards and pieces of a batch what a loop over them does by hand, and what the whole batch does without a norm?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import lpc

SIZE, REPLICAS, PIECES = 11, 2, 2  # shards of 5 and 6 samples, pieces of 2, 3, 3 and 3
SPEC = """\
network:
  inputs: {x: [5]}
  layers: [fc1: linear(6), NORM, tanh, DROP, out: linear(4)]
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: [fc1, norm1], head: out}, links: gradient}
learn: [{blocks: "*", optimizer: "sgd(lr=0.5, momentum=0.9)"}]
run: {dtype: float64, RUN}
"""
SPLIT = f"replicas: {REPLICAS}, microbatches: {PIECES}"


def built(norm: str, drop: str, run: str) -> lpc.Plan:
    return lpc.build(SPEC.replace("NORM", norm).replace("DROP", drop).replace("RUN", run))


def batch(seed: int, size: int = SIZE) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 5, generator=generator, dtype=torch.float64)
    return {"x": x, "label": torch.randint(0, 4, (size,), generator=generator)}


def pieces(given: dict[str, Tensor]) -> Iterator[tuple[int, float, Tensor, Tensor]]:
    """Yield shard, share of the batch, and samples of each piece, cut as equally as can be."""
    size = len(given["x"])
    for shard in range(REPLICAS):
        first, last = size * shard // REPLICAS, size * (shard + 1) // REPLICAS
        for piece in range(PIECES):
            a, b = (first + (last - first) * (piece + i) // PIECES for i in (0, 1))
            yield shard, (b - a) / size, given["x"][a:b], given["label"][a:b]


def test_pieces_have_statistics_of_their_own() -> None:
    """Plain autograd in float64: each piece is normed by itself, the first shard alone moves the running statistics."""
    trainer = lpc.Trainer(built("norm1: batch_norm", "relu", SPLIT), "cpu")
    state = {name: t.clone() for name, t in trainer.state_dict().items()}
    weights = [n for n in state if not n.startswith("norm1.running") and "tracked" not in n]
    moments = {name: torch.zeros_like(state[name]) for name in weights}
    for step in range(3):
        own = {name: state[name].clone().requires_grad_() for name in weights}
        total: Any = 0.0
        for shard, share, x, label in pieces(batch(step)):
            kept = [state[f"norm1.running_{s}"] if shard == 0 else torch.zeros(6).double() for s in ("mean", "var")]
            h = F.linear(x, own["fc1.weight"], own["fc1.bias"])
            h = F.batch_norm(h, *kept, own["norm1.weight"], own["norm1.bias"], training=True)
            logits = F.linear(torch.relu(torch.tanh(h)), own["out.weight"], own["out.bias"])
            total = total + share * F.cross_entropy(logits, label)
        gradients = torch.autograd.grad(total, list(own.values()))
        losses = trainer.step(batch(step))
        assert losses["head.loss"].item() == pytest.approx(float(total.detach()), rel=1e-12)
        for name, gradient in zip(own, gradients, strict=True):
            moments[name] = 0.9 * moments[name] + gradient
            state[name] = state[name] - 0.5 * moments[name]
        found = trainer.state_dict()
        for name in (*weights, "norm1.running_mean", "norm1.running_var"):
            torch.testing.assert_close(found[name], state[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("run", [SPLIT, "microbatches: 3", "replicas: 4"])
def test_a_sample_has_the_same_noise_in_every_cut(run: str) -> None:
    """Without a norm, pieces change a gradient by rounding only: dropout's mask belongs to the sample."""
    plans = [built("norm1: layer_norm", "dropout(0.5)", f"seed: 1{more}") for more in ("", f", {run}")]
    whole, cut = (lpc.Trainer(plan, "cpu") for plan in plans)
    for size in (SIZE, 2):  # also with empty pieces
        wanted, found = whole.gradients(batch(0, size)), cut.gradients(batch(0, size))
        assert found.keys() == wanted.keys()
        assert max(float((found[n] - wanted[n]).abs().max()) for n in wanted) < 1e-14


def test_the_plan_is_verified() -> None:
    assert lpc.verify(built("norm1: batch_norm", "dropout(0.5)", SPLIT)).ok
