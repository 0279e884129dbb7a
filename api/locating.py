"""Where did the user write what a plan's own spec says? In the file that the plan was built from just now, or there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lpc.plan import Plan
from lpc.specs import Spec
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.source import Source, Span


@contextmanager
def located(plan: Plan, source: Path, written: Spec | None) -> Iterator[None]:
    """Let diagnostics point into `written`, the spec as its user wrote it, or say that they mean the plan's spec.

    `source` is the path of the plan where there is no such spec.
    """
    try:
        yield
    except LpcError as error:
        raise LpcError(_moved(problem, plan, source, written) for problem in error.diagnostics) from error


def _moved(problem: Diagnostic, plan: Plan, source: Path, written: Spec | None) -> Diagnostic:
    span = problem.span
    if span is None or span.source.text != plan.data.spec:
        return problem
    path = plan.spec.path_of(span)
    origin = None if written is None or path is None else written.origin(*path)
    return replace(problem, span=origin or _of_plan(span, source))


def _of_plan(span: Span, source: Path) -> Span:
    return replace(span, source=Source(f"{source}: spec", span.source.text))
