"""What does `lpc profile` do? It times the instructions of a plan's step, and may write a trace."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

import lpc
from lpc.collecting import load
from lpc.inspecting import PlanPath
from lpc.output import say, show


def profile(
    plan: PlanPath,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="steps that are measured")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="random batches of this size", show_default=False)
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write a Chrome trace (Perfetto)", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """Time each instruction of a training step. The plan stays as it is."""
    from lpc.specs.files import write_atomically
    from lpc.views import profile as view

    load("lpc.profiling")
    found = lpc.profile(lpc.load(plan), steps, device, batch)
    if json:
        say(json_text.dumps(view.plain(found), indent=1))
    else:
        for one in view.shown(found):
            say(one) if isinstance(one, str) else show(one)
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(trace, found.trace().encode())
        if not json:
            say(f"wrote {trace}")
