"""Who owns a parameter? Each one belongs to exactly one block, whatever the policy on shared parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lpc.compiler.partition.assignment import Assignment
from lpc.compiler.partition.view import View
from lpc.specs.diagnostics import Diagnostic, LpcError, listing
from lpc.specs.model import Spec


@dataclass(frozen=True)
class Ownership:
    """Per block: the parameters it owns, and those of others that it uses too, both in network order."""

    owned: Mapping[str, tuple[str, ...]]
    borrowed: Mapping[str, tuple[str, ...]]


def own_parameters(view: View, blocks: list[str], order: list[str], spec: Spec) -> Ownership:
    """Give each parameter to the first block in `order` that uses it. Raises LpcError under `forbid`."""
    rank = {block: position for position, block in enumerate(order)}
    users: dict[str, set[str]] = {name: set() for name in view.module.meta.get("parameters", ())}
    for site in view.sites:
        if site.kind != "tensor":
            continue
        for name in site.parameters:
            users.setdefault(name, set()).add(blocks[site.index])
    owned: dict[str, list[str]] = {block: [] for block in order}
    borrowed: dict[str, list[str]] = {block: [] for block in order}
    for name, using in users.items():
        ranked = sorted(using, key=rank.__getitem__)
        if len(ranked) > 1 and spec.decompose.shared == "forbid":
            raise LpcError(_shared(spec, name, *ranked[:2]))
        for block in ranked[:1]:
            owned[block].append(name)
        for block in ranked[1:]:
            borrowed[block].append(name)
    return Ownership({b: tuple(n) for b, n in owned.items()}, {b: tuple(n) for b, n in borrowed.items()})


def check_cover(view: View, assignment: Assignment, blocks: list[str], spec: Spec) -> None:
    """Raise LpcError where a parameter is used by no node that the spec gave to a block."""
    used = [s for s in view.sites if s.kind == "tensor" and s.parameters]
    covered = {name for s in used if s.root in assignment.fixed for name in s.parameters}
    natural: dict[str, list[str]] = {}
    for site in used:
        left = [name for name in site.parameters if name not in covered]
        covered.update(left)
        natural.setdefault(blocks[site.index], []).extend(left)
    leftovers = {block: names for block, names in natural.items() if names}
    if leftovers:
        raise LpcError(_leftover(spec, leftovers))


def _shared(spec: Spec, name: str, first: str, other: str) -> Diagnostic:
    return Diagnostic(
        "0305",
        f"the parameter `{name}` is used by two blocks, `{first}` and `{other}`",
        span=spec.origin("decompose", "shared"),
    )


def _leftover(spec: Spec, leftovers: dict[str, list[str]]) -> Diagnostic:
    names = [name for group in leftovers.values() for name in group]
    block, group = next(iter(leftovers.items()))
    module = group[0].rpartition(".")[0] or group[0]
    return Diagnostic(
        "0303",
        f"no block holds the parameter{'s' if len(names) > 1 else ''} {listing(names)}",
        span=spec.origin("decompose", "blocks"),
        notes=tuple(f"`{b}` would be the natural block of {listing(g)}" for b, g in leftovers.items()),
        help=f"add `{module}` to the selectors of `{block}`, or give it a block of its own",
    )
