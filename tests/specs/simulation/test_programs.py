"""Are the ranks of a plan simulated as they run: pieces, replicas, what is sent, and what waits for what?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lpc
from lpc.cli import main
from lpc.specs.memory.sizes import Lengths
from lpc.specs.plan.instructions import Call, Update
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.plan import rank_plans
from lpc.specs.simulation.engine import Network, Simulation
from lpc.specs.simulation.programs import simulated

SPEC = """\
network:
  inputs: {x: [8]}
  layers: [fc1: linear(8), tanh, fc2: linear(8), tanh, fc3: linear(8), tanh, out: linear(4)]
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, b3: fc3, head: out}, links: LINK}
learn: [{blocks: "*", HEAD optimizer: sgd(lr=0.1)}]
run: {RUN}
"""
VARIABLES = SPEC.partition("decompose")[0] + """\
decompose: {blocks: {b1: fc1, b2: fc2, b3: fc3, head: out}}
recipe: blockprop(steps=2)
"""
BATCH = 8


def seconds(plan: Plan, instruction: Call | Update, lengths: Lengths) -> float:
    """An eighth of a second for each sample forwards, two back, nothing for updates; a fused kernel does both."""
    if isinstance(instruction, Update):
        return 0.0
    _, _, way = instruction.kernel.rpartition(".")
    return {"forward": 1, "backward": 2, "local": 3}[way] * lengths["B"] / BATCH


def found(
    link: str, run: str, workers: int, head: str = "", handling: tuple[float, float] = (0.0, 0.0), latency: float = 0.0
) -> Simulation:
    plan = lpc.build(SPEC.replace("LINK", link).replace("RUN", run).replace("HEAD", head))
    plans = rank_plans(plan.data, plan.spec, workers)
    network = Network(latency=latency, room=64, handling=handling)
    return simulated(plans, {"B": BATCH}, seconds, network)


LOCAL = "head: linear, loss: cross_entropy,"


def test_stop_links_overlap_steps() -> None:
    one = found("stop", "seed: 0", 4, LOCAL)
    assert (one.period, one.bubble) == (pytest.approx(3.0), pytest.approx(0.0))
    assert one.traffic == 3 * BATCH * 8 * 4  # the outputs of three blocks in float32


def test_values_are_handled_by_ranks() -> None:
    """Over `stop` links a rank in the middle takes a value and gives one; backpropagation passes six, one by one."""
    for handling in ((0.25, 0.0), (0.0, 0.25 / (BATCH * 8 * 4)), (0.125, 0.125 / (BATCH * 8 * 4))):
        assert found("stop", "seed: 0", 4, LOCAL, handling).period == pytest.approx(3.5)
        assert found("gradient", "seed: 0", 4, handling=handling).period == pytest.approx(4 * 3 + 6 * 0.5)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_gradient_links_overlap_pieces(count: int) -> None:
    """1F1B on four ranks: (count + 3) turns of 3 / count seconds."""
    one = found("gradient", f"microbatches: {count}", 4)
    assert one.period == pytest.approx((count + 3) * 3 / count)
    assert one.traffic == 2 * 3 * BATCH * 8 * 4  # and their cotangents


def test_replicas_share_a_batch_and_reduce() -> None:
    two = found("stop", "replicas: 2", 2, LOCAL)
    assert two.period == pytest.approx(4 * 3 / 2)
    weights = 3 * (8 * 8 + 8) + (8 * 4 + 4)  # of the network, and of three heads
    assert two.traffic == 2 * 4 * (weights + 3 * (8 * 4 + 4))


@pytest.mark.parametrize(("staleness", "period"), [(0, 4 * 10 + 6), (1, (6 + 10) / 2), (2, 6)])
def test_late_sums_are_waited_for_together(staleness: int, period: float) -> None:
    """Four sums of 10 seconds each, one after another; or offered within 6 seconds, and added up some steps later."""
    one = found("stop", f"replicas: 2, staleness: {staleness}", 2, LOCAL, latency=10.0)
    assert one.period == pytest.approx(period)
    assert one.steps == 8 * (staleness + 1)
    assert one.traffic == found("stop", "replicas: 2", 2, LOCAL).traffic


def test_variables_that_come_back_are_waited_for_together() -> None:
    """Steps of four ranks wait for variables; with no staleness in the spec, or 0, the simulation is the same."""
    plans = {}
    for staleness in (None, 0, 1, 3):
        run = "" if staleness is None else f"run: {{staleness: {staleness}}}\n"
        built = lpc.build(VARIABLES + run)
        plans[staleness] = rank_plans(built.data, built.spec, 4)

    def told(staleness: int | None) -> Simulation:
        def each(plan: Plan, instruction: Call | Update, lengths: Lengths) -> float:
            return float(isinstance(instruction, Call))

        return simulated(plans[staleness], {"B": BATCH}, each, Network(room=64))

    assert told(0) == told(None)
    assert told(0).period > told(1).period > told(3).period >= told(3).busiest
    assert told(3).work > told(0).work  # forward passes that are run anew
    assert len({b.step for b in told(3).busy if b.rank == 0 and b.start < told(3).ends[0][0]}) == 4


def test_inspect_simulates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = lpc.build(SPEC.replace("LINK", "stop").replace("RUN", "seed: 0").replace("HEAD", LOCAL))
    plan.save(tmp_path / "x.plan")

    def inspect(*options: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(["inspect", str(tmp_path / "x.plan"), "--timeline", "--batch", "8", *options])
        assert not left.value.code
        return capsys.readouterr().out

    assert "steps on 4 processes; assumed: 10.0 Tflop/s" in inspect("--workers", "4").replace("\n", " ")
    told = json.loads(inspect("--workers", "3", "--rate", "overhead=1", "--json"))["workers"]
    assert [one["workers"] for one in told] == [1, 2, 3]
    assert told[0]["step_seconds"] == pytest.approx(8.0, rel=1e-3)  # four calls, four updates
    told = json.loads(inspect("--workers", "2", "--rate", "overhead=1", "--rate", "cores=1", "--json"))
    assert told["workers"][1]["step_seconds"] == pytest.approx(8.0, rel=1e-3)  # no gain of a core for both
    assert "which share 1 cores" in told["assumed"]
    for wrong in ("overhead=x", "speed=1", "flops=0", "cores=0", "cores=1.5", "cores=inf"):
        with pytest.raises(SystemExit) as left:
            main(["inspect", str(tmp_path / "x.plan"), "--timeline", "--workers", "2", "--rate", wrong])
        assert left.value.code == 2
        assert "--rate" in capsys.readouterr().err
