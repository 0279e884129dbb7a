"""What does `lpc inspect` show? A plan's blocks and boundaries, or what is asked for, as text, JSON or a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lpc
from lpc.output import say, show

if TYPE_CHECKING:
    from lpc.plan import Plan

Workers = Annotated[
    int | None, typer.Option(metavar="K", min=1, help="with --timeline: simulate up to K processes", show_default=False)
]
RateNames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=X", help="with --workers: flops, overhead, updated, bandwidth, latency, cores",
        show_default=False,
    ),
]
Costs = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="with --workers: what `lpc calibrate` has measured", show_default=False),
]
PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="a plan: folder or .zip", show_default=False)]


class GraphFormat(StrEnum):
    """The forms in which `inspect` prints the partition."""

    dot = "dot"
    graphml = "graphml"
    json = "json"
    svg = "svg"
    model_explorer = "model-explorer"


@dataclass(frozen=True)
class Question:
    """What reports are asked for, and of which lengths, devices and block."""

    batch: int | None = None
    lengths: dict[str, int] = field(default_factory=dict)
    devices: int = 1
    block: str | None = None
    workers: int | None = None
    rates: dict[str, float] = field(default_factory=dict)
    ranks: int | None = None
    costs: Path | None = None


def inspect(
    plan: PlanPath,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write a page for the browser", show_default=False)
    ] = None,
    graph: Annotated[GraphFormat | None, typer.Option(help="print the partition as a graph")] = None,
    program: Annotated[bool, typer.Option("--plan", help="print the program, an instruction a line")] = False,
    ranks: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="print the program of each of N processes; with --memory: what each needs",
            show_default=False,
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="print one kernel, such as b1.local", show_default=False),
    ] = None,
    block: Annotated[
        str | None, typer.Option(metavar="NAME", help="tell everything about one block", show_default=False)
    ] = None,
    flow: Annotated[bool, typer.Option("--flow", help="which losses reach which parameters")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="predict the memory of a training step")] = False,
    cost: Annotated[bool, typer.Option("--cost", help="count the operations of a training step")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="when each device computes what")] = False,
    devices: Annotated[int, typer.Option(metavar="N", min=1, help="with --timeline: this many devices")] = 2,
    workers: Workers = None,
    rate: RateNames = None,
    costs: Costs = None,
    json: Annotated[bool, typer.Option("--json", help="print what is asked for as JSON")] = False,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="samples in a batch", show_default=False)
    ] = None,
    length: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="a length such as T=128", show_default=False)
    ] = None,
) -> None:
    """Show a plan: its blocks and boundaries, or what is asked for."""
    rates = dict(map(named_rate, rate or ()))
    question = Question(batch, dict(map(named_length, length or ())), devices, block, workers, rates, ranks, costs)
    _ensure_belongs(question, timeline)
    asked = {"block": block is not None, "flow": flow, "memory": memory, "cost": cost}
    asked |= {"timeline": timeline and workers is None, "simulation": workers is not None}
    names = [name for name, wanted in asked.items() if wanted]
    if html is None and not names and (batch is not None or length):
        raise typer.BadParameter("belongs to --html, --block, --memory, --cost or --timeline", param_hint="--batch")
    found = lpc.load(plan)
    rank_texts = None if memory else ranks
    printed = (_graph(found, graph), _program(found, program), _ranks(found, rank_texts), _kernel(found, kernel))
    texts = [text for text in printed if text]
    for text in texts:
        say(text, end="")
    if html is not None:
        _page(found, html, question)
    if json:
        say(_json(found, names or ["overview"], question), end="")
    elif names or not (texts or html):
        _show(found, names or ["overview"], question)


def _ensure_belongs(question: Question, timeline: bool) -> None:
    """Raise BadParameter for an option that says nothing without another one, or the same as another one."""
    from lpc.views.simulating import ESTIMATED

    if question.workers is not None and not timeline:
        raise typer.BadParameter("belongs to --timeline", param_hint="--workers")
    for hint, given in (("--rate", question.rates), ("--costs", question.costs)):
        if given and question.workers is None:
            raise typer.BadParameter("belongs to --workers", param_hint=hint)
    if question.costs is not None and (known := question.rates.keys() & ESTIMATED):
        raise typer.BadParameter(f"`{min(known)}` is measured where `--costs` is given", param_hint="--rate")


def named_length(text: str) -> tuple[str, int]:
    """Read `T=128`. Raises BadParameter for anything else."""
    name, _, value = text.partition("=")
    if not name or not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(f"`{text}` is no `NAME=N` with a positive number", param_hint="--length")
    return name, int(value)


def named_rate(text: str) -> tuple[str, float]:
    """Read `flops=1e13`. Raises BadParameter for anything else."""
    from lpc.views.simulating import RATES

    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    zero, whole = name in ("overhead", "latency"), name != "cores" or number.is_integer()
    if name not in RATES or not 0 <= number < float("inf") or (number == 0 and not zero) or not whole:
        known = ", ".join(RATES)
        raise typer.BadParameter(f"`{text}` is no `NAME=X` with a name of {known} and a number", param_hint="--rate")
    return name, number


def _graph(plan: Plan, form: GraphFormat | None) -> str | None:
    from lpc import graphs
    from lpc.explorer import to_model_explorer

    writers: dict[GraphFormat, Callable[[Plan], str]] = {
        GraphFormat.dot: lambda plan: graphs.to_dot(plan.partition),
        GraphFormat.graphml: lambda plan: graphs.to_graphml(plan.partition),
        GraphFormat.json: lambda plan: graphs.to_json(plan.partition),
        GraphFormat.svg: lambda plan: graphs.to_svg(plan.partition),
        GraphFormat.model_explorer: to_model_explorer,
    }
    return None if form is None else writers[form](plan)


def _program(plan: Plan, wanted: bool) -> str | None:
    return plan.text() if wanted else None


def _ranks(plan: Plan, ranks: int | None) -> str | None:
    from lpc.specs.ranks.plan import ranks_text

    return None if ranks is None else ranks_text([own.data for own in plan.ranks(ranks)])


def _kernel(plan: Plan, name: str | None) -> str | None:
    return None if name is None else plan.kernel(name)


def _page(plan: Plan, path: Path, question: Question) -> None:
    from lpc.specs.files import write_atomically
    from lpc.views.html.page import page

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(plan, question.batch, question.lengths).encode())
    say(f"wrote {path}")


def _show(plan: Plan, names: list[str], question: Question) -> None:
    from lpc.views.inspection import REPORTS

    for index, name in enumerate(names):
        if index:
            say("")
        for view in _shown(REPORTS[name].find(plan, question), name):
            say(view) if isinstance(view, str) else show(view)


def _shown(found: Any, name: str) -> Iterator[Any]:
    from lpc.views.inspection import REPORTS

    return REPORTS[name].shown(found)


def _json(plan: Plan, names: list[str], question: Question) -> str:
    """Return the only report as it is, several under their names."""
    from lpc.views.inspection import REPORTS

    told = {name: REPORTS[name].plain(REPORTS[name].find(plan, question)) for name in names}
    return json.dumps(told if len(told) > 1 else next(iter(told.values())), indent=1, default=str) + "\n"
