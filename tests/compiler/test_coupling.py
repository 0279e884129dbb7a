"""Is it known which samples of a batch move each other: not through masks, but through what a batch has in common?"""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import lpc

NETWORKS = Path(__file__).with_name("sample_masks.py")
SHAPE = {"x": (6, 4), "kept": (6,)}
ORIGINAL = {"r": "table", "b0": "embed", "b1": "b1", "b2": "b2", "out": "out"}
BLOCKS = {name: path for name, path in ORIGINAL.items() if name != "r"}


def built(name: str, blocks: Mapping[str, Any]) -> lpc.Plan:
    """The plan of a network in which all perturb but what makes masks."""
    links = {"*": "gradient", **({"r->*": "stop"} if "r" in blocks else {})}
    spec: dict[str, Any] = {
        "network": {
            "module": f"sample_masks:{name}",
            "inputs": {"x": list(SHAPE["x"]), "kept": {"shape": list(SHAPE["kept"]), "dtype": "bool"}},
        },
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": dict(blocks), "links": links},
        "learn": [{"blocks": "*", "estimator": "forward", "optimizer": "sgd(lr=0.1)"}],
    }
    spec["learn"] += [{"params": "table.*", "train": False}] if "r" in blocks else []
    return lpc.build(spec, allow=[str(NETWORKS)])


def estimators(name: str) -> dict[str, str]:
    """What the build says of each block."""
    plan = built(name, ORIGINAL if name == "Biased" else BLOCKS)
    return dict(plan.data.report["estimators"])


def moved(name: str) -> Iterator[bool]:
    """Whether another sample's numbers change what the first sample gives."""
    torch.manual_seed(0)
    network = runpy.run_path(str(NETWORKS))[name]()
    x, kept = torch.randn(3, *SHAPE["x"]), torch.ones(3, *SHAPE["kept"], dtype=torch.bool)
    for other in range(1, 3):
        changed = x.clone()
        changed[other] += 1.0
        yield not torch.allclose(network(x, kept)[0], network(changed, kept)[0], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("name", ["Padded", "Biased"])
def test_masks_keep_samples_apart(name: str) -> None:
    assert not any(moved(name))
    assert all(told.startswith("unbiased; ") for told in estimators(name).values())


@pytest.mark.parametrize(("name", "operator"), [("Normed", "b2.norm"), ("Averaged", "b2")])
def test_the_operator_that_couples_samples_is_named(name: str, operator: str) -> None:
    assert all(moved(name))
    told = estimators(name)
    assert told["b0"].startswith(f"biased because `{operator}` couples the samples; ")
    assert told["b1"].startswith(f"biased because `{operator}` couples the samples; ")


def test_what_cannot_be_told_is_not_called_coupled() -> None:
    told = estimators("Hidden")["b0"]
    assert "couples" not in told
    assert "lpc cannot tell whether `b2` keeps samples apart" in told


@pytest.mark.parametrize(("name", "layer"), [("Biased", "table"), ("Flat", "b1")])
def test_noise_on_what_has_no_row_for_each_sample_is_refused(name: str, layer: str) -> None:
    """Its credit would be summed over rows that are none of it; it had ended in a traceback."""
    first = ["embed", "table"] if name == "Biased" else ["embed"]
    with pytest.raises(lpc.LpcError) as caught:
        built(name, {**BLOCKS, "b0": first})
    [problem] = caught.value.diagnostics
    assert problem.code == "0420"
    assert f"`{layer}` has no row for each sample" in problem.message
