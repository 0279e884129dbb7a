"""Which blocks are sharded over replicas, and can they be? Where each number of a parameter is learnt by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import chain

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.instructions import Clip
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.makers import flat
from lpc.specs.ranks.sharding import state_ports

# Optimizers that step each number of a parameter by what they know of this number alone.
NUMBERWISE = frozenset(
    [
        "adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop", "rmsprop_tensorflow",
        "rprop", "sgd",
    ]
)
DTYPES = ("float32", "float64")  # sums of narrower types are rounded otherwise at the ends of torch's vectors


def shared_blocks(plan: Plan, spec: Spec) -> tuple[str, ...]:
    """Return the blocks that the spec shards over its replicas. Errors: 0585 those that cannot be."""
    owners = dict.fromkeys(entry.block for entry in plan.program.state.values() if entry.block)
    blocks = tuple(b for b in owners if any(fnmatchcase(b, pattern) for pattern in spec.run.shard))
    problems = [
        Diagnostic("0585", message, spec.origin("run", "shard"), help=help) for message, help in _wrong(plan, blocks)
    ]
    if problems:
        raise LpcError(problems)
    return blocks


def _wrong(plan: Plan, blocks: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """Yield what is wrong, with one thing to try."""
    program = plan.program
    for block in blocks:
        yield from _wrong_steps(plan, block)
        if block in program.corrections:
            yield f"block `{block}` has a correction, which is of whole gradients", "leave the correction out"
    readers = {(p.source, k.block) for k in plan.kernels["native"].values() for p in state_ports(k)}
    for name, entry in program.state.items():
        if entry.kind != "parameter" or entry.block not in blocks:
            continue
        others = {block for alias in (name, *entry.aliases) for source, block in readers if source == alias}
        if entry.aliases or others - {entry.block}:
            also = next(iter(entry.aliases), None) or f"block {min(others - {entry.block})}"
            yield f"`{name}` of block `{entry.block}` is shared with `{also}`", None
        elif entry.type.dtype not in DTYPES:
            yield f"`{name}` of block `{entry.block}` is of type {entry.type.dtype}", "take float32"
    clipped = any(isinstance(i, Clip) for i in chain.from_iterable(map(flat, program.steps)))
    if blocks and clipped:
        yield "`clip` takes the norm of the whole gradient, of which each replica has a part", "leave `run.clip` out"


def _wrong_steps(plan: Plan, block: str) -> Iterator[tuple[str, str | None]]:
    optimizer = plan.program.optimizers.get(block)
    if optimizer is None:
        return
    for name in filter(None, (optimizer.name, optimizer.outer)):
        if name not in NUMBERWISE:
            what = "is not known to step" if is_class(name) else "does not step"
            known = f"take one of {', '.join(sorted(NUMBERWISE))}"
            yield f"`{name}` of block `{block}` {what} each number of a parameter by itself", known
    if optimizer.clip is not None and math.isfinite(optimizer.clip):
        message = f"`clip` of block `{block}` takes the norm of its gradient, of which each replica has a part"
        yield message, "leave `clip` out"
