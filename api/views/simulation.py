"""How would a plan run on other numbers of processes? Step times, waiting and bytes, and who computes when, in text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType

from lpc.specs.simulation.engine import Simulation
from lpc.views.tables import table
from lpc.views.units import size, time

MOST_ROWS = 16  # ranks that are drawn
WIDTH = 72


@dataclass(frozen=True)
class Prediction:
    """What was simulated: by number of processes, under which assumptions."""

    assumed: str
    found: Mapping[int, Simulation]


def shown(prediction: Prediction) -> Iterator[RenderableType]:
    """Yield the ranks of the largest number over time, and a row for each number of processes."""
    workers, last = max(prediction.found.items())
    yield f"{last.steps} steps on {workers} processes; {prediction.assumed}\n"
    end = max(max(ends) for ends in last.ends) or 1.0
    for rank in range(min(workers, MOST_ROWS)):
        yield f"{rank:>4}  {_line(last, rank, end)}"
    if workers > MOST_ROWS:
        yield f"      ... and {workers - MOST_ROWS} more"
    yield "      digits: the step, modulo 10; a dot: waiting\n"
    rows = table(right=("processes", "step", "of one", "waiting", "sent a step"))
    one = prediction.found[min(prediction.found)]
    for count, each in prediction.found.items():
        gained = f"{one.period / each.period:.2f}" if each.period else "-"
        rows.add_row(str(count), time(each.period), gained, f"{100 * each.bubble:.0f} %", size(round(each.traffic)))
    yield rows


def plain(prediction: Prediction) -> dict[str, Any]:
    """Return the figures of each number of processes."""
    return {
        "assumed": prediction.assumed,
        "workers": [
            {
                "workers": count, "step_seconds": one.period, "first_step_seconds": one.first,
                "bubble": one.bubble, "bytes_sent": one.traffic,
            }
            for count, one in prediction.found.items()
        ],
    }  # fmt: skip


def _line(found: Simulation, rank: int, end: float) -> str:
    cells: list[str] = ["·"] * WIDTH
    for busy in found.busy:
        if busy.rank == rank:
            for cell in range(round(busy.start / end * WIDTH), round(busy.end / end * WIDTH)):
                cells[cell] = str(busy.step % 10)
    return "".join(cells)
