"""What does a variable's optimizer remember when it begins, and of whom? Of places in the batch, or of samples.

Without a cache the first row of a batch goes on with what is known of the first row of the batch before, and so on. A
smaller batch takes and changes the memory of its own places; the others' waits. In a `due` the rows are samples', and
each goes on with what is known of it. What an optimizer counts for the whole tensor is common to all.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lpc.runtime.cache import SampleCache
from lpc.runtime.resources import Frame
from lpc.runtime.variables import Memory, VariableOptimizer
from lpc.specs.diagnostics import Diagnostic, LpcError


def recalled(optimizer: VariableOptimizer, frame: Frame, cache: SampleCache, lasting: bool) -> Memory:
    """Return what an optimizer knows at its beginning; unless `lasting`, in copies.

    Errors: 0660 a batch with more places than are known, or of another shape.
    """
    name = optimizer.plan.name
    if not optimizer.plan.persists:
        return {}
    if name in frame.remembered:
        return frame.remembered[name]
    kept = optimizer.kept
    if frame.rows is not None:
        device = optimizer.none.device
        rows = {entry: found.to(device) for entry, found in cache.memory(name, frame.rows).items()}
        return {**(kept if lasting else _copied(kept)), **rows}
    found = {entry: _places(value, optimizer.shape, _fitting(optimizer, frame)) for entry, value in kept.items()}
    return found if lasting else _copied(found)


def keep(optimizer: VariableOptimizer, frame: Frame, cache: SampleCache, memory: Memory, lasting: bool) -> None:
    """Remember what an optimizer knows at its end: for this section, and, if `lasting`, for later batches."""
    if not optimizer.plan.persists:
        return
    name = optimizer.plan.name
    frame.remembered[name] = memory
    if not lasting:
        return
    shape = tuple(frame.env[name][0].shape)
    if frame.rows is None:
        optimizer.shape = optimizer.shape or shape
        optimizer.kept |= {entry: _put(optimizer.kept.get(entry), value) for entry, value in memory.items()}
        return
    assert frame.due is not None, "rows are known in a `due`"
    rows = {entry: value for entry, value in memory.items() if _is_row(value)}
    optimizer.shape = shape
    optimizer.kept |= {entry: value for entry, value in memory.items() if entry not in rows}
    chosen = frame.due
    cache.remember(name, frame.rows[chosen], {e: value[chosen.to(value.device)] for e, value in rows.items()})


def _fitting(optimizer: VariableOptimizer, frame: Frame) -> int:
    """Return how many places the batch has. Errors: 0660 more than are known, or of another shape."""
    variable: Tensor = frame.env[optimizer.plan.name][0]
    known, size = optimizer.shape, tuple(variable.shape)
    if known and (known[1:] != size[1:] or known[0] < size[0]):
        message = f"variable `{optimizer.plan.name}` is {list(size)} now; its optimizer remembers {list(known)}"
        notes = ("with `state=persistent` it remembers places in the batch, as many as the first one had",)
        raise LpcError(Diagnostic("0660", message, place="batch", notes=notes))
    return size[0]


def _places(value: Any, known: tuple[int, ...], count: int) -> Any:
    """Return the part of an entry that belongs to the first places: a view of it."""
    apart = _is_row(value) and value.shape[0] == known[0] != count
    return value[:count] if apart else value


def _put(before: Any, value: Any) -> Any:
    """Return what is kept of an entry: all of it, or its places among more that were known before."""
    if not _is_row(value) or before is None or len(before) == len(value):
        return value
    before[: len(value)] = value
    return before


def _is_row(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _copied(memory: Memory) -> Memory:
    return {entry: value.clone() if isinstance(value, Tensor) else value for entry, value in memory.items()}
