"""Are a rank's steps cut where it waits, is what a lag holds foreseen, and is refused what would go back too late?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import lpc
from lpc.specs.formatting import format_spec
from lpc.specs.memory.prediction import predict
from lpc.specs.plan.instructions import Call, Instruction, Lag, Offer, Receive, Reduce, Send, Update
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.verify import verify
from lpc.specs.ranks.lagging import halves
from lpc.specs.ranks.makers import flat
from lpc.specs.ranks.plan import edges_of, rank_plans, room_of
from lpc.specs.ranks.wiring import check_wiring

NET = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(6), tanh, fc2: linear(6), tanh, fc3: linear(6), tanh, out: linear(10)]
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
"""
BLOCKS = "decompose: {blocks: {b1: fc1, b2: fc2, b3: fc3, head: out}, links: LINK}\n"
VARIABLES = NET + BLOCKS.replace(", links: LINK", "") + "recipe: blockprop(steps=2)\n"
LEARN = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}]\n'
STOP = NET + BLOCKS.replace("LINK", "stop") + LEARN


def ranks_of(text: str, workers: int, run: str) -> list[Plan]:
    plan = lpc.build(f"{text}run: {{{run}}}\n")
    return rank_plans(plan.data, plan.spec, workers)


def words(body: Sequence[Instruction]) -> list[str]:
    """Return what a half does with other ranks and with weights."""
    names = {Send: "send", Receive: "receive", Update: "update", Offer: "offer", Reduce: "reduce"}
    return [names[type(one)] for one in flat(body) if type(one) in names]


def test_a_rank_waits_for_a_solved_variable_in_its_second_half() -> None:
    """The forward pass comes anew, with the weights as they are; the last rank waits for nobody's second half."""
    first, middle, last = (plan.program.step for plan in ranks_of(VARIABLES, 3, "staleness: 2"))
    early, late = halves(first)
    assert first[len(early)] == Lag(2)
    assert (words(early), words(late)) == (["send"], ["receive", "update"])
    forward = [one for one in early if isinstance(one, Call)]
    assert [one for one in late if isinstance(one, Call)][:1] == forward
    assert words(halves(middle)[0]) == ["receive", "send"]
    assert halves(last) == (last, ())


def test_without_staleness_nothing_lags() -> None:
    for own, other in zip(ranks_of(VARIABLES, 3, "staleness: 0"), ranks_of(VARIABLES, 3, "steps: 1"), strict=True):
        assert own.program == other.program
        assert not any(isinstance(one, Lag) for one in own.program.step)


def test_replicas_offer_their_sums_and_wait_later() -> None:
    plans = ranks_of(STOP, 4, "staleness: 1, replicas: 2")
    for plan, sends in zip(plans, (["send"], ["receive"]) * 2, strict=True):
        early, late = halves(plan.program.step)
        count = len(plan.program.optimizers)
        assert words(early) == [*sends, *["offer"] * count]
        assert words(late) == ["reduce", "update"] * count or words(late) == ["reduce"] * count + ["update"] * count


@pytest.mark.parametrize(("text", "workers", "run"), [(VARIABLES, 3, ""), (STOP, 4, ", replicas: 2"), (STOP, 3, "")])
def test_ranks_are_sound_and_have_room(text: str, workers: int, run: str) -> None:
    """An edge has room for the values of all steps that can have begun; what is sent is received."""
    plans = ranks_of(text, workers, "staleness: 3" + run)
    assert [problem for plan in plans for problem in verify(plan)] == []
    bodies = [plan.program.step for plan in plans]
    assert check_wiring("ranks", bodies, room_of(plans)) == []
    plain = ranks_of(text, workers, "steps: 1" + run)
    assert edges_of(plans) == edges_of(plain)
    if any(isinstance(one, Lag) for body in bodies for one in body):
        sent = max(sum(isinstance(one, Send) and one.rank == 1 for one in flat(body)) for body in bodies)
        assert room_of(plans) >= 4 * (sent + 1)
        cut = [body if rank else tuple(one for one in body if not isinstance(one, Receive | Reduce)) for rank, body in
               enumerate(bodies)]  # fmt: skip
        assert [problem.code for problem in check_wiring("ranks", cut, 99)] == ["0582"]


def test_memory_of_steps_that_have_begun() -> None:
    """What is held between the halves is there once more for each of them: the gradients of a replica."""
    totals = []
    for staleness in (1, 2, 4):
        plan = ranks_of(STOP, 2, f"staleness: {staleness}, replicas: 2")[0]
        totals.append(predict(plan.program, plan.kernels["native"], {"B": 4}).total)
    parameters = sum(6 * width + 6 for width in (64, 6, 6)) + 70 + 3 * 70
    assert totals[1] - totals[0] == 4 * parameters
    assert totals[2] - totals[1] == 2 * 4 * parameters


@pytest.mark.parametrize(
    ("text", "workers", "told"),
    [
        (NET + BLOCKS.replace("LINK", "gradient") + LEARN, 2, "the link b1 -> b2 between two ranks is `gradient`"),
        (NET + BLOCKS.replace("LINK", "target") + LEARN.replace("head: linear, loss: cross_entropy", "loss: squared"),
         2, "is `target`"),
        ("recipe: direct_feedback(optimizer=sgd)\n" + NET + BLOCKS.replace(", links: LINK", ""), 2, "is `feedback`"),
        (STOP.replace("optimizer: adam", "optimizer: adam, correct: bp_offset(period=2)"), 2, "`b1` has a correction"),
    ],
)  # fmt: skip
def test_what_would_come_back_too_late(text: str, workers: int, told: str) -> None:
    plan = lpc.build(text + "run: {staleness: 1}\n")
    assert len(rank_plans(plan.data, plan.spec, 1)) == 1
    with pytest.raises(lpc.LpcError) as caught:
        rank_plans(plan.data, plan.spec, workers)
    problem = caught.value.diagnostics[0]
    assert (problem.code, problem.span is not None) == ("0584", True)
    assert told in problem.message
    assert "other weights" in problem.notes[0]


def test_what_is_kept_for_each_sample_is_not_late() -> None:
    text = VARIABLES.replace("blockprop(steps=2)", "blockprop_cached")
    plan = lpc.build(text + "run: {staleness: 1}\n")
    with pytest.raises(lpc.LpcError, match=r"LPC0584.*variables are kept for each sample"):
        rank_plans(plan.data, plan.spec, 2)


def test_links_within_a_rank_may_go_back() -> None:
    """Gradients inside a rank, and those of replicas, are of one set of weights."""
    inside = NET + BLOCKS.replace("LINK", '{"*": gradient, "b2->b3": stop}') + LEARN
    assert len(ranks_of(inside + "", 2, 'staleness: 1, placement: {"b[12]": 0, b3: 1, head: 1}')) == 2
    assert len(ranks_of(NET + BLOCKS.replace("LINK", "gradient") + LEARN, 2, "staleness: 1, replicas: 2")) == 2


def test_it_is_a_number_of_steps() -> None:
    with pytest.raises(lpc.LpcError, match=r"LPC01\d\d"):
        lpc.check(STOP + "run: {staleness: -1}\n")
    written = STOP + "run: {steps: 1, staleness: 3}\n"
    dsl = format_spec(Path("x.yaml"), written, "dsl")
    assert "staleness 3" in dsl
    assert lpc.check(dsl) == lpc.check(written)
    assert "staleness: 3" in lpc.expand(lpc.check(written))
