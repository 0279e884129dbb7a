"""Which nodes do the selectors of a spec choose? `{block: selectors}` and `each(pattern)`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lpc.compiler.partition.assignment import Assignment
from lpc.compiler.partition.selectors import SelectorTable, is_glob
from lpc.compiler.partition.uncalled import unmatched
from lpc.compiler.partition.unroll import time_steps, with_steps
from lpc.compiler.partition.view import Site, View
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Path, Spec
from lpc.specs.term import Term


@dataclass(frozen=True)
class Claim:
    """One selector, written at `origin`: of the block named `block`, or (None) of one block per match."""

    block: str | None
    selector: str
    origin: Path

    def block_for(self, matched: str) -> str:
        """Return the block that a match of this selector belongs to."""
        return self.block if self.block is not None else matched


@dataclass
class _Chooser:
    view: View
    spec: Spec
    claims: list[Claim]
    fixed: dict[int, str] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    used: set[Claim] = field(default_factory=set)
    problems: list[Diagnostic] = field(default_factory=list)

    def choose(self) -> Assignment:
        self.by_path()
        self.by_name()
        self.problems += [self.unmatched(c) for c in self.claims if c not in self.used]
        if self.problems:
            raise LpcError(self.problems)
        return Assignment(tuple(self.names), self.fixed, covers=True)

    def by_path(self) -> None:
        table: SelectorTable[Claim] = SelectorTable()
        for claim in self.claims:
            table.add(claim.selector, claim)
        found: dict[str, str | None] = {}
        for site in self.view.sites:
            if site.path not in found:
                found[site.path] = self.owner(site.path, table.find(site.path))
            block = found[site.path]
            if block is not None and site.kind == "tensor" and site.root == site.index:
                self.fixed[site.index] = block

    def owner(self, path: str, matches: list[tuple[str, Claim]]) -> str | None:
        owners: dict[str, Claim] = {}
        for matched, claim in matches:
            owners.setdefault(claim.block_for(matched), claim)
            self.used.add(claim)
        if len(owners) > 1:
            self.problems.append(self.owned_twice(path, owners))
        self.names.update(dict.fromkeys(owners))
        return next(iter(owners), None)

    def by_name(self) -> None:
        """A selector that is no module path may name a node, or a parameter for the nodes that read it."""
        wanted = {c.selector: c for c in self.claims if c not in self.used and not is_glob(c.selector)}
        for site in self.view.sites:
            for name in _names(site):
                if name in wanted:
                    self.take(site, name, wanted[name])

    def take(self, site: Site, name: str, claim: Claim) -> None:
        self.used.add(claim)
        block = claim.block_for(name)
        self.names.setdefault(block)
        if site.kind == "state":
            for reader in self.view.consumers[site.index]:
                self.fixed.setdefault(self.view.sites[reader].root, block)
            return
        held = self.fixed.setdefault(site.root, block)
        if held != block:
            claimed = next(c for c in self.claims if c.block in (held, None))
            self.problems.append(self.owned_twice(name, {held: claimed, block: claim}))

    def owned_twice(self, what: str, owners: dict[str, Claim]) -> Diagnostic:
        (first, one), (second, other) = list(owners.items())[:2]
        return Diagnostic(
            "0302",
            f"`{what}` belongs to two blocks, `{first}` and `{second}`",
            span=self.spec.origin(*other.origin),
            notes=tuple(f"`{b}` selects it with `{c.selector}`" for b, c in ((first, one), (second, other))),
        )

    def unmatched(self, claim: Claim) -> Diagnostic:
        names = [name for site in self.view.sites for name in _names(site)]
        return unmatched(self.view, claim.selector, self.spec.origin(*claim.origin), names)


def explicit(view: View, spec: Spec) -> Assignment:
    """Assign by `{block: selectors}`; the key `*` holds `each(pattern)` and `unroll(cell)` terms. Raises LpcError."""
    blocks = spec.decompose.blocks
    assert isinstance(blocks, dict)
    chosen = _Chooser(view, spec, list(_claims(blocks, spec))).choose()
    steps: dict[int, str] = {}
    for position, term in enumerate(blocks.get("*", ())):
        if _is_unroll(term):
            assert isinstance(term, Term)
            origin: Path = ("decompose", "blocks", "*", position)
            found = time_steps(view, spec, term, origin)
            _ensure_free(view, spec, found, {**chosen.fixed, **steps}, origin)
            steps |= found
    return with_steps(view, chosen, steps) if steps else chosen


def _is_unroll(term: str | Term) -> bool:
    return isinstance(term, Term) and term.name == "unroll"


def _ensure_free(view: View, spec: Spec, steps: dict[int, str], fixed: dict[int, str], origin: Path) -> None:
    """Refuse (0302) a time step of which another block has a part."""
    for index, block in steps.items():
        if index in fixed:
            path = view.sites[index].path
            message = f"`{path}` belongs to two blocks, `{fixed[index]}` and the time step `{block}`"
            raise LpcError(Diagnostic("0302", message, span=spec.origin(*origin)))


def each(view: View, spec: Spec) -> Assignment:
    """Assign every match of `each(pattern)` to a block of its own, named by its path. Raises LpcError."""
    term = spec.decompose.blocks
    assert isinstance(term, Term)
    return _Chooser(view, spec, list(_each_claims(term, spec, ("decompose", "blocks")))).choose()


def _names(site: Site) -> Iterator[str]:
    if site.kind == "state":
        yield from dict.fromkeys((str(site.node.target), site.node.name, *site.parameters))
    elif site.node.op != "call_module":
        yield site.node.name


def _claims(blocks: dict[str, tuple[str | Term, ...]], spec: Spec) -> Iterator[Claim]:
    for block, selectors in blocks.items():
        for position, selector in enumerate(selectors):
            origin: Path = ("decompose", "blocks", block, position)
            if block == "*" and _is_unroll(selector):
                continue
            if block == "*":
                yield from _each_claims(selector, spec, origin)
            elif isinstance(selector, Term):
                raise LpcError(_misplaced(spec, origin, f"`{selector}` is no selector of block `{block}`"))
            else:
                yield Claim(block, selector, origin)


def _each_claims(term: str | Term, spec: Spec, origin: Path) -> Iterator[Claim]:
    if not isinstance(term, Term) or term.name != "each":
        raise LpcError(_misplaced(spec, origin, f"`{term}` cannot name its own blocks"))
    if not term.args or term.kwargs or not all(isinstance(a, str) for a in term.args):
        raise LpcError(_misplaced(spec, origin, f"`{term}` takes one or more patterns over module paths"))
    for pattern in term.args:
        yield Claim(None, str(pattern), origin)


def _misplaced(spec: Spec, origin: Path, message: str) -> Diagnostic:
    return Diagnostic("0307", message, span=spec.origin(*origin))
