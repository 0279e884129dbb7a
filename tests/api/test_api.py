"""Does the way from a spec to a trained network work from Python, and hold what it promises?"""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import networkx as nx
import pytest
import torch

import lpc

SPEC = files("lpc").joinpath("starter.yaml").read_text()
SMALL = {
    "network.layers[1].fc1": "linear(24)",
    "network.layers[3].fc2": "linear(24)",
    "run.epochs": 5,
    "learn[0].optimizer.lr": 0.01,
}


@pytest.fixture(scope="module")
def plan() -> lpc.Plan:
    return lpc.build(SPEC, SMALL)


def test_build_takes_every_kind_of_source(plan: lpc.Plan, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    spec = lpc.check(SPEC, SMALL)
    assert lpc.build(path, SMALL).hash == plan.hash
    assert lpc.build(spec).hash == plan.hash
    assert plan.spec == spec


@pytest.mark.parametrize("name", ["small.plan", "small.plan.zip"])
def test_plan_comes_back_as_it_was(plan: lpc.Plan, tmp_path: Path, name: str) -> None:
    plan.save(tmp_path / name)
    back = lpc.load(tmp_path / name)
    assert back.data == plan.data
    assert back.hash == plan.hash
    assert back.text() == plan.text()


def test_partition_is_a_graph(plan: lpc.Plan) -> None:
    assert isinstance(plan.partition, nx.DiGraph)
    assert list(nx.topological_sort(plan.partition)) == ["fc1", "fc2", "out"]
    assert plan.partition.edges["fc1", "fc2"]["link"] == "stop"
    assert plan.partition.nodes["out"]["num_parameters"] == 24 * 10 + 10


def test_kernel_text(plan: lpc.Plan) -> None:
    assert "aten.addmm.default" in plan.kernel("fc1.local")
    with pytest.raises(lpc.LpcError, match=r"did you mean `fc1\.local`"):
        plan.kernel("fc1.lcal")


def test_fit_learns(plan: lpc.Plan, tmp_path: Path) -> None:
    trainer = lpc.Trainer(plan, device="cpu")
    before = trainer.evaluate()
    summary = trainer.fit(tmp_path)
    assert summary["test"]["out.loss"] < before["out.loss"]
    assert summary["test_accuracy"] > 0.8
    assert trainer.evaluate() == summary["test"]


def test_state_dict_has_the_networks_names(plan: lpc.Plan) -> None:
    state = lpc.Trainer(plan, device="cpu").state_dict()
    assert {"fc1.weight", "out.bias", "heads.fc1.weight"} <= state.keys()
    assert state["fc1.weight"].shape == (24, 64)


def test_step_and_gradients_and_predict(plan: lpc.Plan) -> None:
    trainer = lpc.Trainer(plan, device="cpu")
    batch = {"image": torch.rand(5, 1, 8, 8), "label": torch.arange(5)}
    before = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
    gradients = trainer.gradients(batch)
    assert gradients.keys() == before.keys()
    assert all(torch.equal(tensor, trainer.state_dict()[name]) for name, tensor in before.items())
    metrics = trainer.step(batch)
    assert metrics["out.loss"].shape == ()
    assert not torch.equal(before["out.weight"], trainer.state_dict()["out.weight"])
    assert trainer.predict(batch["image"]).shape == (5, 10)


def test_verify_proves_the_isolation(plan: lpc.Plan) -> None:
    report = lpc.verify(plan)
    assert report.ok
    assert report.influence["fc1.weight"] == {"fc1.loss"}
    assert report.worst < 1e-12


def test_loading_a_plan_to_run_it_loads_no_compiler(plan: lpc.Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "small.plan")
    code = "import lpc, sys; lpc.Trainer(lpc.load('small.plan'), device='cpu').evaluate();"
    code += "assert not [m for m in sys.modules if m.startswith('lpc.compiler')], 'the compiler was loaded'"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
