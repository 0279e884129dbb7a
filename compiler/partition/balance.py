"""Where is the network cut evenly? `balanced(count, by)`: least largest block, then least bytes sent.

A cut point is a position in graph order that exactly one learned tensor crosses: one that depends on a
parameter. Network inputs read again later, and masks, positions and sizes computed from them, carry no
gradient and do not count. Between cut points lies a chain of segments, and on that chain the answer is exact.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import torch

from lpc.compiler.partition.assignment import Assignment
from lpc.compiler.partition.chain import best_cuts
from lpc.compiler.partition.view import View, is_adapted
from lpc.specs.diagnostics import Diagnostic, LpcError, listing, one_of
from lpc.specs.model import Spec
from lpc.specs.term import Term

# Parameters by elements; forward operations; activation bytes, which training keeps of a forward pass.
MEASURES = ("params", "flops", "memory")


@dataclass(frozen=True)
class CutPoint:
    """A possible boundary right after site `after`, where the tensor of site `tensor` crosses."""

    after: int
    tensor: int


def balanced(view: View, spec: Spec) -> Assignment:
    """Assign the network to `count` blocks b1, b2, ... of nearly equal cost. Raises LpcError."""
    count, measure = _options(spec)
    points = cut_points(view)
    if len(points) < count - 1:
        raise LpcError(_too_few(view, spec, points, count))
    borders = best_cuts(
        segment_costs(view, points, measure), [view.sites[p.tensor].bytes for p in points], count
    )
    ends = [points[border - 1].after for border in borders]
    names = tuple(f"b{number + 1}" for number in range(count))
    return Assignment(names, {site.index: names[bisect_left(ends, site.index)] for site in view.roots})


def cut_points(view: View) -> list[CutPoint]:
    """Return every position in graph order where exactly one learned tensor crosses, in order."""
    learned, last = _learned(view), _last_reads(view)
    expiring: list[list[int]] = [[] for _ in range(len(view.sites) + 1)]
    points: list[CutPoint] = []
    live = total = end = 0
    for site in view.sites:
        here = site.index
        if site.kind != "tensor":
            continue
        end = here if site.root == here else end
        live -= len(expiring[here])
        total -= sum(expiring[here])
        if learned[here] and last[here] > here:
            live, total = live + 1, total + here
            expiring[last[here]].append(here)
        # With one live tensor, the sum of the live indices is its index.
        if live == 1 and isinstance(view.sites[total].node.meta.get("val"), torch.Tensor):
            points.append(CutPoint(here, total))
    return [point for point in points if point.after < end and not _inside_layer(view, point.after)]


def _inside_layer(view: View, after: int) -> bool:
    """Return whether a position lies between the parts of one adapted layer, as it may where the layer is the first."""
    one = view.sites[after]
    if not is_adapted(view, one):
        return False
    rest = (view.sites[index] for index in range(after + 1, len(view.sites)))
    return next(site.path for site in rest if site.kind == "tensor") == one.path


def segment_costs(view: View, points: list[CutPoint], measure: str) -> list[int]:
    """Return the cost of every segment between cut points; a shared parameter counts at its first use."""
    costs = [0] * (len(points) + 1)
    sizes = dict(view.module.meta.get("parameters", {}))
    segment = 0
    for site in view.sites:
        if site.kind != "tensor":
            continue
        if measure == "params":
            costs[segment] += sum(sizes.pop(name, 0) for name in site.parameters)
        else:
            costs[segment] += site.flops if measure == "flops" else site.bytes
        if segment < len(points) and points[segment].after == site.index:
            segment += 1
    return costs


def _learned(view: View) -> list[bool]:
    learned = [False] * len(view.sites)
    for site in view.sites:
        if site.kind == "tensor":
            learned[site.index] = bool(site.parameters) or any(learned[p] for p in site.producers)
    return learned


def _last_reads(view: View) -> list[int]:
    """Return for each site its last reader that is a tensor, or one past the end for the network's output."""
    last = [-1] * len(view.sites)
    for site in view.sites:
        if site.kind == "tensor":
            for producer in site.producers:
                last[producer] = site.index
    if view.output is not None:
        last[view.output] = len(view.sites)
    return last


def _options(spec: Spec) -> tuple[int, str]:
    term = spec.decompose.blocks
    assert isinstance(term, Term)
    given = dict(zip(("count", "by"), term.args, strict=False)) | term.kwargs
    count, measure = given.pop("count", None), str(given.pop("by", "params"))
    if type(count) is not int or count < 1:
        raise _wrong(spec, f"`{term}` needs a number of blocks, at least 1", "write `balanced(count=4)`")
    if measure not in MEASURES:
        raise _wrong(spec, f"`balanced` cannot balance by `{measure}`", f"balance by {one_of(MEASURES)}")
    if given or len(term.args) > 2:
        raise _wrong(spec, f"`{term}` has more than `count` and `by`", "write `balanced(count=4, by=params)`")
    return count, measure


def _wrong(spec: Spec, message: str, remedy: str) -> LpcError:
    return LpcError(Diagnostic("0307", message, span=spec.origin("decompose", "blocks"), help=remedy))


def _too_few(view: View, spec: Spec, points: list[CutPoint], count: int) -> Diagnostic:
    places = listing([view.sites[p.after].path or view.sites[p.after].node.name for p in points])
    where = f"one tensor alone crosses after {places}" if points else "nowhere does one tensor alone cross"
    return Diagnostic(
        "0306",
        f"{count} blocks need {count - 1} cut points, and the network has {len(points)}",
        span=spec.origin("decompose", "blocks"),
        notes=(where,),
        help=f"ask for at most {len(points) + 1} block{'s' if points else ''}, or name the blocks yourself",
    )
