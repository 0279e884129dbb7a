"""Does a process go on in the place of another one, and when may it? Over gloo, with all ranks in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lpc.runtime.workers.gloo import Gloo
from lpc.runtime.workers.keeper import announce
from lpc.runtime.workers.meeting import COMMITTED, GIVEN_UP, Meeting, caught_up, recoverable
from lpc.runtime.workers.store import Client, address, reach, serve
from lpc.runtime.workers.supervisor import FRUITLESS, LOST, MISTAKE, STALE, Supervisor
from lpc.runtime.workers.transport import Stamp
from lpc.runtime.workers.wire import Wire
from lpc.specs.memory.outbox import LIMIT

PATIENCE = 20.0
EDGES = [(0, 1), (1, 0)]
START = Stamp(-1, 0, "the start of the run")


@pytest.fixture
def store() -> Iterator[Client]:
    board = serve()
    yield reach(address(board), timedelta(seconds=PATIENCE))
    board.close()


def transport(store: Client, rank: int, life: int = 0, kept: int = LIMIT) -> Gloo:
    return Gloo(EDGES, torch.device("cpu"), Meeting(store.clone(), rank, 2, life, True), PATIENCE, kept=kept)


def both(*acts: Callable[[], Any]) -> list[Any]:
    """Do what two ranks do together."""
    found: list[Any] = [None] * len(acts)

    def run(number: int) -> None:
        found[number] = acts[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return found


def begun(one: Gloo, step: int = 0, known: Any = None, done: Callable[[], None] = lambda: None) -> Gloo:
    """Begin at a checkpoint, or come to one, as a run does."""
    one.remember(step, known)
    one.commit(step, done, START)
    return one


def die(one: Gloo) -> None:
    """Fall silent, as a process that is killed."""
    assert one.keeper is not None
    one.keeper.end()
    for stream in one._streams():
        assert isinstance(stream.wire, Wire)
        stream.wire.group.abort()


def send(one: Gloo, *steps: int) -> None:
    for step in steps:
        one.send(1 - one.rank, Stamp(step, 0, "h"), [torch.full((3,), float(step))])


def receive(one: Gloo, *steps: int) -> list[float]:
    return [one.receive(1 - one.rank, Stamp(step, 0, "h"))[0][0].item() for step in steps]


def arrived(one: Gloo, count: int) -> None:
    """Wait until so many messages are there, taken or not."""
    deadline = time.monotonic() + PATIENCE
    while one.incoming[1 - one.rank].count < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def joined(*ranks: Gloo) -> None:
    """Wait until all edges are made anew, for the first time."""
    deadline = time.monotonic() + PATIENCE
    while not all(s.wire is not None and s.generation == 1 for one in ranks for s in one._streams()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_process_goes_on_in_the_place_of_another_one(store: Client) -> None:
    """It sends what is missing and no more, gets what it had got, and hears what was said."""
    ranks = both(*(lambda rank=rank: begun(transport(store, rank), known=f"of {rank}") for rank in (0, 1)))
    zero, one = ranks
    send(zero, 0, 1, 2)
    send(one, 0, 1)
    assert receive(one, 0, 1) == [0, 1]
    assert receive(zero, 0) == [0]
    assert both(*(lambda o=o: o.exchange({"rank": o.rank}) for o in ranks)) == [[{"rank": 0}, {"rank": 1}]] * 2

    arrived(zero, 2)
    die(one)
    announce(store, 2, 0, 1, 1)  # as the launcher does
    again = transport(store, 1, 1)
    assert again.remembered(0) == "of 1"
    again.commit(0, lambda: None, START)
    assert again.answered
    send(again, 0, 1)
    assert receive(again, 0, 1) == [0, 1]
    assert again.exchange({"rank": "another"}) == [{"rank": 0}, {"rank": 1}]
    assert not store.check([caught_up(1, 1)])
    send(again, 2)
    store.wait([caught_up(1, 1)], timedelta(seconds=PATIENCE))
    send(zero, 3)
    assert receive(again, 2, 3) == [2, 3]
    assert receive(zero, 1, 2) == [1, 2]

    ranks = [zero, again]
    both(*(lambda o=o: begun(o, 4) for o in ranks))
    die(zero)
    announce(store, 2, 1, 0, 1)  # after a commit, the other rank
    send(again, 4)
    late = begun(transport(store, 0, 1), 4)
    assert receive(late, 4) == [4]
    both(late.close, again.close)


def test_a_word_stands_though_a_message_before_it_is_lost(store: Client) -> None:
    """As far as the new process can know, its predecessor had not sent it: it sends it, and repeats no word."""
    ranks = both(*(lambda rank=rank: begun(transport(store, rank)) for rank in (0, 1)))
    said = both(*(lambda o=o: o.exchange({"rank": o.rank}) for o in ranks))
    die(ranks[1])
    announce(store, 2, 0, 1, 1)
    again = transport(store, 1, 1)
    again.commit(0, lambda: None, START)
    send(again, 0)
    assert receive(ranks[0], 0) == [0]
    assert again.answered
    assert again.exchange({"rank": "another"}) == said[0]
    both(ranks[0].close, again.close)


def test_what_is_done_once_is_not_done_again(store: Client) -> None:
    done: list[str] = []
    ranks = both(*(lambda rank=rank: begun(transport(store, rank)) for rank in (0, 1)))
    both(*(lambda o=o: o.lead(lambda: done.append("led")) for o in ranks))
    die(ranks[0])
    announce(store, 2, 0, 0, 1)
    again = transport(store, 0, 1)
    again.lead(lambda: done.append("tidied"), START)  # before there was a checkpoint
    again.commit(0, lambda: done.append("committed"), START)
    again.lead(lambda: done.append("led"))
    assert done == ["led"]
    joined(again, ranks[1])  # in a run all have come to a checkpoint before it is committed
    both(*(lambda o=o: begun(o, 3, done=lambda: done.append("committed")) for o in (again, ranks[1])))
    assert done == ["led", "committed"]
    both(*(lambda o=o: o.exchange(None) for o in (again, ranks[1])))
    keys = ("0/0/0", "committed/0", "committed/3", "3/0/1")
    assert [store.check([key]) for key in keys] == [False, False, True, True]  # what is behind all is gone
    both(again.close, ranks[1].close)


def test_more_than_may_be_kept(store: Client, capsys: pytest.CaptureFixture[str]) -> None:
    ranks = both(*(lambda rank=rank: begun(transport(store, rank, kept=30)) for rank in (0, 1)))
    send(ranks[0], 0, 1)
    assert not store.check([GIVEN_UP])
    send(ranks[0], 2)
    told = "rank 0 sends more than 2.86102e-05 MiB from one checkpoint to the next"
    assert store.get(GIVEN_UP).decode() == told
    assert capsys.readouterr().err.count(told) == 1
    assert (ranks[0].out[1].log, ranks[0].out[1].keeps, ranks[1].out[0].keeps) == ([], False, True)
    both(lambda: receive(ranks[1], 0, 1, 2))
    both(*(one.close for one in ranks))


# (exit codes of three ranks, what else holds) -> why none is started again alone, None if it is
CASES: list[tuple[list[int | None], dict[str, Any], str | None]] = [
    ([None, -9, None], {}, None),
    ([-15, None, -9], {}, None),
    ([None, STALE, None], {}, None),
    ([None, LOST, None], {}, ""),
    ([None, MISTAKE, None], {}, ""),
    ([-9, -9, -9], {}, ""),
    ([0, -9, None], {}, ""),
    ([None, -9, None], {"patience": None}, ""),
    ([None, -9, None], {"used": 20}, ""),
    ([None, -9, None], {"orphaned": True}, ""),
    ([None, -9, None], {"ready": 2}, ""),
    ([None, -9, None], {"given_up": "rank 2 sends too much"}, "rank 2 sends too much"),
    ([None, -9, None], {"fruitless": FRUITLESS}, "rank 1 died 3 times without a step"),
    ([None, -9, None], {"age": 40}, "the last checkpoint is 40 s old, and the others wait for 60 s"),
]


@pytest.mark.parametrize(("codes", "else_", "wanted"), CASES)
def test_when_a_rank_is_started_again_alone(
    store: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    codes: list[int | None], else_: dict[str, Any], wanted: str | None,
) -> None:  # fmt: skip
    supervisor = Supervisor([], 3, tmp_path, out=StringIO(), patience=else_.get("patience", 60.0))
    supervisor.store, supervisor.used = store, else_.get("used", 0)
    supervisor.fruitless = [0, else_.get("fruitless", 0), 0]
    supervisor.processes = [
        SimpleNamespace(poll=lambda code=code: code, orphaned=else_.get("orphaned", False)) for code in codes
    ]  # type: ignore[misc]
    for rank in range(else_.get("ready", 3)):
        store.set(recoverable(rank), "yes")
    store.set(COMMITTED, "1000.0")
    if "given_up" in else_:
        store.set(GIVEN_UP, else_["given_up"])
    monkeypatch.setattr("time.time", lambda: 1000.0 + else_.get("age", 1))
    assert supervisor.hindrance(supervisor.ended()) == wanted


@pytest.mark.parametrize("late", [False, True])
def test_who_needs_those_that_have_ended_begins_again_with_them(store: Client, tmp_path: Path, late: bool) -> None:
    """It had died when all had come to the end; who has caught up needs nobody."""
    supervisor = Supervisor([], 2, tmp_path, out=StringIO(), patience=60.0)
    supervisor.store, supervisor.times, supervisor.since, supervisor.behind = store, [0, 1], {}, {1: 0.0}
    codes = iter([None] * 5 + [0] * 9)
    supervisor.processes = [
        SimpleNamespace(poll=lambda: 0), SimpleNamespace(poll=lambda: next(codes)),
    ]  # type: ignore[list-item]  # fmt: skip
    if not late:
        store.set(caught_up(1, 1), "yes")
    assert supervisor.watch() == (LOST if late else 0)
