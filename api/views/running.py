"""What did a run come to? Its summary, a split a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lpc.views.units import duration, size

SPLITS = ("train", "validation", "test")
SHARES = ("accuracy", "top5", "error")


def metrics(summary: Mapping[str, Any]) -> Table:
    """Return one row for each metric and one column for each split that was measured."""
    splits = [split for split in SPLITS if split in summary]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("metric")
    for split in splits:
        table.add_column(split, justify="right")
    for name in dict.fromkeys(name for split in splits for name in summary[split]):
        table.add_row(name, *(_number(name, summary[split].get(name)) for split in splits))
    return table


def outcome(summary: Mapping[str, Any]) -> str:
    """Return the last line of a run: steps, time, and the test accuracy where there is one."""
    early = ", stopped early" if summary["stopped_early"] else ""
    text = f"{summary['steps']} steps in {duration(summary['seconds'])} on {summary['device']}{early}"
    accuracy = summary.get("test_accuracy")
    return text if accuracy is None else f"{text}: test accuracy {100 * accuracy:.2f} %"


def memory(summary: Mapping[str, Any]) -> str:
    """Return the line that compares the measured memory of a step with the predicted one, where it was measured."""
    if "memory" not in summary:
        return ""
    measured, predicted = summary["memory"]["measured"], summary["memory"]["predicted"]
    difference = f"{100 * (predicted / measured - 1):+.1f} %"
    return f"peak memory of a step: measured {size(measured)}, predicted {size(predicted)} ({difference})\n"


def trace(summary: Mapping[str, Any]) -> str:
    """Return the line that tells how far processes computed at the same time, where that was recorded."""
    if "trace" not in summary:
        return ""
    found = summary["trace"]
    shares = ", ".join(f"{100 * share:.0f} %" for share in found["waiting"])
    return f"{found['overlap']:.2f} of {len(found['waiting'])} processes compute at a time; waiting: {shares}\n"


def staleness(summary: Mapping[str, Any]) -> str:
    """Return the line that tells how stale the values were that updates used, where steps overlapped."""
    if "staleness" not in summary:
        return ""
    found = summary["staleness"]
    return f"staleness of updates: {found['mean']:.2f} steps on average, {found['largest']} at most\n"


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.2f} %" if name.rpartition(".")[2] in SHARES else f"{value:.4g}"
