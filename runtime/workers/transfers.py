"""What do `send`, `receive`, `offer` and `reduce` do? They give values to a rank's transport, or take them from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lpc.runtime.handlers import Binder, Operation, Section
from lpc.runtime.parts import cut
from lpc.runtime.resources import Frame
from lpc.runtime.workers.clipping import CLIPPING
from lpc.runtime.workers.transport import Stamp
from lpc.specs.plan.instructions import Offer, Receive, Reduce, Send


def _bind_send(section: Section, instruction: Send) -> Operation:
    value, rank, transport = instruction.value, instruction.rank, section.resources.transport
    state = {tensor.untyped_storage().data_ptr() for tensor in section.resources.state.own.values()}
    changes = value in section.resources.variables

    def send(frame: Frame) -> None:
        """A variable, and what shares memory with the state, is copied: it may change before it has left."""
        held = [t.clone() if changes or t.untyped_storage().data_ptr() in state else t for t in frame.env[value]]
        transport.send(rank, Stamp(frame.step, frame.part, value), held)

    return send


def _bind_receive(section: Section, instruction: Receive) -> Operation:
    value, rank, transport = instruction.value, instruction.rank, section.resources.transport

    def receive(frame: Frame) -> None:
        frame.env[value] = transport.receive(rank, Stamp(frame.step, frame.part, value))

    return receive


def reduction(value: str, ranks: Sequence[int]) -> str:
    """Return what a bundle is called on its way to the ranks that add it up: whoever does not come is told by it."""
    return f"reduce {value} over {', '.join(map(str, ranks))}"


def _bind_offer(section: Section, instruction: Offer) -> Operation:
    section.offered.add(instruction.value)
    return _offering(section, instruction.value, instruction.ranks)


def _offering(section: Section, value: str, ranks: Sequence[int]) -> Operation:
    transport, name = section.resources.transport, reduction(value, ranks)

    def offer(frame: Frame) -> None:
        for rank in ranks:
            if rank != transport.rank:
                transport.send(rank, Stamp(frame.step, frame.part, name), frame.env.get(value, []))

    return offer


def _bind_reduce(section: Section, instruction: Reduce) -> Operation:
    """Every rank gives its bundle to all others, and adds up all of them itself, in one order."""
    target, value, ranks = instruction.target, instruction.value, instruction.ranks
    transport, name = section.resources.transport, reduction(value, ranks)
    section.ports[target] = section.ports[value]
    offer = None if value in section.offered else _offering(section, value, ranks)

    def reduce(frame: Frame) -> None:
        stamp, own = Stamp(frame.step, frame.part, name), frame.env.get(value, [])
        if offer is not None:
            offer(frame)
        given = [own if rank == transport.rank else transport.receive(rank, stamp) for rank in ranks]
        frame.env[target] = added(given, frame.size, len(ranks))

    return reduce


def added(given: Iterable[list[Tensor]], size: int, count: int) -> list[Tensor]:
    """Return the sum of the bundles of `count` ranks, in order, each weighted by its shard of so many samples."""
    shares = {piece.number: piece.share for piece in cut(0, size, 1.0, count)}
    total: list[Tensor] = []
    number = -1
    for bundle in given:
        number += 1
        if bundle and total:
            torch._foreach_add_(total, bundle, alpha=shares[number])
        elif bundle:  # else it is of a shard without samples
            total = list(torch._foreach_mul(bundle, shares[number]))
        del bundle  # before the next one comes, and no counter may hold it meanwhile
    return total


TRANSFERS: dict[type, Binder] = {
    Send: _bind_send,
    Receive: _bind_receive,
    Offer: _bind_offer,
    Reduce: _bind_reduce,
    **CLIPPING,
}
