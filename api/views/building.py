"""How did the network become a graph? The rung of the trace, and what stood in the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RUNGS = {
    "layers": "layers written in the spec",
    "fx": "torch.fx, module by module",
    "export": "torch.export: the root itself cannot be traced by torch.fx",
}


def trace(report: Mapping[str, Any]) -> str:
    """Return the trace's rung, its obstacles and the build's notes and warnings, a line each."""
    return "\n".join(_lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    rung = str(report.get("rung", "unknown"))
    yield f"traced by {RUNGS.get(rung, rung)}"
    yield from (f"obstacle: {obstacle}" for obstacle in report.get("obstacles", ()))
    yield from (f"note: {note}" for note in report.get("notes", ()))
    yield from (f"estimator of {block}: {stamp}" for block, stamp in report.get("estimators", {}).items())
    yield from (f"tangents of {block}: {proof}" for block, proof in report.get("tangents", {}).items())
    yield from (f"warning: {warning}" for warning in report.get("warnings", ()))
