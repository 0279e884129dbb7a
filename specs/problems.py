"""What went wrong while reading? Diagnostics that reading goes on after, so that all are told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lpc.specs.diagnostics import Diagnostic, Fix, Label, LpcError, nearest, respelt
from lpc.specs.source import Span
from lpc.specs.tree import Node, Path


class Problems:
    """Collects diagnostics."""

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []

    def add(
        self,
        code: str,
        message: str,
        span: Span | None,
        path: Path = (),
        help: str | None = None,
        notes: tuple[str, ...] = (),
        labels: tuple[Label, ...] = (),
        fix: Fix | None = None,
    ) -> None:
        """Note a problem; without a span the place is the path of the value."""
        place = None if span is not None else f"spec: {dotted(path) or 'top level'}"
        self.found.append(Diagnostic(code, message, span, place, notes, help, labels=labels, fix=fix))

    def misspelt(
        self,
        code: str,
        message: str,
        span: Span | None,
        path: Path,
        found: str,
        known: Iterable[str],
        otherwise: str | None = None,
    ) -> None:
        """Note a problem of a name: help and fix are the known name near to it; `otherwise` helps without one."""
        near = nearest(found, known)
        if near is None:
            self.add(code, message, span, path, otherwise)
        else:
            self.add(code, message, span, path, f"did you mean `{near}`?", fix=respelt(span, found, near))

    def at(self, code: str, message: str, node: Node, help: str | None = None) -> None:
        """Note a problem of a node."""
        self.add(code, message, node.span, help=help)

    def reading(self, read: Callable[[Node], Node], node: Node, instead: Node) -> Node:
        """Return what `read` makes of a node; if it raises, note its problems and return `instead`."""
        try:
            return read(node)
        except LpcError as error:
            self.found.extend(error.diagnostics)
            return instead

    def raise_any(self) -> None:
        """Raise what was found, in the order of the text."""
        unique = self.in_order()
        if any(d.severity == "error" for d in unique):
            raise LpcError(unique)

    def in_order(self) -> list[Diagnostic]:
        """Return what was found, each once, in the order of the text."""
        return sorted(dict.fromkeys(self.found), key=_order)


def _order(diagnostic: Diagnostic) -> tuple[str, int, int]:
    span = diagnostic.span
    return (span.source.name, span.line, span.column) if span else (diagnostic.place or "", 0, 0)


def dotted(path: Path) -> str:
    """Return a path as it is written for an override: `learn[0].optimizer.lr`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{_segment(key)}" for key in path)
    return text.removeprefix(".")


def _segment(key: str) -> str:
    return key if key and not set(key) & set('.[]="') else f'"{key}"'
