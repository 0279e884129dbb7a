"""Who computes when? Devices over time in text, a letter a block, and how much faster they are together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from rich.console import RenderableType

from lpc.specs.timeline import STEPS, Slot, Timeline
from lpc.views.tables import table
from lpc.views.units import count

WIDTH = 72
LETTERS = ascii_uppercase + ascii_lowercase


def shown(timelines: Sequence[Timeline]) -> Iterator[RenderableType]:
    """Yield the last timeline's devices over time, what its letters mean, and all timelines' speeds."""
    last = timelines[-1]
    letters = {block: LETTERS[index % len(LETTERS)] for index, block in enumerate(last.placement)}
    yield f"{STEPS} steps, a unit of time for each floating-point operation\n"
    for device in range(last.devices):
        yield f"{device:>3}  {_line([s for s in last.slots if s.device == device], _end(last), letters)}"
    yield "\n" + ", ".join(f"{letter} {block}" for block, letter in letters.items())
    speeds = table(right=("devices", "steps in the time of one", "of each device busy"))
    for one in timelines:
        speeds.add_row(str(one.devices), f"{one.speedup:.2f}", f"{100 * one.speedup / one.devices:.0f} %")
    yield ""
    yield speeds
    share = f", {100 * last.path / last.work:.0f} % of the step" if last.work else ""
    yield f"\nlongest chain of calls that wait for each other: {count(round(last.path))} flops{share}"


def plain(timelines: Sequence[Timeline]) -> dict[str, Any]:
    """Return all timelines with their speeds."""
    return {"timelines": [{**asdict(one), "devices": one.devices, "speedup": one.speedup} for one in timelines]}


def _end(timeline: Timeline) -> float:
    return max((slot.end for slot in timeline.slots), default=0.0) or 1.0


def _line(slots: Sequence[Slot], end: float, letters: Mapping[str, str]) -> str:
    """Return a device's time as letters: the block that runs in the middle of each, a dot where none does."""
    cells = ["·"] * WIDTH
    for slot in slots:
        for cell in range(round(slot.start / end * WIDTH), round(slot.end / end * WIDTH)):
            cells[cell] = letters[slot.block]
    return "".join(cells)
