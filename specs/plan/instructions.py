"""Which instructions does a plan consist of? A short closed set, one line of meaning each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args


@dataclass(frozen=True)
class Load:
    """Take the next batch and bind its fields: `x, y = load image, label`."""

    values: tuple[str, ...]
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Random:
    """Draw noise by a site's law, keyed by (seed, step, site): `r = random fc1.dropout`."""

    value: str
    site: str


@dataclass(frozen=True)
class Call:
    """Run a kernel: `h1, g1, l1 = call b1.local(x, y)`. State and seeds are bound by its own ports."""

    values: tuple[str, ...]
    kernel: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Accumulate:
    """Add gradients to a running sum, scaled: `accumulate s1 <- g1 * 0.25`; the first addition creates it.

    In a `part` they are scaled by the piece's share of the samples as well.
    """

    target: str
    value: str
    scale: float


@dataclass(frozen=True)
class Update:
    """Step a block's optimizer with gradient bundles, summed by parameter name: `update b1 <- g1, g4`."""

    block: str
    gradients: tuple[str, ...]


@dataclass(frozen=True)
class Clip:
    """Scale gradient bundles together to a total norm: `clip g1, g2 to 1.0`."""

    gradients: tuple[str, ...]
    norm: float


@dataclass(frozen=True)
class Norms:
    """Take the 2-norm of each of a rank's gradients, of those that are there: `n1 = norms g1, g2`."""

    value: str
    gradients: tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """Clip a rank's gradients by the norms of all ranks' gradients, in their order: `scale g1, g2 to 1.0 by n0, n1`."""

    gradients: tuple[str, ...]
    norm: float
    norms: tuple[str, ...]


@dataclass(frozen=True)
class Write:
    """Write a bundle of buffers into the state: `write u1`."""

    value: str


@dataclass(frozen=True)
class Free:
    """Drop values: `free h1, g1`."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """Accumulate a metric on the device, weighted by the batch: `record b1.loss l1`."""

    metric: str
    value: str


@dataclass(frozen=True)
class Return:
    """Give values to the caller by name: `return output h3`."""

    name: str
    value: str


@dataclass(frozen=True)
class Repeat:
    """Run a body n times: `repeat 4 { ... }`."""

    count: int
    body: tuple[Instruction, ...]


@dataclass(frozen=True)
class Every:
    """Run a body at every n-th step, first at step `phase`: `every 10 from 0 { ... }`."""

    period: int
    body: tuple[Instruction, ...]
    phase: int = 0


@dataclass(frozen=True)
class Part:
    """Run a body on the first samples of the batch, in pieces: `x1, y1 = part x, y share 0.25 in 4 { ... }`.

    `share` is of the batch, or above 1 a number of samples; the pieces are as equal as they can be. Noise is that of
    the whole batch, of which a piece sees its own samples' rows.
    """

    values: tuple[str, ...]
    sources: tuple[str, ...]
    share: float
    pieces: int
    body: tuple[Instruction, ...]


@dataclass(frozen=True)
class Later:
    """In the body of a `part`: what follows runs so many pieces later, beside the first half of those: `later 2`.

    No number changes: each piece has values of its own, both halves take the pieces in order.
    """

    turns: int


@dataclass(frozen=True)
class Only:
    """In the body of a `part`: of its pieces only this one is run here, other ranks run the others: `only 1`."""

    piece: int


@dataclass(frozen=True)
class Adopt:
    """Write a bundle of buffers, if this is the first piece of the outermost `part` around: `adopt u1`."""

    value: str


@dataclass(frozen=True)
class Reduce:
    """Sum ranks' gradient bundles, in the order of the ranks, as pieces of a batch: `s = reduce s1 over 0, 2`.

    Each is weighted by its piece's share of the batch; every rank named has the sum afterwards, with the same bits.
    Where the bundle was offered before, it is not sent once more.
    """

    target: str
    value: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Offer:
    """Give a bundle to the ranks of a `reduce` that comes later, without waiting for them: `offer s1 over 0, 2`."""

    value: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Lag:
    """In a step: what follows may wait for other ranks while up to so many more steps begin: `lag 2`.

    These begin with the weights as they are then. The first half of each step is run in order, and so is the second.
    """

    steps: int


@dataclass(frozen=True)
class Lend:
    """Give ranks this one's shards of a block's parameters, without waiting for them: `lend b1 to 2`."""

    block: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    """Take the shards of a block's parameters, in the order of the ranks: `b1.gathered = gather b1 from 0, 2`.

    What comes of them are whole parameters, in memory of their own until they are freed.
    """

    value: str
    block: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class ReduceScatter:
    """Sum ranks' gradient bundles as `reduce` does, each rank its own shards: `s = reduce_scatter s1 over 0, 2`.

    Parameters that are not sharded have whole sums on every rank named.
    """

    target: str
    value: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Offset:
    """Keep for a block the difference of true and local gradients: `offset b1 <- e1 minus g1`."""

    block: str
    exact: tuple[str, ...]
    local: tuple[str, ...]


@dataclass(frozen=True)
class Correct:
    """Put a block's correction into its gradient bundles: `correct b1 in g1`."""

    block: str
    gradients: tuple[str, ...]


@dataclass(frozen=True)
class Shift:
    """Move a block's parameters along its offset, by its learning rates: `shift b1`."""

    block: str


@dataclass(frozen=True)
class Weight:
    """Evaluate a law at this step: `w = weight b1->b2.weight`, of a variable's penalty or (`.scale`) its objective."""

    value: str
    law: str


@dataclass(frozen=True)
class Begin:
    """Begin auxiliary variables at some values, of which they are copies: `b1->b2 = begin h1`."""

    values: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Relax:
    """Run a body in which variables have an optimizer each: `relax b1->b2 { ... }`.

    Each begins as its variable says: without memory, or with that of places in the batch, in a `due` of samples.
    """

    variables: tuple[str, ...]
    body: tuple[Instruction, ...]


@dataclass(frozen=True)
class StepVariable:
    """Step a variable in place along slopes, which are summed: `step_variable b1->b2 <- s1, s2`."""

    variable: str
    slopes: tuple[str, ...]


@dataclass(frozen=True)
class Parallel:
    """Run a body in which no block waits for what another one makes: `parallel { ... }`."""

    body: tuple[Instruction, ...]


@dataclass(frozen=True)
class Due:
    """Run a body if samples are due, by their visits: `due index every 5 { ... }`; every 0: at their first visit.

    What the body stores is kept for the samples that are due.
    """

    index: str
    period: int
    body: tuple[Instruction, ...]


@dataclass(frozen=True)
class Fetch:
    """Take variables as they are kept for the samples of the batch: `b1->b2 = fetch index`."""

    values: tuple[str, ...]
    index: str


@dataclass(frozen=True)
class Store:
    """Keep values as the variables of the samples that are due: `store b1->b2 at index <- h1`."""

    variables: tuple[str, ...]
    index: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Visit:
    """Count a visit of the samples, and record how many visits ago they were due: `visit index every 5 as age`.

    `metrics` is one, or none where another process records the same.
    """

    index: str
    period: int
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Send:
    """Give a value to another process, without waiting for it: `send h1 to 1`."""

    value: str
    rank: int


@dataclass(frozen=True)
class Receive:
    """Wait for a value of another process: `h1 = receive from 0`. Values come in the order of their sends."""

    value: str
    rank: int


Instruction: TypeAlias = (
    Load
    | Random
    | Call
    | Accumulate
    | Update
    | Clip
    | Norms
    | Scale
    | Write
    | Free
    | Record
    | Return
    | Repeat
    | Every
    | Part
    | Later
    | Only
    | Adopt
    | Reduce
    | Offer
    | Lag
    | Lend
    | Gather
    | ReduceScatter
    | Offset
    | Correct
    | Shift
    | Weight
    | Begin
    | Relax
    | StepVariable
    | Parallel
    | Due
    | Fetch
    | Store
    | Visit
    | Send
    | Receive
)


def word(kind: type) -> str:
    """Return an instruction's word in the text and in the JSON: `step_variable` of StepVariable."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


# Every kind of instruction by its word.
KINDS: dict[str, Any] = {word(kind): kind for kind in get_args(Instruction)}

DEPTH = 32  # bodies inside each other, at most
