"""What does `lpc calibrate` do? It measures what a plan takes on this machine, alone and beside others, into a file."""

from __future__ import annotations

import json as json_text
import os
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

import lpc
from lpc.inspecting import PlanPath
from lpc.output import say, show

if TYPE_CHECKING:
    from lpc.plan import Plan
    from lpc.runtime.workers.calibrating import Calibrator
    from lpc.runtime.workers.transport import Transport
    from lpc.specs.simulation.calibration import Calibration

ROUND = 4  # steps of each kind in a round
BATCHES = 4  # steps of which the batches are at hand


def calibrate(
    plan: PlanPath,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="the JSON file to write")
    ] = Path("costs.json"),
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="K", min=1, help="processes at a time, such as the machine has cores or GPUs; default: one",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="steps that are measured, of each kind")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="random batches of this size", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """Measure a plan's kernels, and what processes cost each other, for `lpc inspect --timeline --costs FILE`."""
    from lpc.parallel import ensure_agreed, working
    from lpc.runtime.workers.join import is_worker

    found = lpc.load(plan)
    output.parent.mkdir(parents=True, exist_ok=True)
    if is_worker():
        ensure_agreed(workers)
        measured = working(partial(_together, found, steps, device, batch))
    elif workers is None or workers == 1:
        measured = measure(found, steps, device, batch)
    else:
        options = ["--steps", str(steps), "--device", device, "--output", str(output), *(["--json"] if json else [])]
        options += [] if batch is None else ["--batch", str(batch)]
        _launch(["-m", "lpc", "calibrate", str(plan), *options], workers)
        return
    if measured is not None:
        measured.write(output)
        _tell(measured, output, json)


def measure(plan: Plan, steps: int = 20, device: str = "auto", batch: int | None = None) -> Calibration:
    """Train a copy of the plan for some steps in this process, and measure them.

    The plan's own data are used where its spec names any, else random numbers. Raises LpcError as `Trainer` does.
    """
    from lpc.runtime.workers.transport import Alone

    return _measured(plan, steps, device, batch, Alone()).found()


def _measured(plan: Plan, steps: int, device: str, batch: int | None, transport: Transport) -> Calibrator:
    from lpc.profiling import groups_of
    from lpc.runtime.report import Quiet, default_reporter
    from lpc.runtime.workers.calibrating import Calibrator

    trainer = lpc.Trainer(plan, device)
    calibrator = Calibrator(trainer, list(islice(groups_of(trainer, plan, batch), BATCHES)), transport)
    reporter = Quiet() if transport.rank or steps <= ROUND else default_reporter()
    reporter.start(0, steps)
    try:
        for done in range(0, steps, ROUND):
            calibrator.round(count := min(ROUND, steps - done))
            reporter.step(done + count, {"seconds": calibrator.steps[-1][0]})
    finally:
        reporter.end()
    return calibrator


def _together(plan: Plan, steps: int, device: str, batch: int | None) -> Calibration | None:
    """Measure on all ranks; None on those that are not the first."""
    from lpc.runtime.workers.calibrating import EDGES
    from lpc.runtime.workers.gloo import Gloo
    from lpc.runtime.workers.join import device_of, meet
    from lpc.runtime.workers.transport import PATIENCE

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    own = device_of(plan.data, device if device != "auto" else plan.spec.run.device)
    transport = Gloo(EDGES, own, meet(rank, size, PATIENCE))
    calibrator = _measured(plan, steps, str(own), batch, transport)
    transport.close()
    return calibrator.found() if rank == 0 else None


def _launch(command: list[str], workers: int) -> None:
    from lpc.runtime.workers.supervisor import MISTAKE, Supervisor

    with TemporaryDirectory() as name:
        ended = Supervisor(command, workers, Path(name), restarts=0).run()
        if ended.code:
            for log in sorted(Path(name).iterdir()) if ended.code != MISTAKE else ():  # which the first rank has told
                sys.stderr.write(log.read_text(errors="replace"))
            raise typer.Exit(ended.code)


def _tell(found: Calibration, output: Path, json: bool) -> None:
    from lpc.views import calibration as view

    if json:
        say(json_text.dumps(view.plain(found), indent=1))
        return
    for one in view.shown(found):
        say(one) if isinstance(one, str) else show(one)
    say(f"wrote {output}")
