"""Where does one time step end and the next begin? `unroll(cell)`: a block for each call of a module.

A call holds exactly its own nodes. Layers elsewhere are blocks as with `per_layer`, or as a mapping says in which
`"*": unroll(cell)` stands; what follows a step and precedes
them goes to them, so that equal steps stay equal. What is read at each step (the parts of an input) is made by a block
of its own, `frames`, which has no parameters.
"""

from __future__ import annotations

from dataclasses import replace

from lpc.compiler.partition.assignment import Assignment
from lpc.compiler.partition.layers import per_layer
from lpc.compiler.partition.uncalled import unmatched
from lpc.compiler.partition.view import Site, View
from lpc.specs.diagnostics import LpcError
from lpc.specs.model import Path, Spec
from lpc.specs.term import Term

FRAMES = "frames"


def unroll(view: View, spec: Spec) -> Assignment:
    """Assign each call of a module to a block, `path` and `path#2` and so on. Raises LpcError (0301)."""
    term = spec.decompose.blocks
    assert isinstance(term, Term)
    layers = per_layer(view, spec)
    steps = time_steps(view, spec, term, ("decompose", "blocks"))
    others = {index: block for index, block in layers.fixed.items() if index not in steps}
    return with_steps(view, replace(layers, fixed=others), steps)


def time_steps(view: View, spec: Spec, term: Term, origin: Path) -> dict[int, str]:
    """Return the block of each node inside a call of the module that `unroll(cell)`, written at `origin`, names."""
    cell = str((*term.args, *term.kwargs.values())[0])
    steps = {site.index: name for site in view.roots if (name := _step(site, cell)) is not None}
    if not steps:
        raise LpcError(unmatched(view, cell, spec.origin(*origin), []))
    return steps


def with_steps(view: View, others: Assignment, steps: dict[int, str]) -> Assignment:
    """Add blocks of time steps to those of other nodes: what steps read, and what comes between them and others."""
    fixed = others.fixed | steps
    fixed |= _frames(view, fixed, steps)
    fixed |= _between(view, fixed, steps)
    kept = set(fixed.values())
    names = [*sorted({FRAMES} & kept), *dict.fromkeys(steps.values()), *(b for b in others.blocks if b in kept)]
    return Assignment(tuple(dict.fromkeys(names)), fixed, toward=others.toward, covers=others.covers)


def stands_apart(spec: Spec, block: str) -> bool:
    """Tell whether a block is that of what steps read: a stop lies behind it, and it joins no other block."""
    blocks = spec.decompose.blocks
    if isinstance(blocks, dict):
        every: tuple[str | Term, ...] = () if FRAMES in blocks else blocks.get("*", ())
    else:
        every = (blocks,)
    return block == FRAMES and any(isinstance(term, Term) and term.name == "unroll" for term in every)


def _step(site: Site, cell: str) -> str | None:
    """Return the block of a node inside a call of the cell."""
    meta = site.node.meta
    scopes = meta.get("scopes") or ((site.path, meta.get("call", 0)),)
    calls = [call for path, call in scopes if path == cell]
    if not calls:
        return None
    return cell if calls[0] == 0 else f"{cell}#{calls[0] + 1}"


def _frames(view: View, fixed: dict[int, str], steps: dict[int, str]) -> dict[int, str]:
    """What steps read that comes of inputs alone, if more than one step reads it."""
    free = {s.index for s in view.roots if not s.parameters and s.index not in fixed}
    for site in view.roots:
        if site.index in free and any(source not in free for source in view.sources[site.index]):
            free.discard(site.index)
    wanted: dict[int, set[str]] = {}
    for site in reversed(view.roots):
        readers = {steps[t] for t in view.targets[site.index] if t in steps}
        readers |= {name for t in view.targets[site.index] for name in wanted.get(t, ())}
        if site.index in free and readers:
            wanted[site.index] = readers
    return {index: FRAMES for index, readers in wanted.items() if len(readers) > 1}


def _between(view: View, fixed: dict[int, str], steps: dict[int, str]) -> dict[int, str]:
    """What comes of steps and leads to another block, undecided so far, goes to the first of these blocks."""
    after: set[int] = set()
    for site in view.roots:
        sources = view.sources[site.index]
        if site.index not in fixed and any(s in steps or s in after for s in sources):
            after.add(site.index)
    found: dict[int, str] = {}
    for site in reversed(view.roots):
        if site.index not in after:
            continue
        readers = [b for t in view.targets[site.index] if (b := found.get(t) or fixed.get(t)) is not None]
        if readers:
            found[site.index] = readers[0]
    return found
