"""Does freezing change nothing for what is still trained? Gradients of plans with and without frozen layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import lpc
from lpc.views.partition import blocks

# `c` reads `a` over the head of `b`, and `d` both.
LAYERS: list[Any] = [
    {"a": "linear(6)"},
    "tanh",
    {"b": "linear(6)"},
    {"b_out": "tanh"},
    {"joined": "add(from=[tanh1, b_out])"},
    {"c": "linear(6)"},
    {"c_out": "tanh"},
    {"both": "concat(from=[c_out, tanh1])"},
    {"d": "linear(4)"},
]
BLOCKS = {"a": ["a", "tanh1"], "b": ["b", "b_out"], "c": ["joined", "c", "c_out"], "d": ["both", "d"]}
BOUNDARIES = ("a->b", "a->c", "a->d", "b->c", "c->d")


def trainer(links: dict[str, str], frozen: set[str], **more: Any) -> lpc.Trainer:
    spec: dict[str, Any] = {
        "network": {"inputs": {"x": [5]}, "layers": LAYERS},
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": BLOCKS, "links": links},
        "learn": [
            {"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"},
            *({"params": f"{name}.*", "train": False} for name in sorted(frozen)),
            *more.pop("learn", []),
        ],
        "run": {"dtype": "float64", "target": "cpu"},
    }
    return lpc.Trainer(lpc.build(spec), device="cpu")


@settings(
    max_examples=2,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    links=st.fixed_dictionaries({key: st.sampled_from(["stop", "gradient"]) for key in BOUNDARIES}),
    frozen=st.sets(st.sampled_from("abcd"), min_size=1, max_size=3),
)
def test_gradients_are_those_without_freezing(links: dict[str, str], frozen: set[str]) -> None:
    whole, part = trainer(links, set()), trainer(links, frozen)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    batch = {"x": x, "label": torch.randint(0, 4, (7,), generator=generator)}
    state = whole.state_dict()
    part.load_state_dict({name: state[name] for name in part.state_dict()})
    wanted, found = whole.gradients(batch), part.gradients(batch)
    own = {name for name in wanted if not name.startswith("heads.")}
    assert {name for name in found if name in own} == {name for name in own if name.split(".")[0] not in frozen}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-12, atol=1e-14)


def test_linear_probing_trains_the_readout_only() -> None:
    """A frozen trunk, one entry for all of it and one for the readout: one block is left."""
    probe = trainer({"*": "stop"}, set(), learn=[{"params": "*", "train": False}, {"params": "d.*", "train": True}])
    assert list(lpc.build(probe.plan.spec).partition) == ["d"]
    table = blocks(probe.plan)
    shown = [(column.header, *column.cells) for column in table.columns]
    assert shown[2:4] == [("parameters", "172"), ("trained", "52")]
    before = {name: t.clone() for name, t in probe.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    metrics = probe.step({"x": x, "label": torch.randint(0, 4, (7,), generator=generator)})
    after = probe.state_dict()
    assert {name for name in after if not torch.equal(before[name], after[name])} == {"d.weight", "d.bias"}
    assert set(metrics) == {"d.loss", "d.accuracy"}


def test_a_frozen_block_needs_neither_loss_nor_optimizer() -> None:
    """Without `train: false` both are missed when the spec is checked."""
    spec: dict[str, Any] = {
        "network": {"inputs": {"x": [5]}, "layers": [{"a": "linear(6)"}, {"b": "linear(6)"}, {"c": "linear(4)"}]},
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"a": "a", "b": "b", "c": "c"}},
        "learn": [
            {"blocks": ["b", "c"], "optimizer": "sgd(lr=0.1)"},
            {"blocks": "b", "head": "linear", "loss": "cross_entropy"},
        ],
    }
    with pytest.raises(lpc.LpcError, match="block `a` has no"):
        lpc.build(spec)
    spec["learn"] += [{"params": "a.*", "train": False}]
    assert list(lpc.build(spec).partition) == ["b", "c"]
    spec["learn"][-1] = {"params": "b.*", "train": False}
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec)
    assert {problem.code for problem in caught.value.diagnostics} <= {"0407", "0431"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"params": "e.*", "train": False}, "`e.*` matches no parameter"),
        ({"blocks": "a", "params": "b.*", "train": False}, "`b.*` matches no parameter"),
        ({"params": "*", "train": False}, "no parameter of the network is trained"),
    ],
)
def test_mistake(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        trainer({"*": "stop"}, set(), learn=[rule])
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message[: len(message)]) == ("0430", message)
    assert "learn" in (diagnostic.place or "")
