"""What does `lpc inspect` show? A plan's blocks and boundaries, or its graph, program, a kernel, its memory."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import lpc
from lpc.output import say, show

if TYPE_CHECKING:
    from lpc.plan import Plan
    from lpc.specs.memory.prediction import Memory

PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="a plan: folder or .zip", show_default=False)]


class GraphFormat(StrEnum):
    """The forms in which `inspect` prints the partition."""

    dot = "dot"
    graphml = "graphml"
    json = "json"
    svg = "svg"


def inspect(
    plan: PlanPath,
    graph: Annotated[GraphFormat | None, typer.Option(help="print the partition as a graph")] = None,
    program: Annotated[bool, typer.Option("--plan", help="print the program, an instruction a line")] = False,
    kernel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="print one kernel, such as b1.local", show_default=False),
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="predict the memory of a training step")] = False,
    json: Annotated[bool, typer.Option("--json", help="with --memory: print it as JSON, in bytes")] = False,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="with --memory: samples in a batch", show_default=False)
    ] = None,
    length: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="with --memory: a length such as T=128", show_default=False),
    ] = None,
) -> None:
    """Show a plan: its blocks and boundaries, or what is asked for."""
    if not memory and (json or batch is not None or length):
        raise typer.BadParameter("is an option of --memory", param_hint="--json, --batch or --length")
    found = lpc.load(plan)
    chosen = [text for text in (_graph(found, graph), _program(found, program), _kernel(found, kernel)) if text]
    for text in chosen:
        say(text, end="")
    if memory:
        _memory(found.memory(batch, dict(map(_length, length or ()))), json)
    elif not chosen:
        _overview(found)


def _length(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not name or not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(f"`{text}` is no `NAME=N` with a positive number", param_hint="--length")
    return name, int(value)


def _graph(plan: Plan, form: GraphFormat | None) -> str | None:
    from lpc import graphs

    writers: dict[GraphFormat, Callable[..., str]] = {
        GraphFormat.dot: graphs.to_dot,
        GraphFormat.graphml: graphs.to_graphml,
        GraphFormat.json: graphs.to_json,
        GraphFormat.svg: graphs.to_svg,
    }
    return None if form is None else writers[form](plan.partition)


def _program(plan: Plan, wanted: bool) -> str | None:
    return plan.text() if wanted else None


def _kernel(plan: Plan, name: str | None) -> str | None:
    return None if name is None else plan.kernel(name)


def _memory(found: Memory, json: bool) -> None:
    from lpc.views import memory

    if json:
        say(memory.json_text(found), end="")
        return
    show(memory.blocks(found))
    say(memory.peak(found), end="")


def _overview(plan: Plan) -> None:
    from lpc.views import building, partition

    say(f"plan {plan.spec.name}, {plan.hash[:12]}, target {plan.data.target}, torch {plan.data.torch}")
    say(building.trace(plan.data.report) + "\n")
    show(partition.blocks(plan.data))
    say("")
    show(partition.boundaries(plan.data))
