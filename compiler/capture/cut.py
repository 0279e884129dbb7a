"""How is a local step cut in two? The part before the cotangents arrive, and the part after."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from lpc.compiler.blocks import expression_of
from lpc.compiler.capture.joint import LocalGraph, Slot, arrival_of
from lpc.compiler.capture.lower import ancestors, lower
from lpc.specs.plan.kernel import Kernel

FORWARD = frozenset({"output", "loss", "metric", "buffers"})
BACKWARD = frozenset({"gradients", "factors", "cotangent", "target"})

# Operators that return a view of their argument: recomputing one costs nothing.
VIEWS = {
    torch.ops.aten.t.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.permute.default,
    torch.ops.aten.view.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.select.int,
}

Entry = tuple[Slot, fx.Node]


@dataclass(frozen=True)
class Ports:
    """A local graph's arguments and results as (slot, node) pairs."""

    arguments: list[Entry]
    results: list[Entry]


def ports(local: LocalGraph) -> Ports:
    """Pair the graph's placeholders and outputs with their slots; a buffer that does not change is no result."""
    placeholders = [n for n in local.graph.nodes if n.op == "placeholder"]
    lifted = {entry.placeholder: entry for entry in local.random}
    plain = [n for n in placeholders if n not in lifted]
    arguments = list(zip(local.arguments, plain, strict=True))
    arguments += [
        (Slot("random", f"random_{i}", entry.noise.site), entry.placeholder) for i, entry in enumerate(local.random)
    ]
    output = next(n for n in reversed(local.graph.nodes) if n.op == "output")
    results = list(zip(local.results, output.args[0], strict=True))
    return Ports(arguments, [(s, n) for s, n in results if s.role != "buffers" or n.op != "placeholder"])


def slice_kernel(local: LocalGraph, kind: str, outputs: Iterable[str], roles: Iterable[str]) -> Kernel:
    """Write the part of the local step that computes results of `roles`, and of the outputs only `outputs`."""
    whole = ports(local)
    wanted, names = set(roles), set(outputs)
    results = [(s, n) for s, n in whole.results if s.role in wanted and _is_wanted(s, names)]
    return lower(f"{local.block}.{kind}", local.block, local.graph, whole.arguments, results, local.symbols)


def forward_and_backward(
    local: LocalGraph, outputs: Iterable[str], recompute: bool = False, late: bool = False
) -> tuple[Kernel, Kernel]:
    """Cut the local step into `forward -> ..., residuals` and `backward(residuals, cotangents) -> gradients`.

    Gradients are backward, and cotangents, but for those of a limited reach that wait for no other block: they are
    sent at once unless `late`. What only the backward part needs is computed there. Residuals are the remaining
    values that it reads, other than state, views of state, and lengths; with `recompute` there are none, and the
    second kernel starts from the block's inputs.
    """
    whole, names = ports(local), set(outputs)
    early = [] if late else _sent_at_once(whole)
    forward = [(s, n) for s, n in whole.results if s.role in FORWARD and _is_wanted(s, names)] + early
    backward = [(s, n) for s, n in whole.results if s.role in BACKWARD and (s, n) not in early]
    if recompute:
        first = lower(f"{local.block}.forward", local.block, local.graph, whole.arguments, forward, local.symbols)
        second = lower(f"{local.block}.vjp", local.block, local.graph, whole.arguments, backward, local.symbols)
        return first, second
    return _by_residuals(local, whole, forward, forward, backward, "")


def exact_forward_and_backward(local: LocalGraph) -> tuple[Kernel, Kernel]:
    """Cut as above, for a forward part that returns nothing but residuals."""
    whole = ports(local)
    forward, backward = ([(s, n) for s, n in whole.results if s.role in roles] for roles in (FORWARD, BACKWARD))
    return _by_residuals(local, whole, forward, [], backward, "exact_")


def around_a_wait(
    local: LocalGraph, first: Collection[Slot], second: Collection[Slot], later: Collection[str]
) -> tuple[Kernel, Kernel]:
    """Cut a step into `forward -> first results, residuals` and `backward(residuals, later inputs) -> second ones`."""
    whole = ports(local)
    forward, backward = ([(s, n) for s, n in whole.results if s in chosen] for chosen in (first, second))
    return _by_residuals(local, whole, forward, forward, backward, "", later)


def _by_residuals(
    local: LocalGraph, whole: Ports, forward: list[Entry], told: list[Entry], backward: list[Entry], prefix: str,
    later: Collection[str] = (),
) -> tuple[Kernel, Kernel]:  # fmt: skip
    roles = ("state", "seed", "cotangent")
    given = [(s, n) for s, n in whole.arguments if s.role in roles or (s.role == "input" and s.source in later)]
    saved = _residuals(local.graph, [n for _, n in backward], ancestors(n for _, n in forward), [n for _, n in given])
    kept = [(Slot("residuals", "residuals", f"r{i}"), node) for i, node in enumerate(saved)]
    block, symbols = local.block, local.symbols
    first = lower(f"{block}.{prefix}forward", block, local.graph, whole.arguments, [*told, *kept], symbols)
    graph, copies = _subgraph(local.graph, [n for _, n in (*kept, *given)], [n for _, n in backward])
    second = lower(
        f"{block}.{prefix}backward",
        block,
        graph,
        [(s, copies[n]) for s, n in (*kept, *given)],
        [(s, copies[n]) for s, n in backward],
        symbols,
    )
    return first, second


def _sent_at_once(whole: Ports) -> list[Entry]:
    """Cotangents with an age, or for any block, that no arriving cotangent enters."""
    awaited = {n for s, n in whole.arguments if s.role == "cotangent"}
    return [
        (slot, node)
        for slot, node in whole.results
        if slot.role == "cotangent"
        and (arrival_of(slot).age or slot.source.endswith("@"))
        and not awaited & ancestors([node])
    ]


def _is_wanted(slot: Slot, outputs: set[str]) -> bool:
    return slot.role != "output" or slot.source in outputs


def _residuals(
    graph: fx.Graph, roots: list[fx.Node], before: set[fx.Node], given: list[fx.Node]
) -> list[fx.Node]:
    """Walk back from the gradients; stop at forward values, which are saved, and at given arguments.

    A length that none of them has is read off a tensor that is computed again, or else of one saved for it.
    """
    saved: set[fx.Node] = set()
    lengths: set[fx.Node] = set()
    seen = set(given)
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if _reads_length(node):
            lengths.add(node)
        elif node.op == "placeholder" or (_is_known(node, before) and not _is_free(node, set(given))):
            saved.add(node)
        else:
            stack += node.all_input_nodes
    for node in lengths:
        source = node.all_input_nodes[0]
        if source not in seen and _bearer(node, [*saved, *given]) is None:
            saved.add(source)
    return [node for node in graph.nodes if node in saved]


def _is_known(node: fx.Node, before: set[fx.Node]) -> bool:
    """Computed by the forward part; an item of what it computes is as good, a tuple itself cannot be saved."""
    if node.target is operator.getitem:
        return node.all_input_nodes[0] in before
    return node in before and isinstance(node.meta.get("val"), Tensor | torch.SymInt)


def _is_free(node: fx.Node, given: set[fx.Node]) -> bool:
    """Recomputing arithmetic over lengths, or a view of a weight, costs nothing."""
    if isinstance(node.meta.get("val"), torch.SymInt):
        return True
    if node.target not in VIEWS:
        return False
    return all(source in given or _is_free(source, given) for source in node.all_input_nodes)


def _reads_length(node: fx.Node) -> bool:
    return node.target is torch.ops.aten.sym_size.int


def _bearer(length: fx.Node, available: Iterable[fx.Node]) -> tuple[fx.Node, int] | None:
    """Find a tensor at hand with the symbolic length that `length` reads, and the axis that has it."""
    wanted = expression_of(length.meta["val"])
    if wanted is None:
        return None
    for node in available:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            continue
        for axis, size in enumerate(value.shape):
            if expression_of(size) == wanted:
                return node, axis
    return None


def _subgraph(
    graph: fx.Graph, inputs: list[fx.Node], outputs: list[fx.Node]
) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """Copy what computes `outputs` from `inputs` into a graph of its own; return it and where each node went."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        copies[node] = part.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    needed = _between(inputs, outputs)
    for node in graph.nodes:
        if node not in needed or node in copies:
            continue
        bearer = _bearer(node, inputs) if _reads_length(node) else None
        if bearer is None:
            copies[node] = part.node_copy(node, copies.__getitem__)
        else:
            copies[node] = part.call_function(node.target, (copies[bearer[0]], bearer[1]))
            copies[node].meta = dict(node.meta)
    return part, copies


def _between(inputs: list[fx.Node], outputs: list[fx.Node]) -> set[fx.Node]:
    found = set(inputs)
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        if not (_reads_length(node) and _bearer(node, inputs) is not None):
            stack += node.all_input_nodes
    return found
