"""What was measured of a plan on this machine? Its kernels, and what processes cost each other, as text or data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from lpc.specs.plan.encode import encoder
from lpc.specs.simulation.calibration import Calibration
from lpc.views.tables import table
from lpc.views.units import size, time

MOST = 12  # kernels that are shown, those that take longest


def shown(found: Calibration) -> Iterator[RenderableType]:
    """Yield the slowest kernels, and what processes cost each other."""
    kernels = table("kernel", right=("time",))
    for name, seconds in sorted(found.kernels.items(), key=lambda one: -one[1])[:MOST]:
        kernels.add_row(name, time(seconds))
    if len(found.kernels) > MOST:
        kernels.add_row(f"... and {len(found.kernels) - MOST} more", "")
    yield kernels
    processes = found.processes
    lengths = ", ".join(f"{name} = {length}" for name, length in found.lengths.items())
    yield f"\na step in one process: {time(processes.steps[0])} on {found.device}, {lengths}"
    for count, seconds in enumerate(processes.steps[1:], 2):
        yield f"{count} at a time: {time(seconds)} each"
    for one in processes.waking:
        yield f"after {time(one.gap)} of sleep: {time(one.seconds)} more"
    if not processes.alone:
        rate = f"{size(round(1 / processes.byte))}/s" if processes.byte else "no time for its bytes"
        yield f"a value costs each end {time(processes.value)} and {rate}; {time(processes.latency)} on its way"


def plain(found: Calibration) -> Any:
    """Return what the file holds."""
    return encoder(Calibration)(found)
