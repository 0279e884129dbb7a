"""How do ranks of several processes talk? Over a wire for each edge, and with words in a store where all meet."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lpc.runtime.workers.keeper import Keeper
from lpc.runtime.workers.meeting import GIVEN_UP, AbsentError, Meeting, recoverable
from lpc.runtime.workers.streams import ForgottenError, Incoming, Outgoing, StaleError, Stream
from lpc.runtime.workers.supervisor import LOST, STALE
from lpc.runtime.workers.transport import (
    MEETING,
    PATIENCE,
    ROOM,
    Message,
    Stamp,
    absent,
    lost,
    silent,
    taken,
)
from lpc.runtime.workers.wire import Parcel, Wire, parcel
from lpc.specs.kept import LIMIT
from lpc.specs.ranks.wiring import Edge

ARRIVAL = Stamp(-1, 0, "the arrival of what was sent")
JOINING, LEAVING = Stamp(-1, 0, "the wiring of all ranks"), Stamp(-1, 0, "the end of all ranks")


class Gloo:
    """One rank's transport. Edges are read ahead, and sends are not waited for while an edge has room.

    Where the launcher can start a rank alone, what was sent since the last commit is kept, up to `kept` bytes, and a
    rank that dies is waited for. Errors: 0681 and 0682, ranks that do not come.
    """

    def __init__(
        self, edges: Iterable[Edge], device: torch.device, meeting: Meeting, patience: float = PATIENCE,
        room: int = ROOM, kept: int = LIMIT,
    ) -> None:
        self.rank, self.size, self.patience, self.meeting = meeting.rank, meeting.size, patience, meeting
        self.device, self.limit, self.held = device, kept, 0
        self.known: set[int] = set()  # the memory of which `held` are the bytes
        self.edges = [edge for edge in edges if self.rank in edge]
        self.out = {target: Outgoing(room) for source, target in self.edges if source == self.rank}
        self.incoming = {
            source: Incoming(room, f"edge from rank {source}", partial(self._bury, source))
            for source, target in self.edges if target == self.rank
        }  # fmt: skip
        self.keeper = Keeper(meeting.store, self.rank, self.size, self._renew) if meeting.renewable else None
        self.begun = False
        self.direct: set[int] = set()  # ranks to which memory goes from GPU to GPU
        self._join_all()
        if self.keeper is not None:
            self.keeper.start()

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        sent, meeting = parcel(stamp, tensors, to in self.direct), self.meeting
        new = self._sending(to, stamp, lambda stream: stream.send(sent, self.patience))
        if new and meeting.behind:
            meeting.catch_up()
        if meeting.keeps:
            self._hold(sent)
            if self.held > self.limit:
                self._give_up()

    def settle(self, ranks: Sequence[int]) -> None:
        for to in () if self.meeting.keeps else ranks:
            if to != self.rank:
                self._sending(to, ARRIVAL, lambda stream: stream.settle(self.patience))

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        return taken(self, source, stamp)

    def take(self, source: int, seconds: float) -> Message | None:
        return self.incoming[source].take(seconds)

    def exchange(self, item: Any, what: Stamp = MEETING) -> list[Any]:
        return list(self._together(lambda: self.meeting.exchange(item, self.patience), what))

    @property
    def keeps(self) -> bool:
        return self.meeting.keeps

    @property
    def answered(self) -> bool:
        return self.meeting.answered()

    def lead(self, do: Callable[[], None], what: Stamp = MEETING) -> None:
        self._together(lambda: self.meeting.lead(do, self.patience), what)

    def commit(self, step: int, do: Callable[[], None], what: Stamp) -> None:
        meeting = self.meeting
        self._together(lambda: meeting.commit(step, do, self.patience), what)
        first = not self.begun
        if first:
            self.begun, meeting.keeps = True, meeting.renewable and self.limit > 0
        for stream in self._streams():
            stream.commit(step, meeting.keeps)
        self.held = 0
        self.known.clear()
        if first and meeting.keeps:
            meeting.tell(recoverable(self.rank))

    def remember(self, step: int, item: Any) -> None:
        if self.meeting.renewable:
            self.meeting.remember(step, item)
        for stream in self._streams():
            stream.complete()

    def remembered(self, step: int) -> Any:
        return self.meeting.remembered(step)

    def close(self) -> None:
        for target in self.out:
            self._sending(target, LEAVING, lambda stream: stream.end(self.patience))
        for source, incoming in self.incoming.items():
            if not incoming.ended.wait(self.patience):
                raise silent(self.rank, source, LEAVING, self.patience)
        self.exchange(None, LEAVING)
        if self.keeper is not None:
            self.keeper.end()

    def _join_all(self) -> None:
        """Make the wires of all edges: with those that begin as well in one order, else as the others come."""
        if self.meeting.incarnation:
            for edge in self.edges:
                self._join_anew(edge)
            return
        for edge in self.edges:
            try:
                self._stream(edge).start(self._wire(edge, (0, 0)))
            except RuntimeError as error:
                raise absent(self.rank, self.size, [self._peer(edge)], JOINING, self.patience, error) from None

    def _renew(self, rank: int) -> None:
        for edge in self.edges:
            if rank in edge:
                self._join_anew(edge)

    def _join_anew(self, edge: Edge) -> None:
        threading.Thread(target=self._rejoin, args=(edge,), name=f"edge {edge} anew", daemon=True).start()

    def _rejoin(self, edge: Edge) -> None:
        """Join an edge to a process that is, or has been, started again. Where it dies as well, there will be news."""
        assert self.keeper is not None
        times = self.keeper.times[edge[0]], self.keeper.times[edge[1]]
        try:
            self._stream(edge).adopt(self._wire(edge, times), sum(times), self.patience)
        except StaleError:
            leave(STALE, f"rank {self.rank} begins again at a newer checkpoint")
        except ForgottenError:
            leave(LOST, str(lost(self.rank, self._peer(edge), JOINING, "what it lacks is not kept")))
        except (RuntimeError, TimeoutError) as error:
            self._stream(edge).error = error

    def _wire(self, edge: Edge, times: tuple[int, int]) -> Wire:
        name = f"edge {edge[0]}>{edge[1]} {times[0]}.{times[1]}"
        found = Wire(self.meeting.store.clone(), name, edge.index(self.rank), self.device, self.patience)
        self.direct |= {self._peer(edge)} if found.lane is not None else set()
        return found

    def _stream(self, edge: Edge) -> Any:
        return self.out[edge[1]] if edge[0] == self.rank else self.incoming[edge[0]]

    def _streams(self) -> list[Stream]:
        return [*self.out.values(), *self.incoming.values()]

    def _peer(self, edge: Edge) -> int:
        return edge[1] if edge[0] == self.rank else edge[0]

    def _sending(self, to: int, stamp: Stamp, act: Callable[[Outgoing], Any]) -> Any:
        try:
            return act(self.out[to])
        except TimeoutError:
            raise silent(self.rank, to, stamp, self.patience, sending=True) from None
        except RuntimeError as error:
            raise lost(self.rank, to, stamp, error) from None

    def _together(self, act: Callable[[], Any], what: Stamp) -> Any:
        try:
            return act()
        except AbsentError as error:
            raise absent(self.rank, self.size, error.missing, what, self.patience, error.reason) from None

    def _bury(self, rank: int, error: BaseException) -> None:
        self.meeting.bury(rank, str(error).split("\n")[0])

    def _hold(self, sent: Parcel) -> None:
        """Count what is kept now: memory that is sent to several ranks, or twice, once."""
        for memory in (payload.untyped_storage() for payload in sent.payloads):
            if memory.data_ptr() not in self.known:
                self.known.add(memory.data_ptr())
                self.held += memory.nbytes()

    def _give_up(self) -> None:
        """Keep no more: there is too much of it."""
        reason = f"rank {self.rank} sends more than {self.limit / 2**20:g} MiB from one checkpoint to the next"
        self.meeting.keeps = False
        self.meeting.tell(GIVEN_UP, reason)
        print(f"{reason}: it is not kept any more, and when a process dies all begin again", file=sys.stderr)
        for stream in self._streams():
            stream.forget()


def leave(code: int, message: str) -> None:
    """End this process, from whichever thread: what its main thread waits for will not come."""
    print(message, file=sys.stderr, flush=True)
    os._exit(code)
