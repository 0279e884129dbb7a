"""Is what ranks do together sound in itself? Each names other ranks once, and gives what it has.

Whether the ranks' programs fit together: see `specs.ranks.wiring`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lpc.specs.plan.instructions import (
    Gather,
    Lend,
    Norms,
    Offer,
    Receive,
    Reduce,
    ReduceScatter,
    Scale,
    Send,
    word,
)
from lpc.specs.plan.plan import Program
from lpc.specs.plan.shards import sharded
from lpc.specs.plan.values import ANYTHING, Value

Together = Reduce | ReduceScatter | Offer | Lend | Gather


class Frame(Protocol):
    """One body of instructions: see `lifetimes`."""

    sums: set[str]


class Checker(Protocol):
    """What is known of a section so far: see `lifetimes`."""

    program: Program
    values: dict[str, Value]

    @property
    def frames(self) -> Sequence[Frame]: ...

    def tell(self, code: str, message: str, *notes: str | None) -> None: ...

    def use(self, name: str, taker: str, what: str) -> Value | None: ...

    def define(self, name: str, value: Value) -> None: ...


def _reduce(checker: Checker, reduce: Reduce | ReduceScatter | Offer) -> None:
    value = checker.use(reduce.value, "reduce", f"`{word(type(reduce))}`")
    _ranks(checker, reduce)
    if not isinstance(reduce, Offer):
        checker.define(reduce.target, value or Value(ANYTHING))
    if isinstance(reduce, ReduceScatter):
        _parts(checker, reduce, value.sources if value else ())
        checker.frames[-1].sums.add(reduce.target)  # of a part it outlives the body, as an `accumulate` does


def _ranks(checker: Checker, together: Together) -> None:
    if len(set(together.ranks)) != len(together.ranks) or not together.ranks:
        checker.tell("0557", f"`{word(type(together))}` names each of its ranks once")


def _shards(checker: Checker, together: Lend | Gather) -> None:
    """What is gathered has the types of the whole parameters."""
    _ranks(checker, together)
    found = sharded(checker.program, together.block)
    if not found:
        checker.tell("0565", f"no parameter of block `{together.block}` is sharded")
    if isinstance(together, Gather):
        _parts(checker, together, [entry.name for entry in found])
        types, sources = tuple(entry.type for entry in found), tuple(entry.name for entry in found)
        known = Value("gathered", types, sources, together.block) if found else Value(ANYTHING)
        checker.define(together.value, known)


def _parts(checker: Checker, together: ReduceScatter | Gather, names: Sequence[str]) -> None:
    shards = checker.program.shards
    for name in names:
        if name in shards and len(shards[name].bounds) != len(together.ranks) + 1:
            found = f"{len(together.ranks)} ranks, and `{name}` has {len(shards[name].bounds) - 1} parts"
            checker.tell("0565", f"`{word(type(together))}` names {found}")


def _norms(checker: Checker, norms: Norms) -> None:
    for name in norms.gradients:
        checker.use(name, "clip", "`norms`")
    checker.define(norms.value, Value("norms"))


def _scale(checker: Checker, scale: Scale) -> None:
    for name in scale.gradients:
        checker.use(name, "clip", "`scale`")
    for name in scale.norms:
        checker.use(name, "norms", "`scale`")


def _send(checker: Checker, send: Send) -> None:
    checker.use(send.value, "send", "`send`")


def _receive(checker: Checker, receive: Receive) -> None:
    """A newer version of a variable takes the place of the one that came before."""
    if receive.value not in checker.values:
        checker.define(receive.value, Value(ANYTHING))


BETWEEN: dict[type[Any], Callable[[Any, Any], None]] = {
    Send: _send,
    Receive: _receive,
    Offer: _reduce,
    Reduce: _reduce,
    ReduceScatter: _reduce,
    Lend: _shards,
    Gather: _shards,
    Norms: _norms,
    Scale: _scale,
}
