"""Do simulated pipelines take the times that can be reckoned by hand?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpc.specs.simulation.engine import (
    Compute,
    Done,
    Give,
    LockedError,
    Mark,
    Network,
    Pick,
    Simulation,
    Take,
    Work,
    simulate,
)


def run(bodies: list[list[Work]], steps: int = 6, network: Network | None = None) -> Simulation:
    def program(body: list[Work]) -> Iterator[Work]:
        for _ in range(steps):
            yield from body
            yield Done()

    return simulate([program(body) for body in bodies], network or Network())


def forward_only(times: list[float], size: float = 0.0) -> list[list[Work]]:
    """Each stage computes on what the one before it gives, and nothing comes back."""
    last = len(times) - 1
    return [
        [*([Take(k - 1)] if k else []), Compute(time, f"b{k}"), *([Give(k + 1, size)] if k < last else [])]
        for k, time in enumerate(times)
    ]


def one_f_one_b(stages: int, count: int, forward: float, backward: float) -> list[list[Work]]:
    """The usual schedule of backpropagation in micro-batches, written down step by step."""
    bodies: list[list[Work]] = []
    for k in range(stages):
        ahead, body = min(stages - 1 - k, count), list[Work]()

        def go(k: int = k) -> list[Work]:
            return [*([Take(k - 1)] if k else []), Compute(forward), *([Give(k + 1, 0)] if k < stages - 1 else [])]

        def back(k: int = k) -> list[Work]:
            return [*([Take(k + 1)] if k < stages - 1 else []), Compute(backward), *([Give(k - 1, 0)] if k else [])]

        for turn in range(count + ahead):
            body += go() if turn < count else []
            body += back() if turn >= ahead else []
        bodies.append(body)
    return bodies


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=6))
def test_a_forward_only_pipeline_is_as_fast_as_its_slowest_stage(times: list[float]) -> None:
    found = run(forward_only(times), network=Network(room=32))
    assert found.first == pytest.approx(sum(times))
    assert found.period == pytest.approx(max(times))
    assert found.bubble == pytest.approx(1 - sum(times) / (max(times) * len(times)))


@pytest.mark.parametrize(("stages", "count"), [(2, 4), (4, 4), (4, 16), (8, 32)])
def test_one_f_one_b(stages: int, count: int) -> None:
    """(count + stages - 1) turns of forward and backward; the bubble is (stages - 1) of them."""
    found = run(one_f_one_b(stages, count, 1.0, 2.0), steps=4, network=Network(room=stages))
    assert found.period == pytest.approx((count + stages - 1) * 3.0)
    assert found.bubble == pytest.approx((stages - 1) / (count + stages - 1))


def test_who_has_waited_is_slow_at_first() -> None:
    """Two ranks in turn, 2 and 4 seconds: each waits while the other computes, then has half a second more a second."""
    waking = ((1.0, 0.25), (3.0, 1.25))
    bodies: list[list[Work]] = [[Compute(2.0), Give(1, 0), Take(1)], [Take(0), Compute(4.0), Give(0, 0)]]
    found = run(bodies, network=Network(waking=waking))
    assert found.first == pytest.approx(2.0 + 4.0 + 0.75)  # the second one has waited two seconds
    assert found.period == pytest.approx(2.0 + 1.25 + 4.0 + 1.25)  # and later three, as the first one does


@pytest.mark.parametrize(("cores", "period"), [(2, 4.0), (3, 5.0)])
def test_a_core_that_was_never_idle_is_not_slow(cores: int, period: float) -> None:
    """Two ranks in turn beside one that computes all the time: on two cores whoever goes on has a busy one's."""
    in_turn: list[list[Work]] = [[Compute(2.0), Give(1, 0), Take(1)], [Take(0), Compute(2.0), Give(0, 0)]]
    speeds = tuple(min(1.0, cores / working) for working in (1, 2, 3))
    found = run([*in_turn, [Compute(4.0)]], network=Network(waking=((2.0, 0.5),), speeds=speeds))
    assert found.period == pytest.approx(period)


def test_without_pieces_backpropagation_gains_nothing() -> None:
    assert run(one_f_one_b(4, 1, 1.0, 2.0)).period == pytest.approx(12.0)


def test_values_take_their_time() -> None:
    """100 bytes at 50 a second and a latency of 1: 3 seconds more for the first step, and the line is the limit."""
    found = run(forward_only([1.0, 1.0], 100), network=Network(latency=1.0, bandwidth=50.0))
    assert found.first == pytest.approx(1 + 3 + 1)
    assert found.period == pytest.approx(2.0)
    assert found.traffic == 100


@pytest.mark.parametrize(("room", "ahead"), [(1, 1), (3, 3)])
def test_an_edge_that_is_full_is_waited_for(room: int, ahead: int) -> None:
    """The first rank is at most `room` values ahead of a slow second one, and one more that it cannot give yet."""
    found = run(forward_only([1.0, 10.0]), network=Network(room=room))
    assert found.ends[0][ahead - 1] == pytest.approx(ahead)
    taken = [10.0 * index + 1 for index in range(6)]  # when the second rank takes each value
    assert found.ends[0][ahead + 1] == pytest.approx(max(ahead + 2, taken[1]))
    assert found.period == pytest.approx(10.0)


@pytest.mark.parametrize(("cores", "period"), [(1, 4.0), (2, 2.0), (4, 1.0), (0, 1.0)])
def test_ranks_share_cores(cores: int, period: float) -> None:
    network = Network(speeds=cores * (1.0,))
    assert run([[Compute(1.0)] for _ in range(4)], network=network).period == pytest.approx(period)


def test_ranks_take_turns_on_a_core_until_the_shorter_work_is_done() -> None:
    """Two seconds of turns for one second of each; the second that is left has the core to itself."""
    found = run([[Compute(1.0)], [Compute(2.0)]], steps=1, network=Network(speeds=(1.0,)))
    assert [end for (end,) in found.ends] == pytest.approx([2.0, 3.0])


def test_cores_are_slower_while_all_of_them_work() -> None:
    """At .8 of the speed for 2.5 s, which does 2 of 2 and 2 of 3; the last second of work is done at full speed."""
    found = run([[Compute(2.0)], [Compute(3.0)]], steps=1, network=Network(speeds=(1.0, 0.8)))
    assert [end for (end,) in found.ends] == pytest.approx([2.5, 3.5])


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=8), st.integers(1, 4))
def test_cores_do_all_the_work_and_stand_still_only_where_there_is_none(times: list[float], cores: int) -> None:
    """Work that begins together: by the shortest first, the rest shares the cores (processor sharing)."""
    found = run([[Compute(time)] for time in times], steps=1, network=Network(speeds=cores * (1.0,)))
    now, done, left = 0.0, 0.0, sorted(times)
    for index, time in enumerate(left):
        working = len(left) - index
        now, done = now + (time - done) * max(working / cores, 1.0), time
        assert sorted(end for (end,) in found.ends)[index] == pytest.approx(now)


def begins(count: int, staleness: int, first: float, second: float) -> Iterator[Work]:
    """Begin so many more steps while what the other rank makes of an earlier one is not there."""
    begun: list[int] = []
    for step in [*range(count), count]:
        while begun:
            pick = Pick(((1, f"back {begun[0]}"),), ())
            if len(begun) <= staleness and step < count:
                yield pick
                if not pick.late:
                    break
            yield from (Take(1, f"back {begun.pop(0)}"), Compute(second), Done())
        if step < count:
            begun.append(step)
            yield from (Compute(first, ahead=step - begun[0]), Give(1, 0, f"there {step}"), Mark(1, f"{step}"))


def answers(count: int, seconds: float) -> Iterator[Work]:
    for step in range(count):
        yield from (Take(0, f"there {step}"), Compute(seconds), Give(0, 0, f"back {step}"), Done())


def overlapped(staleness: int, first: float, second: float, answer: float, latency: float) -> Simulation:
    count = 16 * (staleness + 1)
    programs = [begins(count, staleness, first, second), answers(count, answer)]
    return simulate(programs, Network(latency=latency, room=64))


@pytest.mark.parametrize(("staleness", "period"), [(0, 9.0), (1, 4.5), (2, 3.0), (5, 3.0)])
def test_steps_begin_while_others_are_on_their_way(staleness: int, period: float) -> None:
    """1 second, 2 there, 3 to be answered, 2 back, 1 second: in turns of all that may be under way, or as fast as it is
    answered."""
    found = overlapped(staleness, 1.0, 1.0, 3.0, 2.0)
    assert found.period == pytest.approx(period)
    assert [b.step for b in found.busy if b.rank == 0 and b.start < 4] == list(range(min(staleness + 1, 4)))


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0, 6), st.integers(0, 4))
def test_staleness_is_worth_no_more_than_what_is_waited_for(
    first: float, second: float, answer: float, latency: float, staleness: int
) -> None:
    """A turn is no shorter than its way there and back, and no longer than in order; it is as short where who begins is
    not the slower one, which has to choose what to do."""
    way = first + second + answer + 2 * latency
    found = overlapped(staleness, first, second, answer, latency).period
    least = max(first + second, answer, way / (staleness + 1))
    assert least * (1 - 1e-9) <= found <= way * (1 + 1e-9)
    if first + second <= answer or not staleness:
        assert found == pytest.approx(least)


def test_a_mark_comes_after_what_was_given_before() -> None:
    """100 bytes at 50 a second; what waits for the mark, or for a value that is never given, goes on then."""

    def waits() -> Iterator[Work]:
        pick = Pick(((0, "never"),), ((0, "all"),))
        yield pick
        assert not pick.late
        yield from (Take(0, "a"), Done())

    given = [Give(1, 100, "a"), Mark(1, "all"), Done()]
    found = simulate([iter(given), waits()], Network(latency=1.0, bandwidth=50.0))
    assert found.ends == ((0.0,), (3.0,))


def test_ranks_that_wait_for_each_other_are_told() -> None:
    with pytest.raises(LockedError, match="rank 0 waits for ever"):
        run([[Take(1), Give(1, 0)], [Take(0), Give(0, 0)]])


def test_the_same_programs_give_the_same_times() -> None:
    bodies, network = one_f_one_b(6, 12, 0.7, 1.3), Network(1e-3, 1e3, 6, (1.0, 0.9))
    assert run(bodies, network=network) == run(bodies, network=network)
