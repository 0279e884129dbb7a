"""What do `lend`, `gather` and `reduce_scatter` do? They give ranks parts of parameters and of gradients, or take them.

Parts of parameters are lent as they are, without a copy: they change only after all who gather them have given the
gradients that they computed with them (see `specs.ranks.scatters.ensure_taken`). Where they may have to be sent again
later, they are copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lpc.runtime.handlers import Binder, Operation, Section
from lpc.runtime.resources import Frame
from lpc.runtime.workers.transfers import TRANSFERS, added, reduction
from lpc.runtime.workers.transport import Stamp, Transport
from lpc.specs.plan.instructions import Gather, Lend, ReduceScatter
from lpc.specs.plan.plan import Shard, StateEntry
from lpc.specs.plan.shards import sharded
from lpc.specs.ranks.wiring import parameters


def _bind_lend(section: Section, instruction: Lend) -> Operation:
    resources, name, ranks = section.resources, parameters(instruction.block), instruction.ranks
    transport = resources.transport
    own = [resources.state[entry.name].detach() for entry in sharded(resources.program, instruction.block)]

    def lend(frame: Frame) -> None:
        held = [part.clone() for part in own] if transport.keeps else own
        for rank in ranks:
            transport.send(rank, Stamp(frame.step, frame.part, name), held)

    return lend


def _bind_gather(section: Section, instruction: Gather) -> Operation:
    resources, value, ranks = section.resources, instruction.value, instruction.ranks
    entries, name = sharded(resources.program, instruction.block), parameters(instruction.block)
    section.ports[value] = tuple(entry.name for entry in entries)
    own = {entry.name: resources.state[entry.name].detach() for entry in entries}

    def gather(frame: Frame) -> None:
        stamp = Stamp(frame.step, frame.part, name)
        frame.env[value] = gathered(entries, own, resources.program.shards, ranks, resources.transport, stamp)

    return gather


def gathered(
    entries: Sequence[StateEntry],
    own: Mapping[str, Tensor],
    shards: Mapping[str, Shard],
    ranks: Sequence[int],
    transport: Transport,
    stamp: Stamp,
) -> list[Tensor]:
    """Return what each rank has its part of, whole and in the shapes of the entries; others' parts come one by one."""
    wholes = [own[e.name].new_empty([int(axis) for axis in e.type.shape]) for e in entries]
    for index, rank in enumerate(ranks):
        mine = rank == transport.rank
        spans = [slice(*shards[e.name].bounds[index : index + 2]) for e in entries]
        _fill(wholes, spans, [own[e.name] for e in entries] if mine else transport.receive(rank, stamp))
    return wholes


def _fill(wholes: Sequence[Tensor], spans: Sequence[slice], parts: Sequence[Tensor]) -> None:
    for whole, span, part in zip(wholes, spans, parts, strict=True):
        whole.view(-1)[span].copy_(part)


def _bind_reduce_scatter(section: Section, instruction: ReduceScatter) -> Operation:
    """Every rank gives each other one that one's part of its bundle, and adds up its own part in one order."""
    target, value, ranks = instruction.target, instruction.value, instruction.ranks
    resources, name = section.resources, reduction(value, ranks)
    transport, owner = resources.transport, resources.state.owner
    section.ports[target] = section.ports[value]
    shards = [resources.program.shards.get(owner.get(source, source)) for source in section.ports[value]]

    def reduce_scatter(frame: Frame) -> None:
        stamp, bundle = Stamp(frame.step, frame.part, name), frame.env.get(value, [])
        flat = [t if shard is None else t.reshape(-1) for t, shard in zip(bundle, shards, strict=False)]
        for index, rank in enumerate(ranks):
            if rank != transport.rank:
                part = _part(flat, shards, index)
                transport.send(rank, stamp, [t.clone() for t in part] if transport.keeps else part)
        own = _part(flat, shards, ranks.index(transport.rank))
        given = (own if rank == transport.rank else transport.receive(rank, stamp) for rank in ranks)
        frame.env[target] = added(given, frame.symbols.get("B", 1), len(ranks))
        transport.settle(ranks)  # the bundle would else stay until later values have left

    return reduce_scatter


def _part(flat: Sequence[Tensor], shards: Sequence[Shard | None], index: int) -> list[Tensor]:
    """Return a rank's part of a bundle: of what is not sharded, all of it."""
    pairs = zip(flat, shards, strict=False)
    return [t if shard is None else t[slice(*shard.bounds[index : index + 2])] for t, shard in pairs]


BETWEEN_RANKS: dict[type, Binder] = {
    **TRANSFERS,
    Lend: _bind_lend,
    Gather: _bind_gather,
    ReduceScatter: _bind_reduce_scatter,
}
