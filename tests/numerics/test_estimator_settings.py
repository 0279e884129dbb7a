"""Do estimators go with bfloat16, phases, adapters, limited reach and accumulation? Verified, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import lpc

LAYERS = [
    {"w1": "linear(5)"}, {"n1": "layer_norm"}, {"a1": "relu"}, {"w2": "linear(4)"}, {"a2": "relu"}, {"out": "linear(3)"}
]  # fmt: skip
HIDDEN = ["w1", "w2"]
LORA = {"adapters": ['lora(rank=2, targets="w*")']}
BF16 = {"dtype": "float32", "precision": "bf16"}
FURTHEST = "gradient(reach=1, only=furthest)"


def spec(estimator: str, links: str = "gradient", blocks: Any = None, run: Any = None, **more: Any) -> dict[str, Any]:
    """Losses for all blocks, and the exact gradient for the output's."""
    blocks = blocks or HIDDEN
    return {
        "network": {"inputs": {"x": [4]}, "layers": LAYERS},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer", "links": links},
        "learn": [
            {"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"},
            {"blocks": blocks, "estimator": estimator},
        ],
        "run": {"dtype": "float64", "target": "cpu"} | (run or {}),
        **more,
    }


def phases(*parts: Any) -> Mapping[str, Any]:
    return {"phases": [{"epochs": 1, "train": part} for part in parts]}


SOUND = {
    "bfloat16, activities": spec("forward", run=BF16),
    "bfloat16, aligned": spec("feedback_alignment(kind=usf)", run=BF16),
    "aligned, the furthest loss": spec("feedback_alignment", FURTHEST, ["w1", "w2", "out"]),
    "aligned, near losses": spec("feedback_alignment", "gradient(reach=1)"),
    "phases that perturb together": spec("forward", run=phases(["w1", "w2", "out"], "out")),
    "phases, projected": spec("backprop", "feedback", run=phases(["w1", "out"], ["w2", "out"])),
    "adapters, activities": spec("forward", **LORA),
    "adapters, aligned": spec("feedback_alignment", **LORA),
    "accumulated": spec("forward", run={"accumulate": 2}),
    "all at once": spec("forward", run={"memory": "summed"}),
}


@pytest.mark.parametrize("case", SOUND)
def test_what_goes_together_is_verified(case: str) -> None:
    report = lpc.verify(lpc.build(SOUND[case]))
    assert report.ok, report


REFUSED = {
    "the furthest loss": (spec("forward", FURTHEST), "LPC0420", "cannot tell the furthest loss from the others"),
    "the furthest of exact blocks": (spec("forward", FURTHEST, "w1"), "LPC0420", "cannot tell the furthest loss"),
    "near losses": (spec("forward", "gradient(reach=1)"), "LPC0420", "a gradient of limited reach cannot be estimated"),
    "a phase without its directions": (
        spec("forward", run=phases("*", ["w2", "out"])), "LPC0432", "trains `w2`, which learns through `w1`"
    ),
    "an offset": (
        spec("forward", "stop") | {"learn": [*spec("forward")["learn"], {"blocks": "*", "correct": "bp_offset"}]},
        "LPC0415", "is estimated from noise",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_is_told(case: str) -> None:
    said, code, text = REFUSED[case]
    with pytest.raises(lpc.LpcError, match=code) as caught:
        lpc.build(said)
    assert text in str(caught.value)
