"""Which rank holds each block? As the spec says, or contiguous stretches of blocks that cost about the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain, pairwise

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.model import Spec
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.makers import made_together
from lpc.specs.ranks.mesh import mesh_of

Placement = Mapping[str, int]  # block or readout -> rank


def placement_of(plan: Plan, spec: Spec, stages: int | None = None) -> Placement:
    """Return the rank of each block and readout, on so many ranks or as many as the spec asks for, without replicas.

    Another number than the spec's is balanced anew. Raises LpcError (0580) where blocks cannot be placed so.
    """
    count = mesh_of(spec).stages if stages is None else stages
    blocks = {str(node["id"]): max(int(node["flops"]), 1) for node in plan.partition["nodes"]}
    bound = _bound(plan.kernels["native"], blocks)
    chosen = count == _stages(spec)
    found = _as_written(spec, list(blocks), bound) if chosen else _balanced(spec, blocks, bound, count)
    return made_together(plan, found)


def _stages(spec: Spec) -> int:
    """Return how many ranks the spec's placement names."""
    return max((rank + 1 for rank in spec.run.placement.values()), default=0)


def balanced(costs: Sequence[int], parts: int, closed: frozenset[int] = frozenset()) -> list[int]:
    """Return the part of each item: contiguous parts whose largest cost is as small as it can be.

    No cut lies before an item whose index is in `closed`. Returns fewer parts where there are too few items.
    """
    starts = [i for i in range(len(costs)) if i not in closed]
    weights = [sum(costs[a:b]) for a, b in pairwise([*starts, len(costs)])]
    parts = min(parts, len(weights))
    # best[p][i]: the smallest largest cost of the first i weights in p parts, and where the last part begins.
    best: list[list[tuple[int, int]]] = [[(0, 0)] + [(sum(weights) + 1, 0)] * len(weights)]
    for part in range(1, parts + 1):
        row = [(sum(weights) + 1, 0)] * (len(weights) + 1)
        for i in range(part, len(weights) + 1):
            row[i] = min((max(best[part - 1][j][0], sum(weights[j:i])), j) for j in range(part - 1, i))
        best.append(row)
    cuts, end = [], len(weights)
    for part in range(parts, 0, -1):
        end = best[part][end][1]
        cuts.append(starts[end])
    return [sum(cut <= i for cut in cuts) - 1 for i in range(len(costs))]


def _balanced(
    spec: Spec, blocks: Mapping[str, int], bound: Sequence[tuple[str, str, str]], count: int
) -> dict[str, int]:
    order = list(blocks)
    closed = {
        i for a, b, _ in bound
        for i in range(min(order.index(a), order.index(b)) + 1, max(order.index(a), order.index(b)) + 1)
    }  # fmt: skip
    found = balanced(list(blocks.values()), count, frozenset(closed))
    if max(found) + 1 == count:
        return dict(zip(order, found, strict=True))
    message = f"{count} workers are asked for, and the blocks can be held by {max(found) + 1} at most"
    shared = tuple(f"`{a}` and `{b}` both use `{name}` and stay together" for a, b, name in bound[:3])
    raise LpcError(Diagnostic("0580", message, spec.origin("run", "workers"), notes=shared))


def _as_written(spec: Spec, blocks: Sequence[str], bound: Sequence[tuple[str, str, str]]) -> dict[str, int]:
    """The last pattern that matches a block wins."""
    found: dict[str, int] = {}
    for pattern, rank in spec.run.placement.items():
        matched = [block for block in blocks if fnmatchcase(block, pattern)]
        found.update(dict.fromkeys(matched, rank))
        if not matched:
            raise _refusal(spec, pattern, f"`{pattern}` is no block", did_you_mean(pattern, blocks))
    missing = [block for block in blocks if block not in found]
    if missing:
        raise _refusal(spec, None, f"block `{missing[0]}` is placed nowhere")
    idle = set(range(_stages(spec))) - set(found.values())
    if idle:
        raise _refusal(spec, None, f"rank {min(idle)} holds no block")
    for a, b, name in bound:
        if found[a] != found[b]:
            message = f"`{a}` and `{b}` both use `{name}`, and are placed on ranks {found[a]} and {found[b]}"
            raise _refusal(spec, None, message, "place them on one rank")
    return found


def _bound(kernels: Mapping[str, Kernel], blocks: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Return the pairs of blocks that use one tensor of the state, with its name."""
    users: dict[str, dict[str, None]] = {}
    for kernel in kernels.values():
        if kernel.block in blocks:
            for bundle in chain(kernel.arguments, kernel.results):
                if bundle.role in ("state", "gradients", "buffers"):
                    for port in bundle.ports:
                        users.setdefault(port.source, {}).setdefault(kernel.block)
    return [(a, b, name) for name, own in users.items() for a, b in pairwise(own)]


def _refusal(spec: Spec, pattern: str | None, message: str, help: str | None = None) -> LpcError:
    path = ("run", "placement") if pattern is None else ("run", "placement", pattern)
    return LpcError(Diagnostic("0580", message, spec.origin(*path), help=help))
