"""Which nodes of a traced graph mean nothing? Rewrites that keep every bit of every result.

A pure graph needs no `detach`, no alias and no defensive copy; two transpositions cancel; equal lengths
need one node.
"""

from __future__ import annotations

import torch
from torch import fx

from lpc.compiler.blocks import expression_of

aten = torch.ops.aten

# Losses whose sum or mean torch 2.13 leaves in the memory of what it sums: their reduction's position and words.
IN_PLACE = {
    aten.mse_loss.default: 2, aten.smooth_l1_loss.default: 2, aten.soft_margin_loss.default: 2,
    aten.binary_cross_entropy.default: 3,
}  # fmt: skip
REDUCTIONS = {1: aten.mean.default, 2: aten.sum.default}

# Views that are their source where they have its shape; a slice, where it leaves out nothing between.
VIEWS = {aten.view.default, aten.expand.default, aten._unsafe_view.default, aten.slice.Tensor}

# Operators that return their first argument unchanged in a graph without mutation.
IDENTITIES = {aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default, aten.lift_fresh.default}


def simplify(graph: fx.Graph) -> None:
    """Remove identities, cancelling transpositions, equal lengths and dead nodes, in place."""
    lengths: dict[object, fx.Node] = {}
    for node in list(graph.nodes):
        _reduce_apart(graph, node)
    for node in list(graph.nodes):
        replacement = _identity(node) or _transposed_twice(node) or _same_length(node, lengths)
        if replacement is None:
            continue
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)
    graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))


def _reduce_apart(graph: fx.Graph, node: fx.Node) -> None:
    """Reduce a loss by an operator of its own, the one that it calls: a number that is kept then takes 4 bytes."""
    position = IN_PLACE.get(node.target)  # type: ignore[call-overload]
    if position is None:
        return
    reduction = node.args[position] if len(node.args) > position else node.kwargs.get("reduction", 1)
    operator = REDUCTIONS.get(reduction)  # type: ignore[arg-type]
    elements = node.args[0].meta["val"]  # type: ignore[union-attr]
    if operator is None or elements.shape != node.args[1].meta["val"].shape:  # type: ignore[union-attr]
        return
    given = list(node.args[:position]) + [None] * (position - len(node.args))
    with graph.inserting_before(node):
        apart = graph.call_function(node.target, (*given, 0, *node.args[position + 1 :]), {  # type: ignore[arg-type]
            k: v for k, v in node.kwargs.items() if k != "reduction"
        })  # fmt: skip
        reduced = graph.call_function(operator, (apart,))
    apart.meta = {**node.meta, "val": elements.new_empty(elements.shape, dtype=node.meta["val"].dtype)}
    reduced.meta = dict(node.meta)
    node.replace_all_uses_with(reduced)
    graph.erase_node(node)


def share_equal(graph: fx.Graph) -> None:
    """Compute once what several backward passes have in common, in place."""
    known: dict[object, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            continue
        first = known.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _identity(node: fx.Node) -> fx.Node | None:
    if node.target in IDENTITIES or _is_plain_clone(node) or _is_same_view(node):
        source = node.args[0]
        return source if isinstance(source, fx.Node) else None
    return None


def _is_plain_clone(node: fx.Node) -> bool:
    """A clone that keeps the layout; one that makes its input contiguous changes what later views may do."""
    if node.target is not aten.clone.default:
        return False
    return node.kwargs.get("memory_format") in (None, torch.preserve_format)


def _is_same_view(node: fx.Node) -> bool:
    if node.target not in VIEWS or (node.target is aten.slice.Tensor and _step(node) != 1):
        return False
    source = node.args[0]
    if not isinstance(source, fx.Node) or "val" not in source.meta:
        return False
    before, after = source.meta["val"], node.meta["val"]
    return before.dim() == after.dim() and all(
        _text(a) == _text(b) for a, b in zip(before.shape, after.shape, strict=True)
    )


def _step(piece: fx.Node) -> object:
    return piece.args[4] if len(piece.args) > 4 else piece.kwargs.get("step", 1)


def _text(size: object) -> str:
    expression = expression_of(size)
    return str(size if expression is None else expression)


def _transposed_twice(node: fx.Node) -> fx.Node | None:
    if node.target is not aten.t.default:
        return None
    inner = node.args[0]
    if not isinstance(inner, fx.Node) or inner.target is not aten.t.default:
        return None
    source = inner.args[0]
    return source if isinstance(source, fx.Node) else None


def _same_length(node: fx.Node, lengths: dict[object, fx.Node]) -> fx.Node | None:
    """Keep one node for each symbolic length: the first `sym_size` that reads it."""
    if node.target is not aten.sym_size.int:
        return None
    expression = expression_of(node.meta.get("val"))
    if expression is None:
        return None
    first = lengths.setdefault(str(expression), node)
    return None if first is node else first
