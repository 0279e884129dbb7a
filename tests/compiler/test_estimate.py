"""Is an estimate what the built plan predicts, and are its weights never written?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lpc
from lpc.cli import main
from lpc.compiler.unwritten import LARGE, Unwritten

HEAD: dict[str, Any] = {
    "fields": {"label": {"shape": [], "dtype": "int64"}},
    "loss": "cross_entropy",
    "learn": [{"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "adam(lr=0.1)"}],
}
LAYERS = [{"fc1": "linear(5000)"}, "relu", {"fc2": "linear(100)"}, {"out": "linear(10)"}]
DENSE = {"inputs": {"x": [64]}, "layers": LAYERS}
IMAGES = {
    "inputs": {"x": [3, 16, 16]},
    "layers": [*(layer for width in (8, 16) for layer in (f"conv({width}, 3, padding=1)", "batch_norm", "relu")),
               "global_avg_pool", "linear(10)"],
}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {**HEAD, "network": DENSE, "decompose": {"blocks": "per_layer", "links": "stop"}},
    "backprop": {**HEAD, "network": DENSE, "decompose": {"blocks": "per_layer", "links": "gradient"}},
    "summed": {**HEAD, "network": DENSE, "decompose": {"blocks": "per_layer"}, "run": {"memory": "summed"}},
    "convolutions": {**HEAD, "network": IMAGES, "decompose": {"blocks": "balanced(count=2)", "links": "stop"}},
    "forward": {
        **HEAD, "network": DENSE, "decompose": {"blocks": "per_layer", "links": "stop"},
        "learn": [{**HEAD["learn"][0], "estimator": "forward"}, {"blocks": "out", "estimator": "backprop"}],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_estimate_is_what_the_plan_predicts(name: str) -> None:
    found, plan = lpc.estimate(CASES[name], batch=8), lpc.build(CASES[name])
    assert found.memory == plan.memory(8)
    assert found.cost == plan.cost(8)
    assert [node["id"] for node in found.partition["nodes"]] == list(plan.partition)


def test_devices_share_the_blocks() -> None:
    one, two = (lpc.estimate(CASES["greedy"], batch=8, devices=devices).devices for devices in (1, 2))
    assert [len(one), len(two)] == [1, 2]
    assert sorted(block for device in two for block in device.blocks) == sorted(one[0].blocks)
    assert max(device.total for device in two) < one[0].total


def test_large_tensors_are_left_as_they_are() -> None:
    with Unwritten():  # type: ignore[no-untyped-call]
        layer = torch.nn.Linear(1024, LARGE // 1024)
        small = torch.ones(4)
        large = torch.zeros(LARGE).add_(1.0)
    assert layer.weight.shape == (LARGE // 1024, 1024)
    assert small.tolist() == [1.0] * 4
    assert large.shape == (LARGE,)


def test_weights_larger_than_the_memory_cost_none() -> None:
    """2.6 billion numbers, 10 GB: the process may have 1.5 GB."""
    code = """
import resource, lpc
network = {"inputs": {"x": [64]}, "layers": [{"fc1": "linear(40000)"}, "relu", {"fc2": "linear(65000, bias=false)"}]}
spec = {"network": network, "fields": {"label": {"shape": [], "dtype": "int64"}}, "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer"}, "learn": [{"blocks": "*", "head": "linear", "loss": "cross_entropy",
        "optimizer": "sgd(lr=0.1)"}]}
found = lpc.estimate(spec, batch=1)
print(sum(row.parameters for row in found.memory.blocks), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parameters, used = map(int, done.stdout.split())
    assert parameters > 10 * 10**9
    assert used < 1.5 * 2**30


def test_the_command_tells_an_estimate_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "network: {inputs: {x: [64]}, layers: [fc1: linear(32), relu, out: linear(10)]}\n" + "\n".join(
        ("fields: {label: {shape: [], dtype: int64}}", "loss: cross_entropy", "decompose: {blocks: per_layer}",
         "learn: [{blocks: '*', head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]")
    )  # fmt: skip
    (tmp_path / "a.yaml").write_text(text)
    for options, telling in (([], "at the peak"), (["--devices", "2"], "device"), (["--json"], '"resident"')):
        with pytest.raises(SystemExit) as left:
            main(["build", str(tmp_path / "a.yaml"), "--estimate", "--batch", "4", *options])
        assert not left.value.code
        assert telling in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
    with pytest.raises(SystemExit) as left:
        main(["build", str(tmp_path / "a.yaml"), "--batch", "4"])
    assert left.value.code == 2
