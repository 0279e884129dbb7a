"""Does a step take the memory that its plan predicts, whatever the schedule, and whatever holds the peak?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lpc

CONVOLUTIONS = [layer for width in (4, 6) for layer in (f"conv({width}, 3, padding=1)", "batch_norm", "relu")]
SCHEDULES: dict[str, dict[str, Any]] = {
    "immediate": {},
    "summed": {"run": {"memory": "summed"}},
    "gradient links": {"links": "gradient"},
    "gradient links, recomputed": {"links": "gradient", "learn": {"memory": "recompute"}},
    "one loss": {"links": "gradient", "learn": {"loss": "none", "head": None}},
    "reach": {"links": "gradient(reach=1)"},
    "accumulated": {"run": {"accumulate": 4}},
    "accumulated and clipped": {"links": "gradient", "run": {"accumulate": 2, "clip": 1.0}},
    "pieces": {"links": "gradient", "run": {"microbatches": 2}},
    "pieces of shards": {"run": {"microbatches": 2, "replicas": 2, "clip": 1.0}},
    "clipped together": {"run": {"clip": 1.0}},
    "clipped by block": {"learn": {"clip": 1.0}},
    "offset": {"learn": {"correct": "bp_offset(period=2, batch=0.5)"}},
    "offset in pieces, recomputed": {
        "learn": {"correct": "bp_offset(period=3, batch=0.75, pieces=2, memory=recompute)"}
    },
    "offset after the update": {"learn": {"correct": "bp_offset(period=2, where=update, alpha=0.5)"}},
    "scaled offset": {"learn": {"correct": "bp_offset(period=2, alpha=0.5, scale=2.0)"}},
    "adadelta": {"learn": {"optimizer": "adadelta(lr=0.1)"}},
    "adamw": {"learn": {"optimizer": "adamw(lr=0.1)"}},
}


def spec(schedule: str, layers: list[Any], shape: list[int], **run: Any) -> dict[str, Any]:
    """Blocks and a classifier under one schedule."""
    given = SCHEDULES[schedule]
    general = {"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.01, momentum=0.9)"}
    learn = {key: value for key, value in (general | given.get("learn", {})).items() if value is not None}
    return {
        "network": {"inputs": {"x": shape}, "layers": [*layers, "flatten", {"out": "linear(5)"}]},
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer", "links": given.get("links", "stop")},
        "learn": [learn, {"blocks": "out", "loss": "cross_entropy"}],
        "run": {"epochs": 1, "target": "cpu"} | given.get("run", {}) | run,
    }


OF_KERNELS = ("link", "reach", "loss", "summed", "immediate", "offset")  # what makes other kernels, or crosses blocks


def batch(size: int, shape: list[int]) -> dict[str, Tensor]:
    return {"x": torch.randn(size, *shape), "label": torch.randint(0, 5, (size,))}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_activations_are_predicted(schedule: str) -> None:
    """Images: what a kernel holds is the peak. Two blocks are enough where schedules differ in instructions alone."""
    more = CONVOLUTIONS[3:] if any(word in schedule for word in OF_KERNELS) else []
    layers = [*CONVOLUTIONS[:3], "dropout(0.1)", *more]
    plan = lpc.build(spec(schedule, layers, [3, 16, 16]))
    found = lpc.Trainer(plan, device="cpu").measure(batch(8, [3, 16, 16]))
    assert found["predicted"] == found["measured"]


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if "link" not in s and "offset in" not in s])
def test_gradients_are_predicted(schedule: str) -> None:
    """Wide layers and a batch of four: gradients, optimizer states and offsets are the peak."""
    layers = ["linear(48)", "tanh", "linear(64)", "relu"]
    plan = lpc.build(spec(schedule, layers, [40]))
    found = lpc.Trainer(plan, device="cpu").measure(batch(4, [40]))
    assert found["predicted"] == found["measured"]


def test_a_phase_has_the_memory_of_what_it_trains() -> None:
    """Optimizers have their states once their blocks had a turn."""
    given = spec("adamw", ["linear(48)", "tanh", "linear(64)", "relu"], [40])
    del given["run"]["epochs"]
    given["run"]["phases"] = [{"train": "linear1", "steps": 4}, {"train": "linear2", "steps": 4}]
    plan = lpc.build(given)
    trainer = lpc.Trainer(plan, device="cpu")
    first, second = (trainer.measure(batch(4, [40])) for _ in range(2))
    assert first == second
    third = trainer.measure(batch(4, [40]))
    assert third["predicted"] == third["measured"] > first["predicted"] == first["measured"]
    assert plan.memory(4).total == third["predicted"]


def test_what_a_class_of_a_package_keeps_is_not_counted() -> None:
    given = spec("immediate", ["linear(48)", "tanh"], [40])
    given["learn"][0]["optimizer"] = 'module("torch.optim:SGD", lr=0.1)'
    plan = lpc.build(given)
    assert plan.memory(4).unknown == ("what `torch.optim:SGD` keeps",)
    found = lpc.Trainer(plan, device="cpu").measure(batch(4, [40]))  # this one keeps nothing
    assert found["predicted"] == found["measured"]


@pytest.mark.parametrize(
    ("at", "link"),
    [
        ("preactivation", "penalty=squared(weight=0.03, reduction=mean), steps=3, anchor=false, buffers=every"),
        ("activation", "steps=2, init=cache, refresh=2"),
        ("preactivation", "steps=2, optimizer=adam(lr=0.1), state=persistent"),
        ("activation", "steps=2, sweeps=2, init=cache, optimizer=sgd(lr=0.1, momentum=0.9), state=persistent"),
    ],
)
def test_variables_are_predicted(at: str, link: str) -> None:
    """A recorded penalty takes one number, not the memory of what it sums; a cache keeps which samples are due."""
    layers = ["linear(7)", "batch_norm", "tanh", "dropout(0.3)", "linear(5)", "relu", "linear(4)", "tanh"]
    given = spec("immediate", layers, [6])
    given["decompose"] |= {"at": at, "links": f"variable({link})"}
    given["learn"] = [{"blocks": "*", "loss": "consistency(weight=1.0)", "optimizer": "sgd(lr=0.1)"}]
    plan = lpc.build(given)
    index = {"index": torch.arange(8)} if "cache" in link else {}
    found = lpc.Trainer(plan, device="cpu").measure({**batch(8, [6]), **index})
    assert found["predicted"] == found["measured"]
