"""Does `lpc calibrate` measure a plan alone and beside others, and does `lpc inspect` foretell from what it wrote?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lpc as api
from lpc.calibrating import measure

Command = Callable[..., Any]
SPEC = """
network: {inputs: {x: [8]}, layers: [fc1: linear(8), tanh, fc2: linear(8), tanh, out: linear(4)]}
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: gradient}
learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]
run: {microbatches: 2}
"""
MEASURED = {f"{block}.{way}" for block in ("b1", "b2") for way in ("forward", "backward")}
MEASURED |= {"head.local", *(f"update {block}" for block in ("b1", "b2", "head"))}


@pytest.fixture(scope="module")
def plan() -> api.Plan:
    return api.build(SPEC)


@pytest.fixture
def path(plan: api.Plan, tmp_path: Path) -> Path:
    plan.save(tmp_path / "x.plan")
    return tmp_path / "x.plan"


def test_one_process_measures_what_runs(plan: api.Plan) -> None:
    """Also inside of micro-batches. Of other processes it knows nothing."""
    before = plan.hash
    found = measure(plan, steps=3, device="cpu", batch=4)
    assert found.kernels.keys() == MEASURED
    assert all(seconds > 0 for seconds in found.kernels.values())
    assert (found.plan, found.lengths, found.processes.alone) == (before, {"B": 4}, True)
    assert plan.hash == before
    shares = found.costs(plan.data)
    (part,) = (one for one in plan.data.program.step if hasattr(one, "body"))
    pieces = 2 * sum(shares(plan.data, one, {"B": 2}) for one in part.body if hasattr(one, "kernel"))
    updates = sum(shares(plan.data, one, {"B": 4}) for one in plan.data.program.step if type(one).__name__ == "Update")
    assert pieces + updates == pytest.approx(found.processes.steps[0])


def test_processes_measure_together_and_are_foretold(lpc: Command, path: Path) -> None:
    found = lpc("calibrate", path, "--workers", 2, "--steps", 2, "--batch", 4, "-o", "deep/costs.json")
    assert found.code == 0, found.err
    raw = json.loads(Path("deep/costs.json").read_text())
    assert len(raw["processes"]["steps"]) == 2
    assert raw["processes"]["value"] > 0
    told = lpc("inspect", path, "--timeline", "--workers", 3, "--costs", "deep/costs.json", "--json")
    assert told.code == 0, told.err
    workers = json.loads(told.out)["workers"]
    assert [one["workers"] for one in workers] == [1, 2, 3]
    assert workers[0]["step_seconds"] == pytest.approx(raw["processes"]["steps"][0])
    apart = lpc(
        "inspect", path, "--timeline", "--workers", 3, "--costs", "deep/costs.json", "--rate", "cores=3",
        "--rate", "latency=9", "--json",
    )  # fmt: skip
    assert json.loads(apart.out)["workers"][-1]["step_seconds"] > 9.0


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--costs", "costs.json"], "0705", "belongs to --workers"),
        (["--workers", 2, "--costs", "costs.json", "--rate", "flops=1"], "0705", "`flops` is measured"),
        (["--workers", 2, "--costs", "costs.json", "--batch", 8], "0709", "measured with B = 4, asked for B = 8"),
        (["--workers", 2, "--costs", "none.json"], "0701", "No such file"),
    ],
)
def test_options_that_do_not_go_together(
    lpc: Command, path: Path, plan: api.Plan, options: list[Any], code: str, told: str
) -> None:
    measure(plan, steps=1, device="cpu", batch=4).write(Path("costs.json"))
    found = lpc("inspect", path, "--timeline", *options)
    assert (found.code, code in found.err, told in found.err) == (2, True, True)


def test_a_mistake_is_told_once(process: Command, path: Path, tmp_path: Path) -> None:
    """All ranks make it."""
    found = process("calibrate", path, "--workers", 2, "--device", "nothing", "-o", "costs.json")
    assert (found.code, found.err.count("error[LPC0663]")) == (2, 1)
    assert not (tmp_path / "costs.json").exists()


def test_a_launcher_says_how_many(lpc: Command, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = lpc("calibrate", path, "--workers", 3)
    assert (found.code, "3 workers are asked for, and 2 processes" in found.err) == (2, True)
