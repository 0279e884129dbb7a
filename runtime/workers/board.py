"""Where do workers of one machine leave words for each other? On a board in their launcher: keys and values.

torch has a store for this (torchrun's workers use it). It looks up the name of each address that connects to it, and as
long as a name server does not answer, five seconds and more, it serves nobody; here nothing is looked up.

A request is a line of JSON: `["set", KEY, VALUE]`, `["offer", KEY, VALUE]`, which changes nothing that is there,
`["delete", KEY]`, and `["wait", KEYS]` and `["find", KEYS]`, which are answered by a line with the values: when all are
there, or at once, with null for what is not.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
MOST = 2**16  # bytes that are read at a time
DEAF = 5.0  # seconds until a visitor that takes no answer, as it is stopped, is given up


@dataclass
class _Visitor:
    """A connection: what has come of its next line, and the keys that it waits for."""

    socket: socket.socket
    begun: bytes = b""
    awaited: list[str] = field(default_factory=list)


class Board:
    """Serves at a free port of this machine, in a thread, until it is closed."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0), backlog=1024)
        self.port: int = self.listener.getsockname()[1]
        self.values: dict[str, str] = {}
        self.waiting: dict[str, list[_Visitor]] = {}  # key that is not there -> who waits for it next
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.bell, self.button = socket.socketpair()
        self.selector.register(self.bell, selectors.EVENT_READ)
        threading.Thread(target=self._serve, name="board", daemon=True).start()

    def close(self) -> None:
        """Serve nobody any more."""
        self.button.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.bell:
                    self._leave()
                    return
                if key.fileobj is self.listener:
                    self._welcome()
                else:
                    self._hear(key.data)

    def _leave(self) -> None:
        for key in [*self.selector.get_map().values()]:
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()

    def _welcome(self) -> None:
        connection, _ = self.listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(DEAF)
        self.selector.register(connection, selectors.EVENT_READ, _Visitor(connection))

    def _hear(self, visitor: _Visitor) -> None:
        """Do what is asked; who leaves, or says what nobody understands, is let go."""
        try:
            came = visitor.socket.recv(MOST)
            *lines, visitor.begun = (visitor.begun + came).split(b"\n")
            for line in lines:
                word, *details = json.loads(line)
                WORDS[word](self, visitor, *details)
        except (OSError, ValueError, KeyError, TypeError):
            came = b""
        if not came:
            self.selector.unregister(visitor.socket)
            visitor.socket.close()

    def _set(self, _: _Visitor, key: str, value: str) -> None:
        self.values[key] = value
        for visitor in self.waiting.pop(key, ()):
            self._answer(visitor)

    def _offer(self, visitor: _Visitor, key: str, value: str) -> None:
        if key not in self.values:
            self._set(visitor, key, value)

    def _delete(self, _: _Visitor, key: str) -> None:
        self.values.pop(key, None)

    def _wait(self, visitor: _Visitor, keys: list[str]) -> None:
        visitor.awaited = keys
        self._answer(visitor)

    def _answer(self, visitor: _Visitor) -> None:
        missing = next((key for key in visitor.awaited if key not in self.values), None)
        if missing is None:
            self._find(visitor, visitor.awaited)
        else:
            self.waiting.setdefault(missing, []).append(visitor)

    def _find(self, visitor: _Visitor, keys: list[str]) -> None:
        found: list[Any] = [self.values.get(key) for key in keys]
        with suppress(OSError):  # it has left
            visitor.socket.sendall(json.dumps(found).encode() + b"\n")


WORDS: dict[str, Callable[..., None]] = {
    "set": Board._set, "offer": Board._offer, "delete": Board._delete, "wait": Board._wait, "find": Board._find,
}  # fmt: skip
