"""Does a loss's gradient travel as far as its links say? LoCo's overlap and look-ahead, against recomputation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lpc

WIDTH, CLASSES, BATCH = 5, 3, 6
NETWORKS = Path(__file__).parent / "sample_networks.py"


def spec(depth: int, links: str, taps: tuple[int, ...], **run: Any) -> dict[str, Any]:
    """A chain of `depth` tanh blocks and a linear one; the blocks in `taps` have a loss of their own."""
    layers: list[dict[str, Any]] = []
    for index in range(depth):
        layers += [{f"fc{index}": f"linear({WIDTH})"}, {f"t{index}": "tanh"}]
    learn: list[dict[str, Any]] = [{"blocks": "*", "optimizer": "sgd(lr=0.1)"}]
    learn += [{"blocks": f"b{index}", "head": "linear", "loss": "cross_entropy"} for index in taps]
    return {
        "network": {"inputs": {"x": {"shape": [4]}}, "layers": [*layers, {"out": f"linear({CLASSES})"}]},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {
            "blocks": {**{f"b{i}": [f"fc{i}", f"t{i}"] for i in range(depth)}, "top": ["out"]},
            "links": links,
        },
        "learn": learn,
        "run": {"dtype": "float64", "target": "cpu", **run},
    }


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "x": torch.randn(BATCH, 4, generator=generator, dtype=torch.float64),
        "label": torch.randint(0, CLASSES, (BATCH,), generator=generator),
    }


def by_recomputation(
    state: dict[str, Tensor], depth: int, taps: tuple[int, ...], reach: int, furthest: bool
) -> dict[str, Tensor]:
    """Each loss runs the blocks it reaches again, from a detached input, and is differentiated alone.

    Returns the gradient of every parameter that some loss reaches.
    """
    leaves = {n: t.detach().clone().requires_grad_() for n, t in state.items()}
    data = batch()
    inputs = [data["x"]]
    for index in range(depth):
        inputs.append(torch.tanh(F.linear(inputs[-1], leaves[f"fc{index}.weight"], leaves[f"fc{index}.bias"])).detach())
    sources = sorted({*taps, depth})
    total: dict[str, Tensor] = {}
    for source in sources:
        first = max(0, source - reach)
        h = inputs[first]
        for index in range(first, min(source, depth - 1) + 1):
            h = torch.tanh(F.linear(h, leaves[f"fc{index}.weight"], leaves[f"fc{index}.bias"]))
        head = "out" if source == depth else f"heads.b{source}"
        value = F.cross_entropy(F.linear(h, leaves[f"{head}.weight"], leaves[f"{head}.bias"]), data["label"])
        names = [n for n in leaves if n.startswith(tuple(f"fc{i}." for i in range(first, depth)))]
        trained = [f"{head}.weight", f"{head}.bias"]
        for name in names:
            index = int(name.split(".")[0][2:])
            ahead = [s for s in sources if index <= s <= index + reach]
            if index <= source and (not furthest or source == max(ahead)):
                trained.append(name)
        found = torch.autograd.grad(value, [leaves[n] for n in trained])
        for name, gradient in zip(trained, found, strict=True):
            total[name] = total[name] + gradient if name in total else gradient
    return total


@pytest.mark.parametrize(
    ("reach", "only", "taps", "memory"),
    [
        (1, "all", (0, 1, 2, 3), "immediate"),  # LoCo
        (1, "all", (1, 2, 3), "recompute"),  # LoCo's figure: the first stage has no loss of its own
        (2, "all", (0, 1, 2, 3), "summed"),
        (2, "all", (2,), "immediate"),
        (9, "all", (0, 2), "recompute"),
        (1, "furthest", (0, 1, 2, 3), "summed"),
        (2, "furthest", (0, 1, 2, 3), "immediate"),
        (9, "furthest", (0, 1, 2, 3), "recompute"),  # look-ahead to the end: backpropagation
    ],
)
def test_overlap_equals_recomputation(reach: int, only: str, taps: tuple[int, ...], memory: str) -> None:
    said = spec(4, f"gradient(reach={reach}, only={only})", taps)
    if memory == "summed":
        said["run"]["memory"] = "summed"
    else:
        said["learn"][0]["memory"] = memory
    trainer = lpc.Trainer(lpc.build(said), device="cpu")
    wanted = by_recomputation(trainer.state_dict(), 4, taps, reach, only == "furthest")
    found = trainer.gradients(batch())
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-13, atol=1e-15, msg=name)


def test_a_look_ahead_over_the_whole_network_is_backpropagation() -> None:
    ahead = lpc.Trainer(lpc.build(spec(3, "gradient(reach=3, only=furthest)", (0, 1, 2))), device="cpu")
    back = lpc.Trainer(lpc.build(spec(3, "gradient", ())), device="cpu")
    wanted = back.gradients(batch())
    found = ahead.gradients(batch())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-13, atol=1e-15, msg=name)


@settings(
    deadline=None,
    max_examples=3,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.data())
def test_random_chains(data: st.DataObject) -> None:
    depth = data.draw(st.integers(1, 4))
    reach = data.draw(st.integers(1, depth + 1))
    only = data.draw(st.sampled_from(["all", "furthest"]))
    every = tuple(range(depth))
    taps = every if only == "furthest" else tuple(i for i in every if data.draw(st.booleans()) or depth - i > reach)
    trainer = lpc.Trainer(lpc.build(spec(depth, f"gradient(reach={reach}, only={only})", taps)), device="cpu")
    wanted = by_recomputation(trainer.state_dict(), depth, taps, reach, only == "furthest")
    found = trainer.gradients(batch())
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-12, atol=1e-14, msg=name)


def test_skip_connections_are_limited_path_by_path() -> None:
    """A loss may cross a short skip where the longer way around is out of its reach: checked by `verify`."""
    said = spec(3, "gradient(reach=1)", (0, 1, 2))
    said["network"]["layers"].insert(5, {"s": "add(from=[fc2, t0])"})
    said["network"]["layers"][6] = {"t2": "tanh"}
    said["decompose"]["blocks"]["b2"] = ["fc2", "s", "t2"]
    report = lpc.verify(lpc.build(said))
    assert report.ok
    assert report.influence == report.declared
    assert report.influence["fc0.weight"] == {"b0.loss", "b1.loss", "b2.loss"}
    assert report.influence["fc1.weight"] == {"b1.loss", "b2.loss"}


def test_overlap_keeps_two_blocks_at_a_time() -> None:
    """A block's backward runs as soon as the next block's loss has answered, before the block after that."""
    lines = lpc.build(spec(4, "gradient(reach=1)", (0, 1, 2, 3))).text().splitlines()
    calls = [line.split("call ")[1].split("(")[0] for line in lines if "= call " in line]
    step = calls[: calls.index("top.local") + 2]
    assert step.index("b0.backward") < step.index("b2.forward")
    assert step.index("b1.backward") < step.index("b3.forward")


def test_furthest_wants_a_chain_and_one_link() -> None:
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec(2, "gradient(only=furthest)", (0, 1)))
    assert [d.code for d in caught.value.diagnostics] == ["0414"]


def test_a_mask_that_crosses_is_no_way_for_gradients() -> None:
    """The mask skips a block, so that the graph is no chain; what gradients cross is one."""
    said = spec(2, "gradient(reach=1, only=furthest)", (0, 1))
    said["network"] = {"module": "sample_networks:Masked", "inputs": {"x": [4]}}
    said["decompose"]["blocks"] = {"b0": ["fc0"], "b1": ["fc1"], "top": ["out"]}
    plan = lpc.build(said, allow=[str(NETWORKS)])
    assert [t["dtype"] for t in plan.partition.edges["b0", "top"]["tensors"]] == ["bool"]
    report = lpc.verify(plan, allow=[str(NETWORKS)])
    assert report.ok
    assert report.influence == report.declared
    assert report.influence["fc0.weight"] == {"b1.loss"}
