"""Are the plan's tensors where they should be, tied where they should be?"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save
from torch import nn

from lpc.runtime.state import State
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import StateEntry

CPU = torch.device("cpu")
ENTRIES = {
    "emb.weight": StateEntry(
        "emb.weight", "parameter", "a", TensorType("float32", (4, 2)), True, ("out.weight",)
    ),
    "frozen": StateEntry("frozen", "parameter", "a", TensorType("float32", (2,)), False),
    "count": StateEntry("count", "buffer", "a", TensorType("int64", ()), False),
}
VALUES = {"emb.weight": torch.randn(4, 2), "frozen": torch.ones(2), "count": torch.tensor(3)}


def test_parameters_buffers_and_tied_names() -> None:
    state = State(ENTRIES, save(VALUES), CPU)
    assert isinstance(state["emb.weight"], nn.Parameter)
    assert state["out.weight"] is state["emb.weight"]
    assert not state["frozen"].requires_grad
    assert not isinstance(state["count"], nn.Parameter)
    found = state.state_dict()
    assert list(found) == ["emb.weight", "out.weight", "frozen", "count"]
    assert found["out.weight"].data_ptr() == state["emb.weight"].data_ptr()
    assert not found["out.weight"].requires_grad
    assert torch.equal(found["count"], torch.tensor(3))


def test_loading_keeps_the_tensors_and_takes_any_tied_name() -> None:
    state = State(ENTRIES, save(VALUES), CPU)
    before = state["emb.weight"]
    state.load_state_dict(
        {"out.weight": torch.zeros(4, 2), "frozen": torch.zeros(2), "count": torch.tensor(0)}
    )
    assert state["emb.weight"] is before
    assert not before.any()


def test_every_problem_is_told_and_nothing_is_copied() -> None:
    state = State(ENTRIES, save(VALUES), CPU)
    with pytest.raises(LpcError) as caught:
        state.load_state_dict(
            {"frozen": torch.zeros(2), "count": torch.zeros(3), "emb.wieght": torch.zeros(1)}
        )
    assert [d.code for d in caught.value.diagnostics] == ["0647", "0648", "0649"]
    assert "did you mean `emb.weight`?" in caught.value.diagnostics[1].notes
    assert state["frozen"].all()
    state.load_state_dict({"frozen": torch.zeros(2), "other": torch.zeros(1)}, strict=False)
    assert not state["frozen"].any()


@pytest.mark.parametrize(
    ("weights", "code"),
    [
        (b"no weights", "0505"),
        (save({"emb.weight": VALUES["emb.weight"]}), "0649"),
        (save(VALUES | {"frozen": torch.ones(3)}), "0647"),
        (save(VALUES | {"frozen": torch.ones(2, dtype=torch.float64)}), "0647"),
    ],
)
def test_weights_that_do_not_fit_the_plan(weights: bytes, code: str) -> None:
    with pytest.raises(LpcError) as caught:
        State(ENTRIES, weights, CPU)
    assert caught.value.diagnostics[0].code == code


def test_an_unknown_name() -> None:
    with pytest.raises(LpcError, match="`nope` is no tensor"):
        State(ENTRIES, save(VALUES), CPU)["nope"]
