"""Does what was measured cost what it took, and is a file refused that is damaged or of something else?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lpc
from lpc.specs.diagnostics import LpcError
from lpc.specs.simulation.calibration import Calibration, Processes, Waking, read_calibration
from lpc.specs.simulation.programs import simulated

SPEC = """
network: {inputs: {x: [8]}, layers: [fc1: linear(8), tanh, fc2: linear(8), tanh, out: linear(4)]}
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: stop}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]
"""
KERNELS = {
    "b1.local": 0.003, "b2.local": 0.002, "head.local": 0.001, "update b1": 0.0, "update b2": 0.0, "update head": 0.0,
}  # fmt: skip
PROCESSES = Processes((0.012, 0.016), (Waking(0.01, 0.001),), 1e-4, 1e-9, 5e-5)


@pytest.fixture(scope="module")
def plan() -> lpc.Plan:
    return lpc.build(SPEC)


@pytest.fixture(scope="module")
def calibration(plan: lpc.Plan) -> Calibration:
    return Calibration(1, plan.hash, "cpu", "2.13.0", {"B": 16}, KERNELS, PROCESSES)


def test_a_step_takes_what_it_took(plan: lpc.Plan, calibration: Calibration) -> None:
    """Kernels of 6 ms in a step of 12: what lies between them is spread over them."""
    costs, lengths = calibration.costs(plan.data), dict(calibration.lengths)
    found = simulated([plan.data], lengths, costs, PROCESSES.network())
    assert found.period == pytest.approx(0.012)
    assert sum(one.seconds for one in found.busy if one.block == "b1") / found.steps == pytest.approx(0.006)


def test_a_kernel_that_did_not_run_has_the_speed_of_the_others(plan: lpc.Plan, calibration: Calibration) -> None:
    """What ran did its operations in three seconds; what did not is as quick, and the step takes the six of all."""
    rest = {name: seconds for name, seconds in KERNELS.items() if name != "b2.local"}
    rest |= {"b1.local": 3.0, "head.local": 0.0}
    known = replace(calibration, kernels=rest, processes=replace(PROCESSES, steps=(6.0,)))
    found = simulated([plan.data], {"B": 16}, known.costs(plan.data), replace(PROCESSES, steps=(6.0,)).network())
    assert found.period == pytest.approx(6.0)
    times = {one.block: one.seconds for one in found.busy}
    flops = {name: plan.cost(16).blocks[name] for name in ("b1", "b2", "head")}
    speed = (flops["b1"] + flops["head"]) / 3.0
    assert times["b2"] / times["b1"] == pytest.approx(flops["b2"] / speed / 3.0, rel=1e-4)


def test_what_is_written_is_read(plan: lpc.Plan, calibration: Calibration, tmp_path: Path) -> None:
    calibration.write(tmp_path / "costs.json")
    assert read_calibration(tmp_path / "costs.json", plan.hash, {"B": 16}) == calibration
    network = calibration.processes.network()
    assert (network.speeds, network.handling, network.latency) == ((1.0, 0.75), (1e-4, 1e-9), 5e-5)
    assert [network.woken(gap) for gap in (0.0, 0.005, 0.01, 1.0)] == [0.0, pytest.approx(0.0005), 0.001, 0.001]


def without(key: str) -> Callable[[Any], Any]:
    return lambda raw: {name: value for name, value in raw.items() if name != key}


def inside(**changed: Any) -> Callable[[Any], Any]:
    return lambda raw: raw | {"processes": raw["processes"] | changed}


WRONG: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "no object": (lambda raw: [], "expected an object", "$"),
    "no kernels": (without("kernels"), "kernels", "$"),
    "another key": (lambda raw: raw | {"kernel": {}}, "kernel", "$.kernel"),
    "another format": (lambda raw: raw | {"format": 7}, "format 7, expected 1", "$.format"),
    "another plan": (lambda raw: raw | {"plan": "0" * 64}, "another plan", "$.plan"),
    "another batch": (lambda raw: raw | {"lengths": {"B": 4}}, "measured with B = 4", "$.lengths.B"),
    "no batch": (lambda raw: raw | {"lengths": {}}, "B = None", "$.lengths.B"),
    "a text": (lambda raw: raw | {"kernels": {"b1.local": "1"}}, "expected a number", "$.kernels.b1.local"),
    "negative": (lambda raw: raw | {"kernels": {"b1.local": -1}}, "expected seconds", "$.kernels.b1.local"),
    "infinite": (inside(latency={"float": "inf"}), "expected seconds", "$.processes.latency"),
    "no steps": (inside(steps=[]), "expected seconds", "$.processes.steps[0]"),
    "a step of nothing": (inside(steps=[0.1, 0]), "expected seconds", "$.processes.steps[1]"),
    "gaps in disorder": (
        inside(waking=[{"gap": 0.1, "seconds": 0}, {"gap": 0.1, "seconds": 0}]), "seconds", "$.processes.waking[1].gap",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused(case: str, calibration: Calibration, plan: lpc.Plan, tmp_path: Path) -> None:
    change, message, place = WRONG[case]
    path = tmp_path / "costs.json"
    calibration.write(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(LpcError) as caught:
        read_calibration(path, plan.hash, {"B": 16})
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.place) == ("0709", f"{path}: {place}")
    assert message in problem.message
