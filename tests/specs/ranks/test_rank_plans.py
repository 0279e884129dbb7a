"""Is each rank's plan sound in itself, and does each instruction of the plan stand on the rank of its block?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import lpc
from lpc.cli import main
from lpc.specs.diagnostics import LpcError
from lpc.specs.memory.prediction import predict
from lpc.specs.model import Spec
from lpc.specs.plan.instructions import (
    Adopt,
    Call,
    Clip,
    Instruction,
    Later,
    Random,
    Record,
    Reduce,
    Scale,
    Send,
    Update,
    Write,
)
from lpc.specs.plan.parse import parse
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.text import sections_of
from lpc.specs.plan.verify import verify
from lpc.specs.ranks.makers import flat
from lpc.specs.ranks.plan import edges_of, holders, rank_plans, ranks_text

NET = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(8), norm1: batch_norm, relu, dropout(0.2), fc2: linear(8), relu, out: linear(10)]
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
"""
BLOCKS = "decompose: {blocks: {b1: [fc1, norm1], b2: fc2, head: out}, links: LINK}\n"
LOCAL = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}]\n'
SPECS = {
    "local": BLOCKS.replace("LINK", "stop") + LOCAL,
    "supervised": BLOCKS.replace("LINK", "gradient") + LOCAL,
    "summed": BLOCKS.replace("LINK", "gradient") + LOCAL + "run: {memory: summed}\n",
    "accumulated": BLOCKS.replace("LINK", "stop") + LOCAL + "run: {accumulate: 2}\n",
    "pieces": BLOCKS.replace("LINK", "gradient") + LOCAL + "run: {microbatches: 4}\n",
    "corrected": BLOCKS.replace("LINK", "stop") + LOCAL.replace("adam}", "adam, correct: bp_offset(period=2)}"),
    "phased": BLOCKS.replace("LINK", "stop")
    + LOCAL
    + "readouts: {probe: {from: [b1, b2], optimizer: adam}}\n"
    + "run: {phases: [{train: b1, steps: 2}, {train: [b2, head, probe], steps: 2}]}\n",
}
EFFECTS = (Call, Random, Update, Write, Record)


@pytest.fixture(scope="module", params=SPECS)
def plan(request: pytest.FixtureRequest) -> lpc.Plan:
    return lpc.build(NET + SPECS[request.param])


def instructions(plan: Plan) -> list[Instruction]:
    program = plan.program
    return [i for body in (*program.steps, program.evaluate, program.predict) for i in flat(body)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_ranks_divide_a_plan(plan: lpc.Plan, workers: int) -> None:
    plans = rank_plans(plan.data, plan.spec, workers)
    assert len(plans) == workers
    assert [problem for own in plans for problem in verify(own)] == []
    whole = Counter(i for i in instructions(plan.data) if isinstance(i, EFFECTS) and not isinstance(i, Random))
    parts = Counter(i for p in plans for i in instructions(p) if isinstance(i, EFFECTS) and not isinstance(i, Random))
    assert parts == whole
    states = [set(own.program.state) for own in plans]
    assert set.union(*states) == set(plan.data.program.state)
    assert sum(map(len, states)) == len(plan.data.program.state)
    assert edges_of(plans) == sorted(edges_of(plans))


def test_a_rank_holds_what_its_blocks_need(plan: lpc.Plan) -> None:
    first, second = rank_plans(plan.data, plan.spec, 2)
    assert holders([first, second])[0] == ["b1"]
    assert list(first.program.optimizers) == ["b1"]
    assert set(second.program.optimizers) >= {"b2", "head"}
    assert {kernel.block for kernel in first.kernels["native"].values()} == {"b1"}


def test_memory_of_a_rank_is_predicted(plan: lpc.Plan) -> None:
    lengths = {"B": 4}
    whole = predict(plan.data.program, plan.data.kernels["native"], lengths)
    found = [predict(p.program, p.kernels["native"], lengths) for p in rank_plans(plan.data, plan.spec, 2)]
    assert all(0 < memory.total < whole.total for memory in found)


def test_ranks_text_can_be_read(plan: lpc.Plan) -> None:
    plans = rank_plans(plan.data, plan.spec, 3)
    texts = ranks_text(plans).split("# rank ")[1:]
    assert [text.partition(":")[0] for text in texts] == ["0 of 3", "1 of 3", "2 of 3"]
    for own, text in zip(plans, texts, strict=True):
        assert parse(text.partition("\n")[2]) == sections_of(own.program)


def test_inspect_prints_them(plan: lpc.Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.save(tmp_path / "x.plan")
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(tmp_path / "x.plan"), "--ranks", "2"])
    assert not left.value.code
    assert capsys.readouterr().out == ranks_text([own.data for own in plan.ranks(2)])


def test_a_variable_is_sent_whenever_it_has_changed() -> None:
    """Solved on the rank that reads it; in a loop the other ranks get it in every turn."""
    chain = NET.replace("norm1: batch_norm, relu, dropout(0.2)", "tanh")
    links = 'decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: {"*": {variable: {sweep: jacobi, steps: 3}}}}\n'
    plan = lpc.build(chain + links + 'learn: [{blocks: "*", optimizer: sgd}]\n')
    plans = rank_plans(plan.data, plan.spec, 3)
    assert [list(own.program.variables) for own in plans] == [[], ["b1->b2"], ["b2->head"]]
    assert [problem for own in plans for problem in verify(own)] == []
    sent = [(i.value, i.rank) for i in instructions(plans[2]) if isinstance(i, Send) and i.value == "b2->head"]
    assert sent == [("b2->head", 1)] * 4  # begun, stepped once, in the loop, solved


def test_backward_waits_for_as_many_pieces_as_ranks_are_behind() -> None:
    """1F1B over gradient links, no wait over stop links, and on one rank the plan as it is."""
    text = NET + BLOCKS.replace("LINK", '{"b1->b2": gradient, "b2->head": LINK}') + LOCAL + "run: {microbatches: 4}\n"
    turns = {}
    for link in ("gradient", "stop"):
        plans = rank_plans(*_data(text.replace("LINK", link)), 3)
        assert [problem for own in plans for problem in verify(own)] == []
        turns[link] = [[i.turns for i in instructions(own) if isinstance(i, Later)] for own in plans]
    assert turns == {"gradient": [[2], [1], []], "stop": [[1], [], []]}


def test_replicas_share_their_sums() -> None:
    plan, spec = _data(NET + BLOCKS.replace("LINK", "stop") + LOCAL + "run: {replicas: 2, accumulate: 2}\n")
    plans = rank_plans(plan, spec, 4)
    assert [holders(plans)[rank] for rank in (0, 1)] == [holders(plans)[rank] for rank in (2, 3)]
    assert [{i.ranks for i in instructions(own) if isinstance(i, Reduce)} for own in plans] == [
        {(0, 2)}, {(1, 3)}, {(0, 2)}, {(1, 3)},
    ]  # fmt: skip
    assert [any(isinstance(i, Adopt) for i in instructions(own)) for own in plans] == [True, False, False, False]
    assert edges_of(plans) == [(0, 1), (0, 2), (1, 0), (1, 2), (1, 3), (2, 0), (2, 3), (3, 1)]
    assert [problem for own in plans for problem in verify(own)] == []
    assert [len(rank_plans(plan, spec, workers)) for workers in (1, 3)] == [1, 3]  # where the mesh has one replica


def test_replicas_share_no_buffer_that_is_computed_with() -> None:
    plan, spec = _data(NET + BLOCKS.replace("LINK", "stop") + LOCAL + "run: {replicas: 2}\n")
    kernel = plan.kernels["native"]["b1.local"]
    nodes = [replace(n, args=tuple(False if a is True else a for a in n.args)) for n in kernel.nodes]
    kernels = {**plan.kernels["native"], "b1.local": replace(kernel, nodes=tuple(nodes))}
    with pytest.raises(LpcError, match=r"`norm1\.running_mean` of block `b1` changes in a step"):
        rank_plans(replace(plan, kernels={"native": kernels}), spec, 2)


def test_replicas_share_no_statistics_that_a_later_phase_computes_with() -> None:
    """A frozen block takes the running statistics, which the first replica alone has kept."""
    run = "run: {replicas: 2, workers: 1, phases: [{train: b1, steps: 2}, {train: [b2, head], steps: 2}]}\n"
    plan, spec = _data(NET + BLOCKS.replace("LINK", "stop") + LOCAL + run)
    with pytest.raises(LpcError, match=r"`norm1\.running_mean` of block `b1` changes in a step"):
        rank_plans(plan, spec, 2)
    assert len(rank_plans(plan, spec, 3)) == 3


def _data(text: str) -> tuple[Plan, Spec]:
    plan = lpc.build(text)
    return plan.data, plan.spec


def test_one_rank_is_the_plan_itself() -> None:
    plan = lpc.build(NET + SPECS["local"])
    (only,) = rank_plans(plan.data, plan.spec, 1)
    assert only.program.step == plan.data.program.step


def test_the_whole_norm_is_put_together_from_those_of_ranks() -> None:
    plan = lpc.build(NET + SPECS["supervised"] + "run: {clip: 1.0}\n")
    (clip,) = [i for i in plan.data.program.step if isinstance(i, Clip)]
    found = rank_plans(plan.data, plan.spec, 2)
    scales = [one for own in found for one in own.program.step if isinstance(one, Scale)]
    assert {value for one in scales for value in one.gradients} == set(clip.gradients)
    assert scales[0].norms == scales[1].norms
    assert not any(isinstance(one, Clip) for own in found for one in own.program.step)
