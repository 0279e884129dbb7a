"""Does the board of a launcher keep what it is told, and answer when it can?"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from lpc.runtime.workers.board import HOST, Board
from lpc.runtime.workers.store import Client, address, reach, serve

SOON, LONG = timedelta(seconds=0.1), timedelta(seconds=20)


@pytest.fixture
def board() -> Iterator[Board]:
    found = serve()
    yield found
    found.close()


@pytest.fixture
def store(board: Board) -> Client:
    return reach(address(board), LONG)


def test_values_are_those_that_were_set(store: Client) -> None:
    """Text and bytes, also those that gloo gives."""
    raw = bytes(range(256))
    store.set("text", "Gänse\n")
    store.set("bytes", raw)
    assert [store.get("text").decode(), store.get("bytes")] == ["Gänse\n", raw]
    store.compare_set("text", "", "another")
    store.compare_set("new", "", "another")
    assert store.multi_get(["new", "text"]) == [b"another", "Gänse\n".encode()]
    store.delete_key("new")
    assert [store.check(["new"]), store.check(["text", "bytes"]), store.check(["text", "new"])] == [False, True, False]


def test_parts_are_apart(store: Client) -> None:
    store.part("1").set("key", "one")
    store.part("2").part("x").set("key", "two")
    assert [store.get("1/key"), store.part("2").get("x/key"), store.check(["key"])] == [b"one", b"two", False]


def test_who_waits_is_answered_when_all_is_there(store: Client) -> None:
    found: list[list[bytes]] = []
    keys = ["a", "b", "c"]
    waiting = [threading.Thread(target=lambda: found.append(store.clone().awaited(keys, LONG))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    for key in ("c", "a", "b"):
        assert found == []
        time.sleep(0.02)
        store.set(key, key.upper())
    for thread in waiting:
        thread.join(20)
    assert found == [[b"A", b"B", b"C"]] * 3


def test_what_does_not_come_is_not_taken_for_what_comes_next(store: Client) -> None:
    with pytest.raises(RuntimeError, match="timed out waiting for late"):
        store.wait(["late"], SOON)
    store.set("late", "now")
    store.set("other", "too")
    assert store.get("other") == b"too"


def test_nonsense_harms_nobody(board: Board, store: Client) -> None:
    store.set("key", "value")
    for words in (b"GET / HTTP/1.1\n", b'["jump", 1]\n', b'["wait"]\n', b'["set", "key"]\n', b"7\n"):
        with socket.create_connection((HOST, board.port), 5) as visitor:
            visitor.sendall(words)
            assert visitor.recv(1) == b""  # let go
    assert store.get("key") == b"value"


def test_a_board_that_is_gone_is_told(board: Board, store: Client) -> None:
    store.set("key", "value")
    assert store.get("key") == b"value"
    waiting = threading.Timer(0.1, board.close)
    waiting.start()
    with pytest.raises(RuntimeError, match="the launcher is gone"):
        store.wait(["never"], LONG)
    waiting.join()
    with pytest.raises(RuntimeError, match="the launcher is gone"):
        store.get("key")
