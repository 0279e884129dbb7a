"""Are the vocabularies sound? Types and defaults, terms bound to them, torch's optimizers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lpc.compiler.optimizer_table import optimizer_table
from lpc.specs import parse_term
from lpc.specs.check_terms import describe, usage
from lpc.specs.signatures import LAYERS, OPTIMIZERS, REQUIRED, VOCABULARIES, Signature

ALL = [
    pytest.param(s, id=f"{v}-{s.name}".replace(" ", "_")) for v, t in VOCABULARIES.items() for s in t.values()
]


@pytest.mark.parametrize("signature", ALL)
def test_defaults_are_of_their_type(signature: Signature) -> None:
    for parameter in signature.parameters:
        assert parameter.default is REQUIRED or parameter.accepts(parameter.default), parameter
        assert describe(parameter)
        assert not parameter.accepts(object()) or parameter.type == "any"


@pytest.mark.parametrize("signature", ALL)
def test_required_come_first(signature: Signature) -> None:
    flags = [parameter.default is REQUIRED for parameter in signature.parameters]
    assert flags == sorted(flags, reverse=True)
    assert signature.doc
    assert usage(signature).startswith(signature.name + "(")


def test_binding_fills_in_defaults() -> None:
    bound = LAYERS["conv"].bind(parse_term("conv(8, 3, padding=same)"))
    assert bound == {
        "out": 8, "kernel": 3, "stride": 1, "padding": "same", "dilation": 1, "groups": 1, "bias": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("type", "good", "bad"),
    [
        ("int", [1], [True, 1.0, "1", None]),
        ("natural", [0, 1], [-1, True, 0.0]),
        ("size", [1], [0, -1, True]),
        ("float", [1, 1.5, -2.0], [True, "1", float("nan"), float("inf")]),
        ("rate", [0, 0.5], [-0.1, True, float("nan")]),
        ("positive", [1, 0.5], [0, 0.0, -1]),
        ("share", [0, 0.5, 1], [1.1, -0.1, True]),
        ("bool", [True], [1]),
        ("none | int", [None, 2], ["none"]),
        ("int | [int]", [1, [1, 2], []], [[1.5], (1,)]),
        ("'a' | 'b'", ["a", "b"], ["c", None]),
    ],
)
def test_types(type: str, good: list[object], bad: list[object]) -> None:
    parameter = LAYERS["linear"].parameters[0].__class__("x", type)
    assert all(map(parameter.accepts, good))
    assert not any(map(parameter.accepts, bad))


def test_the_optimizer_table_is_that_of_torch() -> None:
    table = optimizer_table()
    known = {name: [p.name for p in s.parameters] for name, s in OPTIMIZERS.items()}
    for name, entry in table["optimizers"].items():
        names = [argument["name"] for argument in entry["arguments"]]
        assert known[name][: len(names)] == names, name
    if torch.__version__.startswith("2.13"):
        assert set(known) == {*table["optimizers"], "kfac", "module"}


def test_decay_is_a_second_name_for_rmsprop() -> None:
    assert OPTIMIZERS["rmsprop"].parameter("decay") is not None
    assert OPTIMIZERS["sgd"].parameter("decay") is None


def test_the_language_loads_no_heavy_library() -> None:
    heavy = ("torch", "networkx", "numpy", "sklearn")
    code = f"import sys, lpc.specs; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
