"""What did a verification find? The losses that reach each parameter, its gradient's error, and which are estimates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from lpc.report import METRIC_TOLERANCE, Report

if TYPE_CHECKING:
    from lpc.aligning import Alignment

SHOWN = 5


def parameters(report: Report) -> Table:
    """Return one row for each parameter: the losses that reach it, those that may, its gradient's error."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    indirect = ["through variables"] if report.indirect else []
    for name in ("parameter", "reached by", "declared", *(["target made of"] if report.targets else []), *indirect):
        table.add_column(name, overflow="fold")
    table.add_column("gradient error", justify="right")
    for name, losses in report.influence.items():
        error = report.gradients.get(name)
        declared = report.declared.get(name, frozenset())
        shown = "" if error is None else f"{error:.1e}"
        made = [_names(report.targets.get(name, ()))] if report.targets else []
        made += [_names(report.indirect.get(name, ()))] if indirect else []
        style = "red" if name in report.leaks else None
        table.add_row(name, _names(losses), _names(declared), *made, shown, style=style)
    return table


def alignments(found: Mapping[str, Alignment]) -> Table:
    """Return one row for each block: the cosine of its gradient with the exact one, and its length over that one's."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("block", "cosine with the exact gradient", "length over its"):
        table.add_column(name, justify="left" if name == "block" else "right")
    for block, one in found.items():
        table.add_row(block, f"{one.cosine:.3f}", f"{one.ratio:.3f}")
    return table


def verdict(report: Report) -> str:
    """Return what the report comes to, in a line; more for leaks, for what is wrong, and for blocks that estimate."""
    leaks = [f"leak: {name} is reached by {_names(losses)}" for name, losses in report.leaks.items()]
    untold = "it is not trained, and no entry of `learn` says so by `train: false`"
    leaks += [f"unreached: no loss reaches {name}; {untold}" for name in report.unreached]
    leaks += list(_wrong(report))
    estimators = [f"estimator of {block}: {stamp}" for block, stamp in report.estimators.items()]
    head = "verified" if report.ok else "not verified"
    compared = sum(map(len, report.errors.values())) + 1
    numbers = f"{compared} values compared in float64, largest relative error {report.worst:.1e}"
    return "\n".join([*leaks, *estimators, f"{head}: {numbers}"])


def _wrong(report: Report) -> Iterator[str]:
    """Yield the largest errors that are too large, a few of each kind."""
    for what, errors in {**report.errors, "metrics": report.metrics, "output": {"output": report.output}}.items():
        limit = METRIC_TOLERANCE if what == "metrics" else report.tolerance
        wrong = sorted((name for name in errors if not errors[name] <= limit), key=lambda name: -errors[name])
        yield from (f"wrong: {what} {name}, relative error {errors[name]:.1e}" for name in wrong[:SHOWN])
        if len(wrong) > SHOWN:
            yield f"wrong: {what}, {len(wrong) - SHOWN} more"


def _names(losses: Iterable[str]) -> str:
    return ", ".join(sorted(losses)) or "-"
