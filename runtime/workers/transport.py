"""What must a transport between ranks do? Carry values over edges, each in the order of its sends."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from lpc.specs.diagnostics import Diagnostic, LpcError

ROOM = 4  # values on an edge that nobody waits for yet
Key = tuple[int, int, int]
PATIENCE = 600.0  # seconds until a silent rank is given up
FOREVER = timedelta(days=7)  # for threads that may be idle: patience is that of whoever waits for what they bring


class Stamp(NamedTuple):
    """Which value a message holds: the step of the run, the number of the batch in it, its name.

    `version` is for steps that overlap: how many steps the weights knew that the value was made with.
    """

    step: int
    part: int
    value: str
    version: int = -1

    @property
    def key(self) -> Key:
        """What it travels as: step, part, and the name as a number."""
        return self.step, self.part, zlib.crc32(self.value.encode())

    def __str__(self) -> str:
        return f"`{self.value}`" + (f" of step {self.step}" if self.step >= 0 else "")


MEETING = Stamp(-1, 0, "a meeting of all ranks")


class Message(NamedTuple):
    """What comes over an edge."""

    key: Key
    version: int
    tensors: list[Tensor]


class GoneError(Exception):
    """The other end of an edge has left."""


class Transport(Protocol):
    """One rank's way to the others."""

    rank: int
    size: int
    patience: float

    @property
    def keeps(self) -> bool:
        """Whether what is sent has to stay as it is until the next checkpoint, and not only until it has arrived."""

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        """Give a value to another rank; waits only where too many are on the way. The caller keeps them unchanged.

        Errors: 0681 where the other rank takes nothing for too long, 0682 where it is gone.
        """

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        """Return the next value of an edge. Errors: 0681 silence, 0682 a rank that is gone, 0683 another value."""

    def settle(self, ranks: Sequence[int]) -> None:
        """Wait until what was sent to these ranks has arrived, so that nobody keeps it here. Errors: as `send`."""

    def take(self, source: int, seconds: float) -> Message | None:
        """Return the next message of an edge, None where none comes in time. Raises GoneError."""

    def exchange(self, item: Any, what: Stamp = MEETING) -> list[Any]:
        """Give an item, of what JSON has, to all ranks and return those of all, by rank; all call it equally often.

        `what` names it. Errors: 0681 and 0682, which name the ranks that have not come, or of which one has left.
        """

    @property
    def answered(self) -> bool:
        """Whether this rank has come to the next common act before, as a process whose place this one takes."""

    def lead(self, do: Callable[[], None], what: Stamp = MEETING) -> None:
        """Have rank 0 do something once, for which the others wait."""

    def commit(self, step: int, do: Callable[[], None], what: Stamp) -> None:
        """As `lead`, where it makes the checkpoint of a step durable: nobody goes back behind it any more."""

    def remember(self, step: int, item: Any) -> None:
        """Before the checkpoint of a step: keep what only this process knows for one that takes its place."""

    def remembered(self, step: int) -> Any:
        """Return what is kept so, None where there is nothing."""

    def close(self) -> None:
        """Leave in order: what was sent has arrived."""


class Together(ABC):
    """What ranks do together that also end together: no process takes the place of another."""

    rank: int
    keeps = answered = False

    @abstractmethod
    def exchange(self, item: Any, what: Stamp = MEETING) -> list[Any]:
        """See `Transport`."""

    def lead(self, do: Callable[[], None], what: Stamp = MEETING) -> None:
        if self.rank == 0:
            do()
        self.exchange(None, what)

    def commit(self, step: int, do: Callable[[], None], what: Stamp) -> None:
        self.lead(do, what)

    def remember(self, step: int, item: Any) -> None:
        return None

    def remembered(self, step: int) -> Any:
        return None


class Alone(Together):
    """The transport of a plan that is run by one process: there is nobody to talk to."""

    rank, size, patience = 0, 1, PATIENCE

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        raise self._lonely(f"send `{stamp.value}` to rank {to}")

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        raise self._lonely(f"receive `{stamp.value}` from rank {source}")

    def settle(self, ranks: Sequence[int]) -> None:
        pass

    def take(self, source: int, seconds: float) -> Message | None:
        return None

    def exchange(self, item: Any, what: Stamp = MEETING) -> list[Any]:
        return [item]

    def close(self) -> None:
        pass

    def _lonely(self, what: str) -> LpcError:
        return LpcError(Diagnostic("0680", f"the plan wants to {what}, and this process runs alone", place="plan"))


def silent(rank: int, peer: int, stamp: Stamp, seconds: float, sending: bool = False) -> LpcError:
    """Return the error of a rank that was waited for in vain, with edge, value and step."""
    edge = f"{rank}->{peer}" if sending else f"{peer}->{rank}"
    what = f"rank {peer} takes nothing" if sending else f"nothing came from rank {peer}"
    message = f"{what} over edge {edge} for {seconds:g} s, at {stamp}"
    return LpcError(Diagnostic("0681", message, place=f"rank {rank}"))


def lost(rank: int, peer: int, stamp: Stamp, reason: object) -> LpcError:
    """Return the error of a rank that is gone."""
    return _gone(rank, f"rank {peer}", stamp, reason)


def absent(rank: int, size: int, missing: Sequence[int], what: Stamp, seconds: float, reason: object) -> LpcError:
    """Return the error of a common act that failed: who has not come to it, else that it is one of the others.

    A `reason` that tells of time means silence, any other one a rank that is gone.
    """
    peers = [peer for peer in missing if peer != rank]
    others = [peer for peer in range(size) if peer != rank]
    named = peers or others
    who = f"rank{'s' if len(named) > 1 else ''} {', '.join(map(str, named))}"
    who = who if peers or len(others) == 1 else f"one of {who}"
    if not told_of_time(reason):
        return _gone(rank, who, what, reason)
    message = f"nothing came from {who} for {seconds:g} s, at {what}"
    return LpcError(Diagnostic("0681", message, place=f"rank {rank}"))


def told_of_time(reason: object) -> bool:
    """Tell whether torch gave up because nothing happened for too long."""
    return "imed out" in str(reason)


def _gone(rank: int, who: str, stamp: Stamp, reason: object) -> LpcError:
    many = who.startswith("ranks")
    message = f"{who} {'are' if many else 'is'} gone; rank {rank} waited for {'them' if many else 'it'} with {stamp}"
    return LpcError(Diagnostic("0682", message, place=f"rank {rank}", notes=(str(reason).split("\n")[0],)))


def taken(transport: Transport, source: int, stamp: Stamp) -> list[Tensor]:
    """Return the value that an edge brings next, if it is the one that is expected. Errors: see `Transport.receive`."""
    try:
        found = transport.take(source, transport.patience)
    except GoneError as error:
        raise lost(transport.rank, source, stamp, error) from None
    if found is None:
        raise silent(transport.rank, source, stamp, transport.patience)
    if found.key != stamp.key:
        message = f"rank {transport.rank} expected {stamp} from rank {source}, and got another value"
        place = f"rank {transport.rank}"
        raise LpcError(Diagnostic("0683", f"{message}, of step {found.key[0]}", place=place))
    return found.tensors
