"""Does the check of transfers find each send without its receive, and each circle of ranks that wait?"""

from __future__ import annotations

import pytest

from lpc.specs.plan.instructions import Every, Instruction, Receive, Repeat, Send
from lpc.specs.ranks.wiring import check_wiring, edges

Body = tuple[Instruction, ...]


def told(*bodies: Body, room: int = 1) -> list[tuple[str, str]]:
    return [(d.code, d.message) for d in check_wiring("test", bodies, room)]


def test_a_chain_is_sound() -> None:
    bodies: list[Body] = [(Send("a", 1),), (Receive("a", 0), Send("b", 2)), (Receive("b", 1),)]
    assert told(*bodies) == []
    assert edges(bodies) == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("bodies", "code", "words"),
    [
        (((Send("a", 1),), ()), "0582", "rank 0 sends `a` to rank 1, which does not receive it"),
        (((), (Receive("a", 0),)), "0582", "rank 0 is done, and others wait for it: rank 1 at `a = receive from 0`"),
        (((Send("a", 1),), (Receive("b", 0),)), "0582", "rank 1 receives `b` where rank 0 sends `a`"),
        (((Send("a", 2),), ()), "0582", "the other ranks are 0 to 1"),
        (((Send("a", 0),), ()), "0582", "rank 0 has `send a to 0`"),
        (
            ((Receive("b", 1), Send("a", 1)), (Receive("a", 0), Send("b", 0))),
            "0583",
            "ranks wait for each other: rank 0 at `b = receive from 1`, rank 1 at `a = receive from 0`",
        ),
    ],
)
def test_what_does_not_meet(bodies: tuple[Body, ...], code: str, words: str) -> None:
    ((found, message),) = told(*bodies)
    assert found == code
    assert words in message


def test_room_on_an_edge_decides() -> None:
    first: Body = (Send("a", 1), Send("b", 1), Receive("c", 1))
    second: Body = (Send("c", 0), Receive("a", 0), Receive("b", 0))
    full: Body = (Send("c", 0), Send("d", 0), Receive("a", 0), Receive("b", 0))
    assert told(first, second) == []
    assert told((*first, Receive("d", 1)), full)[0][0] == "0583"
    assert told((*first, Receive("d", 1)), full, room=2) == []


def test_bodies_are_followed() -> None:
    sends: Body = (Repeat(3, (Send("a", 1),)), Every(2, (Send("b", 1),)))
    assert told(sends, (Repeat(3, (Receive("a", 0),)), Every(2, (Receive("b", 0),)))) == []
    assert told(sends, (Receive("a", 0), Every(2, (Receive("b", 0),))))[0][0] == "0582"
    assert told(sends, (Repeat(3, (Receive("a", 0),)), Receive("b", 0)))[0][0] == "0582"
