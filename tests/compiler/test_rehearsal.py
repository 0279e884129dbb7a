"""Is every tangent proved when a plan is built, and is what does an estimator no good named?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lpc
from lpc.compiler.build import PIPELINE, Build, rehearse, run_pipeline
from lpc.compiler.capture import rewrites

OPERATORS = Path(__file__).with_name("sample_operators.py")
FIELDS = {"label": {"shape": [], "dtype": "int64"}}


def spec(network: dict[str, Any], blocks: Any, estimator: Any, *learn: Any, links: str = "gradient") -> dict[str, Any]:
    """A network whose blocks but the last one estimate the gradient of the output's loss."""
    hidden = [name for name in blocks if name != "out"]
    return {
        "network": network,
        "data": None,
        "fields": FIELDS,
        "loss": "cross_entropy",
        "decompose": {"blocks": blocks, "links": links},
        "learn": [
            {"blocks": "*", "loss": "none", "optimizer": "sgd(lr=0.1)"},
            {"blocks": hidden, "estimator": estimator},
            *learn,
        ],
        "run": {"target": "cpu"},
    }


PARTS = {"InPlace": ["a", "relu", "b"], "Tuples": ["a", "b", "attention"], "Once": ["a", "doubled"],
         "NamesItsDtype": ["a", "named"], "Exported": ["a", "norm", "other"], "Recurrent": ["a", "b"]}  # fmt: skip


def module(name: str, estimator: str = "forward") -> dict[str, Any]:
    inputs: dict[str, Any] = {"x": [5, 4]}
    inputs |= {"mask": {"shape": [5], "dtype": "bool"}} if name == "Masks" else {}
    blocks = {"first": PARTS.get(name, ["a"]), "out": ["c"]}
    return spec({"module": f"sample_operators:{name}", "inputs": inputs}, blocks, estimator)


def build(said: dict[str, Any]) -> lpc.Plan:
    return lpc.build(said, allow=[str(OPERATORS)])


def refusal(said: dict[str, Any]) -> lpc.Diagnostic:
    with pytest.raises(lpc.LpcError) as caught:
        build(said)
    (found,) = caught.value.diagnostics
    return found


# Tangents


@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        ("InPlace", "forward"),
        ("Tuples", "forward(perturb=weight)"),
        ("Masks", "forward"),
        ("NamesItsDtype", "forward(perturb=weight)"),
        ("Recurrent", "forward"),
        ("Exported", "forward(perturb=weight)"),
    ],
)
def test_tangents_are_proved_and_verified(name: str, estimator: str) -> None:
    plan = build(module(name, estimator))
    report = plan.data.report
    assert "operators equal central differences in float64" in report["tangents"]["first"]
    assert report["warnings"] == []
    assert report["rung"] == ("export" if name == "Exported" else "fx")
    checked = lpc.verify(plan, allow=[str(OPERATORS)])
    assert checked.ok, checked


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("ThroughAView", "was written over through another view", "return self.c("),
        ("Roots", "`sqrt` has a tangent that is not finite", "torch.relu(h).sqrt()"),
        ("Once", "`_Once` in `doubled` has a tangent that is not the central difference", "_Once.apply(h)"),
    ],
)
def test_what_has_no_tangent_is_named_with_its_line(name: str, text: str, line: str) -> None:
    found = refusal(module(name))
    assert found.code == "0421"
    assert text in found.message
    file, _, number = str(found.place).rpartition(":")
    assert file == str(OPERATORS)
    assert line in OPERATORS.read_text().splitlines()[int(number) - 1]


def test_a_recurrent_layer_is_mathematics() -> None:
    checked = lpc.verify(build(module("Recurrent", "feedback_alignment")), allow=[str(OPERATORS)])
    assert checked.ok, checked


MAPS = [{"c1": "conv(4, 3, bias=false)"}, {"n1": "batch_norm"}, {"a1": "relu"}, {"p": "max_pool(2)"},
        {"f": "flatten"}, {"out": "linear(3)"}]  # fmt: skip


def layers(*said: dict[str, Any], shape: list[int], **more: Any) -> dict[str, Any]:
    return {"inputs": {"x": shape}, "layers": list(said), **more}


def test_what_is_written_anew_is_in_the_report() -> None:
    plan = build(spec(layers(*MAPS, shape=[2, 8, 8]), {"b": ["c1", "n1", "a1", "p", "f"], "out": "out"}, "forward"))
    assert plan.data.report["tangents"] == {
        "b": "those of 4 operators equal central differences in float64; batch norm as mathematics (1)"
    }


def test_a_wrong_rewriting_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variance with Bessel's correction, say: a difference of a few percent."""

    def wrong(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        axes = (0, 2, 3)
        centred = x - x.mean(axes, keepdim=True)
        return centred * torch.rsqrt(centred.pow(2).sum(axes, keepdim=True) / (x[:, 0].numel() - 1) + 1e-5)

    monkeypatch.setitem(rewrites.REWRITES, torch.nn.functional.batch_norm, wrong)
    said = spec(layers(*MAPS, shape=[2, 8, 8]), {"b": ["c1", "n1", "a1", "p", "f"], "out": "out"}, "forward")
    assert "`BatchNorm2d` in `n1` has a tangent that is not the central difference" in refusal(said).message


def test_a_declared_derivative_is_remarked_on() -> None:
    """A straight-through estimator's derivative is not that of its values, by intent."""
    network = layers({"w": "linear(4)"}, {"a": "relu(backward=identity)"}, {"out": "linear(3)"}, shape=[5])
    plan = build(spec(network, {"w": ["w", "a"], "out": "out"}, "forward"))
    assert plan.data.report["warnings"] == [
        "block w: `StraightThroughReLU` in `a` declares another derivative than its values have"
    ]


# What does an estimator no good

NORMED: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "batch norm": lambda bias: [{"w": f"conv(4, 3, bias={bias})"}, {"n": "batch_norm"}],
    "instance norm": lambda bias: [{"w": f"conv(4, 3, bias={bias})"}, {"n": "instance_norm(affine=true)"}],
    "groups of one channel of a map": lambda bias: [{"w": f"conv(4, 3, bias={bias})"}, {"n": "group_norm(4)"}],
}


def normed(first: list[dict[str, Any]], estimator: str, **more: Any) -> dict[str, Any]:
    network = layers(*first, {"a": "relu"}, {"f": "flatten"}, {"out": "linear(3)"}, shape=[2, 6, 6], **more)
    names = [next(iter(layer)) for layer in first]
    return spec(network, {"b": names, "out": "out"}, estimator)


def warnings(first: list[dict[str, Any]], estimator: str, **more: Any) -> list[str]:
    """Return what the rehearsal warns of; the stages behind it are left out."""
    build = Build(lpc.check(normed(first, estimator, **more)))
    return list(run_pipeline(build, PIPELINE[: PIPELINE.index(rehearse) + 1]).rehearsed.warnings)


def test_what_the_rehearsal_warns_of_is_in_the_report() -> None:
    first, init = NORMED["batch norm"]("true"), {"out.weight": "zeros"}
    found = build(normed(first, "forward", init=init)).data.report["warnings"]
    assert found == warnings(first, "forward", init=init)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("norm", "estimator", "earned"),
    [
        ("batch norm", "forward", "it learns nothing"),
        ("batch norm", "forward(site=after_norm, norm_gradient=ignored)", "its estimate is noise"),
        ("instance norm", "forward(perturb=weight)", "its estimate is noise"),
        ("groups of one channel of a map", "feedback_alignment", "it learns nothing"),
    ],
)
def test_a_bias_that_a_norm_takes_away(norm: str, estimator: str, earned: str) -> None:
    found = warnings(NORMED[norm]("true"), estimator)
    assert found == [f"block b: the norm behind `w` takes `w.bias` away, and {earned}; leave it out"]


@pytest.mark.parametrize("norm", NORMED)
def test_a_norm_without_a_bias_before_it(norm: str) -> None:
    assert warnings(NORMED[norm]("false"), "feedback_alignment") == []


@pytest.mark.parametrize("norm", ["layer_norm(3)", "group_norm(2)", "rms_norm"])
def test_a_bias_that_a_norm_sees(norm: str) -> None:
    """Two channels or more in a group: their biases differ."""
    assert warnings([{"w": "conv(4, 3)"}, {"n": norm}], "forward") == []


@pytest.mark.parametrize(
    ("estimator", "init"), [("forward", {}), ("feedback_alignment", {"init": {"n.weight": "zeros"}})]
)
def test_groups_of_one_number(estimator: str, init: dict[str, Any]) -> None:
    first = [{"w0": "conv(4, 6)"}, {"n": "group_norm(4)"}]
    assert warnings(first, estimator, **init) == [
        "block b: `n` normalises single numbers: whatever it reads, it gives the same"
    ]
    assert warnings([{"w0": "conv(4, 6, bias=false)"}, {"n": "group_norm(2)"}], estimator, **init) == []


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        ("forward", True),
        ("forward(perturb=weight)", True),
        ("feedback_alignment(kind=usf)", True),
        ("feedback_alignment(kind=random)", False),
        ("backprop", False),
    ],
)
def test_a_readout_that_begins_at_zero(estimator: str, told: bool) -> None:
    """Its error is not passed on; only backward weights of their own do not need it."""
    found = warnings([{"w": "conv(4, 3)"}], estimator, init={"out.weight": "zeros"})
    assert found == ["`out.weight` begins at 0: until it has learned, the gradient of `b` is exactly 0"] * told


def test_a_readout_that_does_not() -> None:
    assert warnings([{"w": "conv(4, 3)"}], "forward") == []
