"""Does a batch hold every view of its samples, each transformed on its own?"""

from __future__ import annotations

from typing import Any

import torch

import lpc


def spec(views: int) -> dict[str, Any]:
    return {
        "network": {"inputs": {"image": {"shape": [1, 8, 8]}}, "layers": ["flatten", {"out": "linear(10)"}]},
        "data": {"source": "digits", "batch": 16, "views": views, "transforms": ["crop(8, padding=2)"]},
        "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer"},
        "learn": [{"blocks": "*", "optimizer": "sgd(lr=0.1)"}],
        "run": {"epochs": 1, "target": "cpu"},
    }


def test_views_stand_one_after_the_other() -> None:
    splits = lpc.Trainer(lpc.build(spec(2)), device="cpu").splits
    rows = torch.arange(16)
    batch = splits.train.at(0, 3)[rows]
    assert batch["image"].shape == (32, 1, 8, 8)
    assert torch.equal(batch["label"][:16], batch["label"][16:])
    assert not torch.equal(batch["image"][:16], batch["image"][16:])
    assert torch.equal(batch["image"], splits.train.at(0, 3)[rows]["image"])
    alone = splits.train.at(0, 3)[rows[4:6]]
    assert torch.equal(alone["image"][:2], batch["image"][4:6])
    assert torch.equal(alone["image"][2:], batch["image"][20:22])
    assert splits.test is not None
    held = splits.test[rows]
    assert torch.equal(held["image"][:16], held["image"][16:])
