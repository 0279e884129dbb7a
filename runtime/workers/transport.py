"""What must a transport between ranks do? Carry values over edges, each in the order of its sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from lpc.specs.diagnostics import Diagnostic, LpcError

ROOM = 4  # values on an edge that nobody waits for yet
PATIENCE = 600.0  # seconds until a silent rank is given up


class Stamp(NamedTuple):
    """Which value a message holds: the step of the run, the number of the batch in it, its name."""

    step: int
    part: int
    value: str


class Transport(Protocol):
    """One rank's way to the others."""

    rank: int
    size: int

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        """Give a value to another rank; waits only where too many are on the way. The caller keeps them unchanged.

        Errors: 0681 where the other rank takes nothing for too long, 0682 where it is gone.
        """

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        """Return the next value of an edge. Errors: 0681 silence, 0682 a rank that is gone, 0683 another value."""

    def exchange(self, item: Any) -> list[Any]:
        """Give an item to all ranks and return those of all, by rank; every rank calls it equally often."""

    def close(self) -> None:
        """Leave in order: what was sent has arrived."""


class Alone:
    """The transport of a plan that is run by one process: there is nobody to talk to."""

    rank, size = 0, 1

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        raise self._lonely(f"send `{stamp.value}` to rank {to}")

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        raise self._lonely(f"receive `{stamp.value}` from rank {source}")

    def exchange(self, item: Any) -> list[Any]:
        return [item]

    def close(self) -> None:
        pass

    def _lonely(self, what: str) -> LpcError:
        return LpcError(Diagnostic("0680", f"the plan wants to {what}, and this process runs alone", place="plan"))


def silent(rank: int, peer: int, stamp: Stamp, seconds: float, sending: bool = False) -> LpcError:
    """Return the error of a rank that was waited for in vain, with edge, value and step."""
    edge = f"{rank}->{peer}" if sending else f"{peer}->{rank}"
    what = f"rank {peer} takes nothing" if sending else f"nothing came from rank {peer}"
    message = f"{what} over edge {edge} for {seconds:g} s, at `{stamp.value}` of step {stamp.step}"
    return LpcError(Diagnostic("0681", message, place=f"rank {rank}"))


def lost(rank: int, peer: int, stamp: Stamp, reason: object) -> LpcError:
    """Return the error of a rank that is gone."""
    message = f"rank {peer} is gone; rank {rank} waited for it with `{stamp.value}` of step {stamp.step}"
    return LpcError(Diagnostic("0682", message, place=f"rank {rank}", notes=(str(reason).split("\n")[0],)))


def ensure_same(rank: int, peer: int, wanted: Stamp, found: object, same: bool) -> None:
    """Refuse a value that another one was expected in place of (0683)."""
    if not same:
        message = f"rank {rank} expected `{wanted.value}` of step {wanted.step} from rank {peer}, and got {found}"
        raise LpcError(Diagnostic("0683", message, place=f"rank {rank}"))
