"""What is there to know of one block? Its problem, its lines of the spec, its kernels, its share of memory and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape

from lpc.views.tables import table
from lpc.views.units import count, size


def shown(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what the facts of a block say, a part after the other."""
    problem = table("local problem", "")
    for name, formula in facts["math"]:
        problem.add_row(name, escape(formula))
    yield problem
    if facts["estimator"]:
        yield f"estimator: {facts['estimator']}"
    yield "\nin the spec\n" + "\n".join(f"{number:>5}  {line}" for number, line in facts["spec"]) + "\n"
    kernels = table("kernel", right=("operators", "calls", "flops"))
    for one in facts["kernels"]:
        kernels.add_row(one["name"], str(one["nodes"]), f"{one['calls']:g}", count(one["flops"]))
    yield kernels
    yield ""
    if facts["boundaries"]:
        yield _boundaries(facts["boundaries"])
        yield ""
    yield _sizes(facts)


def _boundaries(boundaries: list[dict[str, Any]]) -> RenderableType:
    made = table("boundary", "link", "tensors, for one sample")
    for one in boundaries:
        tensors = ", ".join(f"{name} {kind} {size(held)}" for name, kind, held in one["tensors"])
        made.add_row(*map(escape, (f"{one['from']} -> {one['to']}", one["link"], tensors)))
    return made


def _sizes(facts: Mapping[str, Any]) -> RenderableType:
    made = table("memory", right=("",))
    for name, held in facts["memory"].items():
        if name != "share":
            made.add_row(name, size(held))
    made.add_row("flops of a step", count(facts["flops"]))
    made.add_row("parameters", str(len(facts["parameters"])))
    return made
