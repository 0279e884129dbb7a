"""What is a rank's plan that holds parts of its blocks' parameters, and which blocks are not sharded?"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

import lpc
from lpc.cli import main
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.instructions import Call, Free, Gather, Lend, Reduce, ReduceScatter
from lpc.specs.plan.parse import parse
from lpc.specs.plan.plan import Plan, Shard
from lpc.specs.plan.shards import UNIT, cuts, held
from lpc.specs.plan.text import sections_of
from lpc.specs.plan.verify import verify
from lpc.specs.ranks.gathers import transfers
from lpc.specs.ranks.makers import flat
from lpc.specs.ranks.plan import edges_of, ranks_text, room_of
from lpc.specs.ranks.shardable import shared_blocks
from lpc.specs.ranks.wiring import check_wiring
from lpc.specs.simulation.engine import Network
from lpc.specs.simulation.programs import Rates, estimated, simulated

NET = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(24), tanh, fc2: linear(24), tanh, out: linear(10)]
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: LINK}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: OPTIMIZER}]
run: {replicas: 2, RUN}
"""


def text(link: str = "stop", optimizer: str = "adam", run: str = "shard: true") -> str:
    return NET.replace("LINK", link).replace("OPTIMIZER", optimizer).replace("RUN", run)


@pytest.fixture(scope="module", params=["shard: true", "shard: true, microbatches: 3", "shard: 'b*', accumulate: 2"])
def plan(request: pytest.FixtureRequest) -> lpc.Plan:
    return lpc.build(text("gradient", run=request.param))


@pytest.mark.parametrize("workers", [2, 4])
def test_rank_plans_are_sound(plan: lpc.Plan, workers: int) -> None:
    """Each verifies, its text can be read, its block is whole for a while only, and the ranks' transfers meet."""
    plans = [own.data for own in plan.ranks(workers)]
    assert [problem for own in plans for problem in verify(own)] == []
    for own, told in zip(plans, ranks_text(plans).split("# rank ")[1:], strict=True):
        assert parse(told.partition("\n")[2]) == sections_of(own.program)
        whole = [i for i in flat(own.program.step) if isinstance(i, Gather | Free)]
        alive: set[str] = set()
        for one in whole:
            alive = alive | {one.value} if isinstance(one, Gather) else alive - set(one.values)
            assert len({value for value in alive if ".gathered" in value}) <= 1
        sums = [i for i in flat(own.program.step) if isinstance(i, Reduce | ReduceScatter)]
        assert {type(i) for i in sums} <= {ReduceScatter, Reduce}
        assert all(isinstance(i, ReduceScatter) == i.value.startswith(blocks(own)) for i in sums)
    bodies = [own.program.step for own in plans]
    assert check_wiring("step", bodies, room_of(plans)) == []
    assert {(a, b) for a, b in edges_of(plans) if a % (workers // 2) == b % (workers // 2)}


def blocks(plan: Plan) -> tuple[str, ...]:
    return tuple({plan.program.state[name].block for name in plan.program.shards})


def test_a_rank_holds_its_part(plan: lpc.Plan) -> None:
    first, second = (own.data.program for own in plan.ranks(2))
    assert first.shards.keys() == second.shards.keys() >= {"fc1.weight", "fc2.weight"}
    assert first.shards["fc1.weight"] == Shard((0, 768, 1536), 0)
    assert second.shards["fc1.weight"] == Shard((0, 768, 1536), 1)
    assert "fc1.bias" not in first.shards  # too small to be cut between units
    assert [held(p)["fc2.weight"].shape for p in (first, second)] == [(256,), (320,)]
    assert all(own.data.program.shards == {} for own in plan.ranks(3))  # no multiple of the replicas


def test_inspect_tells_the_memory_of_each(
    plan: lpc.Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan.save(tmp_path / "x.plan")
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(tmp_path / "x.plan"), "--ranks", "2", "--memory", "--json"])
    assert not left.value.code
    found = [one["total"] for one in json.loads(capsys.readouterr().out)]
    assert found == [own.memory().total for own in plan.ranks(2)]
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "x.plan"), "--ranks", "2", "--memory"])
    assert "rank 1 of 2" in capsys.readouterr().out


def test_a_lend_that_is_missing_is_told(plan: lpc.Plan) -> None:
    first, second = (own.data.program.step for own in plan.ranks(2))

    def mute(body: tuple[object, ...]) -> tuple[object, ...]:
        kept = (one for one in body if not isinstance(one, Lend))
        return tuple(replace(i, body=mute(i.body)) if hasattr(i, "body") else i for i in kept)  # type: ignore[type-var]

    (problem,) = check_wiring("step", [first, mute(second)], 8)  # type: ignore[list-item]
    assert problem.code in ("0582", "0583")
    assert "the parameters of b1" in problem.message


def test_a_piece_without_samples_meets_the_others(plan: lpc.Plan) -> None:
    (part,) = [i for i in flat(plan.ranks(2)[0].data.program.step) if type(i).__name__ == "Part"][-1:]
    kinds = (Lend, Gather, ReduceScatter)
    left = [i for i in flat(transfers(part.body)) if isinstance(i, kinds)]  # type: ignore[union-attr]
    assert left == [i for i in flat(part.body) if isinstance(i, kinds)]  # type: ignore[union-attr]
    assert not any(isinstance(i, Call) for i in flat(transfers(part.body)))  # type: ignore[union-attr]


def test_forged_shards_are_told(plan: lpc.Plan) -> None:
    """0565: of what is no parameter, not all of it, in other parts than the instructions say, or where it is read."""
    own = plan.ranks(2)[0].data

    def told(name: str, shard: Shard, of: Plan = own) -> set[str]:
        forged = replace(of, program=replace(of.program, shards={**of.program.shards, name: shard}))
        return {problem.message for problem in verify(forged) if problem.code == "0565"}

    assert any("no parameter" in one for one in told("fc9", Shard((0, 1), 0)))
    assert any("not all of it" in one for one in told("fc1.weight", Shard((0, 8, 16), 0)))
    assert any("not in order" in one for one in told("fc1.weight", Shard((0, 1536, 1536), 0)))
    assert any("none of number 2" in one for one in told("fc1.weight", Shard((0, 768, 1536), 2)))
    assert any("has 3 parts" in one for one in told("fc1.weight", Shard((0, 8, 16, 1536), 0)))
    assert any("has a part of it" in one for one in told("fc1.weight", Shard((0, 768, 1536), 0), plan.data))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (text("gradient", run="shard: true, clip: 1.0"), "`clip` takes the norm of the whole gradient"),
        (text(optimizer="adafactor", run="shard: true, workers: 1"), "`adafactor` of block `b1` does not step each"),
    ],
)
def test_what_needs_more_than_a_part_is_refused(changed: str, says: str) -> None:
    """Also where the spec asks for one process: the number of processes is no part of a plan."""
    with pytest.raises(LpcError) as caught:
        lpc.build(changed)
    found = [problem for problem in caught.value.diagnostics if problem.code == "0585"]
    assert says in found[0].message
    assert found[0].span is not None
    assert found[0].span.line == 9


def test_each_reason_is_told(plan: lpc.Plan) -> None:
    """Optimizers that know more than a number, norms, tensors of several names or blocks, narrow types."""
    program = plan.data.program
    entry, adam = program.state["fc1.weight"], program.optimizers["b1"]
    states = {
        "`fc1.weight` of block `b1` is shared with `fc2.weight`": replace(entry, aliases=("fc2.weight",)),
        "`fc1.weight` of block `b2` is shared with `block b1`": replace(entry, block="b2"),
        "`fc1.weight` of block `b1` is of type bfloat16": replace(entry, type=replace(entry.type, dtype="bfloat16")),
    }
    optimizers = {
        "`kfac` of block `b1` does not step each number": replace(adam, name="kfac"),
        "`torch.optim:SGD` of block `b1` is not known to step": replace(adam, name="torch.optim:SGD"),
        "`muon` of block `b1` does not step each number": replace(adam, outer="muon"),
        "`clip` of block `b1` takes the norm of its gradient": replace(adam, clip=1.0),
    }
    forged = {says: replace(program, state={**program.state, "fc1.weight": e}) for says, e in states.items()}
    forged |= {says: replace(program, optimizers={**program.optimizers, "b1": o}) for says, o in optimizers.items()}
    for says, changed in forged.items():
        with pytest.raises(LpcError) as caught:
            shared_blocks(replace(plan.data, program=changed), plan.spec)
        assert [problem.code for problem in caught.value.diagnostics] == ["0585"]
        assert says in caught.value.diagnostics[0].message


@pytest.mark.parametrize(("size", "count"), [(256, 2), (257, 2), (1000, 3), (7 * 128 + 1, 4), (128 * 5, 5)])
def test_parts_are_of_whole_units_and_about_equal(size: int, count: int) -> None:
    bounds = cuts(size, count)
    assert bounds is not None
    assert (bounds[0], bounds[-1], len(bounds)) == (0, size, count + 1)
    sizes = [b - a for a, b in itertools.pairwise(bounds)]
    assert all(own > 0 for own in sizes)
    assert max(sizes) - min(sizes) <= 2 * UNIT
    assert all(bound % UNIT == 0 for bound in bounds[:-1])
    assert cuts(UNIT * count - 1, count) is None


def test_the_simulation_knows_the_traffic() -> None:
    """Of parameters the own part goes to the other rank, and of gradients its part; small ones are whole."""
    plans = [own.data for own in lpc.build(text()).ranks(2)]
    found = simulated(plans, {"B": 8}, estimated(Rates()), Network(), steps=1)
    program = plans[0].program
    small = sum(4 * prod(e.type.shape) for name, e in program.state.items() if name not in program.shards)
    parts = [4 * sum(s.bounds[i + 1] - s.bounds[i] for s in program.shards.values()) for i in range(2)]
    assert found.sent == {(0, 1): sum(parts) + small, (1, 0): sum(parts) + small}
