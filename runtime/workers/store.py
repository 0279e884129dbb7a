"""How do workers reach the place where they meet? The board of their launcher, or the store that torchrun serves."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed

from lpc.runtime.workers.board import HOST, Board

_dist: Any = torch.distributed  # which does not declare its stores
_Store: Any = _dist.Store


class Client(_Store):  # type: ignore[misc]
    """A store of torch.distributed that is a board. `prefix` is put before all keys.

    A client has one connection, and one operation waits on it. Values are text, or bytes as gloo gives them. Errors:
    RuntimeError where the board is gone, or what is waited for does not come in time.
    """

    def __init__(self, port: int, limit: timedelta, prefix: str = "") -> None:
        super().__init__()
        self.port, self.limit, self.prefix = port, limit, prefix
        self.turn = threading.Lock()
        self.socket: socket.socket | None = None
        self.stream: Any = None

    def __del__(self) -> None:
        self._hang_up()

    def clone(self) -> Client:
        """Return another client, with a connection of its own."""
        return Client(self.port, self.limit, self.prefix)

    def part(self, name: str) -> Client:
        """Return a client of a part of the board."""
        return Client(self.port, self.limit, f"{self.prefix}{name}/")

    def set(self, key: str, value: str | bytes) -> None:
        self._say("set", self.prefix + key, _text(value))

    def compare_set(self, key: str, expected: str, value: str) -> None:
        assert not expected
        self._say("offer", self.prefix + key, _text(value))

    def delete_key(self, key: str) -> None:
        self._say("delete", self.prefix + key)

    def check(self, keys: Sequence[str]) -> bool:
        return None not in self._ask("find", keys, self.limit)

    def wait(self, keys: Sequence[str], limit: timedelta | None = None) -> None:
        self._ask("wait", keys, limit or self.limit)

    def get(self, key: str) -> bytes:
        return self.multi_get([key])[0]

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        return self.awaited(keys, self.limit)

    def awaited(self, keys: Sequence[str], limit: timedelta) -> list[bytes]:
        """Return values once all are there."""
        return [value.encode("latin-1") for value in self._ask("wait", keys, limit)]

    def _say(self, *words: Any) -> None:
        with self.turn:
            self._send(words)

    def _ask(self, word: str, keys: Sequence[str], limit: timedelta) -> list[Any]:
        with self.turn:
            self._send((word, [self.prefix + key for key in keys]), limit)
            try:
                line = self.stream.readline()
            except TimeoutError:
                self._hang_up()  # the answer may come yet, and nobody would want it
                raise RuntimeError(f"timed out waiting for {', '.join(keys)}") from None
            except OSError:
                line = b""
            if not line:
                self._hang_up()
                raise RuntimeError("the launcher is gone")
            return list(json.loads(line))

    def _send(self, words: Sequence[Any], limit: timedelta | None = None) -> None:
        try:
            if self.socket is None:
                self.socket = socket.create_connection((HOST, self.port), self.limit.total_seconds())
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.stream = self.socket.makefile("rb")
            self.socket.settimeout((limit or self.limit).total_seconds())
            self.socket.sendall(json.dumps(words).encode() + b"\n")
        except OSError as error:
            self._hang_up()
            raise RuntimeError(f"the launcher is gone: {error}") from None

    def _hang_up(self) -> None:
        if self.socket is not None:
            self.stream.close()
            self.socket.close()
            self.socket = None


def serve() -> Board:
    """Return a new board, at a free port of this machine."""
    return Board()


def address(board: Board) -> str:
    """Return where a board is served."""
    return f"{HOST}:{board.port}"


def reach(where: str, limit: timedelta) -> Client:
    """Return a client of a board."""
    return Client(int(where.rpartition(":")[2]), limit)


def elsewhere(limit: timedelta) -> Any:
    """Return a client of the store that torchrun serves."""
    store, _, _ = next(_dist.rendezvous("env://", timeout=limit))
    store.set_timeout(limit)
    return _dist.PrefixStore("lpc", store)


def awaited(store: Any, keys: Sequence[str], limit: timedelta) -> list[bytes]:
    """Return the values of any store once all are there. Raises RuntimeError where they do not come in time."""
    if isinstance(store, Client):
        return store.awaited(keys, limit)
    store.wait([*keys], limit)
    return list(store.multi_get([*keys]))


def _text(value: str | bytes) -> str:
    """Return bytes as a text of as many characters, which JSON has."""
    return (value.encode() if isinstance(value, str) else value).decode("latin-1")
