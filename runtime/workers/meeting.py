"""How do ranks do something together? Each puts its word into a store that all of them reach, and reads the others'.

A word has the number of its act, counted from the last checkpoint that is committed, and stays there until the next
one. So a process that takes the place of a dead one, and goes over its steps again, finds what others said when they
came there, and what its predecessor said is not said twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NoReturn

from lpc.runtime.workers.store import awaited

START = -1  # what is said before any checkpoint
SAID, GONE = "=", "!"  # how a word begins: of a rank, and of others about one that is gone
COMMITTED = "committed at"  # when all that was done before became durable, in seconds since 1970
GIVEN_UP = "given up"  # why no rank can be started again alone any more


def recoverable(rank: int) -> str:
    """Return what a rank sets once it could be started again alone."""
    return f"recoverable {rank}"


def stepped(rank: int, incarnation: int) -> str:
    """Return what a process sets after its first step."""
    return f"stepped {rank}.{incarnation}"


def caught_up(rank: int, incarnation: int) -> str:
    """Return what a process sets when it does the first thing that its predecessors had not done."""
    return f"caught up {rank}.{incarnation}"


class AbsentError(Exception):
    """A common act to which not all ranks have come. `missing` are those that have not, where it is known."""

    def __init__(self, missing: list[int], reason: str) -> None:
        super().__init__(reason)
        self.missing, self.reason = missing, reason


class Meeting:
    """One rank's words. `store` is any store of torch.distributed that all ranks reach.

    `incarnation` counts the processes that were this rank before. `renewable`: who has started this process can start
    a rank alone.
    """

    def __init__(self, store: Any, rank: int, size: int, incarnation: int = 0, renewable: bool = False) -> None:
        self.store, self.rank, self.size = store, rank, size
        self.incarnation, self.renewable = incarnation, renewable
        self.scope, self.ordinal = START, 0
        self.again = incarnation > 0  # what comes next may have been said already
        self.behind = self.again  # nothing was done yet that an earlier process had not done
        self.keeps = False  # words are kept for a process that goes over them again
        self.said: list[tuple[int, str]] = []  # scope and key
        self.turn = threading.Lock()
        self.gone: dict[int, str] = {}
        self.awaited: Mapping[int, str] = {}

    def exchange(self, item: Any, patience: float) -> list[Any]:
        """Give an item, of what JSON has, to all ranks and return those of all, by rank. Raises AbsentError."""
        prefix = self._next()
        keys = {rank: f"{prefix}/{rank}" for rank in range(self.size)}
        if not self.is_known(keys[self.rank]):
            self.store.set(keys[self.rank], SAID + json.dumps(item))
        words = self._wait(keys, patience)
        self._forget()
        self.said.append((self.scope, keys[self.rank]))
        return [json.loads(word[1:]) for word in words]

    def answered(self) -> bool:
        """Tell whether this rank's word for the next act is there: an earlier process had come to it."""
        return self.again and (self.scope == START or self.is_known(f"{self._prefix()}/{self.rank}"))

    def lead(self, do: Callable[[], None], patience: float) -> None:
        """Have rank 0 do something, once; the others wait until it is done. Raises AbsentError."""
        if self.again and self.scope == START:
            return
        key = f"{self._next()}/0"
        self._follow(key, do, patience)
        self.said.append((self.scope, key))

    def commit(self, step: int, do: Callable[[], None], patience: float) -> None:
        """Have rank 0 do what makes a checkpoint durable; from here on, acts are counted anew. Raises AbsentError."""
        key = f"committed/{step}"
        self._follow(key, do, patience)
        if self.rank == 0:
            self.said.append((step, key))
            self.tell(COMMITTED, str(time.time()))
        self.scope, self.ordinal = step, 0

    def remember(self, step: int, item: Any) -> None:
        """Keep what only this process knows, for one that takes its place after the checkpoint of a step."""
        key = self._memory(step)
        self.store.set(key, json.dumps(item))
        self.said.append((step, key))

    def remembered(self, step: int) -> Any:
        """Return what an earlier process of this rank has kept, None where there is nothing."""
        key = self._memory(step)
        return json.loads(self.store.get(key)) if self.again and self.store.check([key]) else None

    def is_known(self, key: str) -> bool:
        """Tell whether an earlier process of this rank has set a key: words are in order, and after a new one all are.

        Messages say nothing of words: one that was sent before a word may have been lost with the process.
        """
        if self.again and not self.store.check([key]):
            self.again = False
            self.catch_up()
        return self.again

    def catch_up(self) -> None:
        """Tell who has started this process, once, that it does what its predecessors had not done."""
        if self.behind:
            self.behind = False
            self.tell(caught_up(self.rank, self.incarnation))

    def tell(self, key: str, word: str = "yes") -> None:
        """Leave a word for who has started this process."""
        self.store.set(key, word)

    def bury(self, rank: int, reason: str) -> None:
        """Let nobody wait for the words of a rank that is gone; another thread than that of the words calls this."""
        with self.turn:
            self.gone[rank] = reason
            if rank in self.awaited:
                self._speak_for(rank, self.awaited[rank])

    def _speak_for(self, rank: int, key: str) -> None:
        client = self.store.clone()  # a client is one connection, and one operation waits on it
        client.compare_set(key, "", GONE + self.gone[rank])

    def _prefix(self) -> str:
        return f"{self.scope}/{self.ordinal}"

    def _next(self) -> str:
        found = self._prefix()
        self.ordinal += 1
        return found

    def _memory(self, step: int) -> str:
        return f"memory/{step}/{self.rank}"

    def _follow(self, key: str, do: Callable[[], None], patience: float) -> None:
        if self.rank:
            self._wait({0: key}, patience)
        elif not self.is_known(key):
            do()
            self.store.set(key, SAID + json.dumps(None))

    def _wait(self, keys: Mapping[int, str], patience: float) -> list[str]:
        """Return the words of some ranks, once all are there."""
        with self.turn:
            self.awaited = keys
            for rank in self.gone.keys() & keys.keys():
                self._speak_for(rank, keys[rank])
        try:
            found = awaited(self.store, [*keys.values()], timedelta(seconds=patience))
        except RuntimeError as error:
            self._tell_missing(keys, error)
        finally:
            with self.turn:
                self.awaited = {}
        words = [word.decode() for word in found]
        absent = [rank for rank, word in zip(keys, words, strict=True) if word.startswith(GONE)]
        if absent:
            raise AbsentError(absent, words[[*keys].index(absent[0])][1:])
        return words

    def _tell_missing(self, keys: Mapping[int, str], error: RuntimeError) -> NoReturn:
        try:
            missing = [rank for rank, key in keys.items() if not self.store.check([key])]
        except RuntimeError:  # the store is gone
            raise AbsentError([], str(error)) from None
        raise AbsentError(missing, "timed out" if missing else str(error)) from None

    def _forget(self) -> None:
        """Remove words that nobody reads any more: all have come to a later act, or past a later checkpoint."""
        old = [(scope, key) for scope, key in self.said if scope < self.scope or not self.keeps]
        for entry in old:
            self.store.delete_key(entry[1])
            self.said.remove(entry)
