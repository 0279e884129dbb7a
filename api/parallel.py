"""How does the command run a plan? In this process, as one of several that a launcher started, or as the launcher."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

import lpc
from lpc.output import tell
from lpc.plan import Plan

if TYPE_CHECKING:
    from lpc.runtime.report import Reporter
    from lpc.runtime.workers.worker import Worker

PLAN, LOGS = "run.plan", "logs"  # in the folder of a run
T = TypeVar("T")
DEFECT = 1  # the exit code of a worker that failed in a way that nobody foresaw


@dataclass(frozen=True)
class Fit:
    """What `lpc run` was told of a run."""

    folder: Path
    device: str
    resume: bool
    tensorboard: bool
    memory: bool
    trace: bool
    patience: float
    keep: int  # MiB
    threads: bool = False  # workers are threads of this process

    def options(self) -> list[str]:
        """Return them as options of the command, for workers."""
        flags = {"--resume": self.resume, "--tensorboard": self.tensorboard, "--trace": self.trace}
        values = ["--out", str(self.folder), "--device", self.device, "--patience", str(self.patience)]
        return [*values, "--keep", str(self.keep), *(flag for flag, given in flags.items() if given)]


def launch(plan: Plan, how: Fit, workers: int | None, restarts: int) -> Mapping[str, Any] | None:
    """Start the workers that are asked for and wait for them; rank 0 shows the run. None where this process runs."""
    from lpc.runtime.workers.join import is_worker
    from lpc.runtime.workers.supervisor import Supervisor
    from lpc.specs.ranks.mesh import workers_of
    from lpc.specs.ranks.plan import rank_plans

    asked = workers or workers_of(plan.spec)
    if is_worker():
        ensure_agreed(workers)
        if how.threads:
            message = "`--threads` is for one process, and several were started"
            raise lpc.LpcError(lpc.Diagnostic("0684", message, place="--threads"))
        return None
    if asked == 1 or how.threads:
        return None
    if how.memory:
        raise lpc.LpcError(lpc.Diagnostic("0684", "`--memory` measures one process", place="--memory"))
    rank_plans(plan.data, plan.spec, asked)
    _keep(plan, how)
    options = (how if restarts else replace(how, keep=0)).options()  # nobody comes back
    command = ["-m", "lpc", "run", str(how.folder / PLAN), *options]
    again = () if how.resume else ("--resume",)
    supervisor = Supervisor(command, asked, how.folder / LOGS, restarts, again, patience=how.patience)
    ended = supervisor.run()
    if ended.code:
        raise typer.Exit(ended.code)
    return {}


def _keep(plan: Plan, how: Fit) -> None:
    """Save the plan in the folder. A run that goes on has to be of it (0671), before the one there is replaced."""
    from lpc.runtime import pieces
    from lpc.runtime.checkpoint import LAST
    from lpc.specs.plan.manifest import plan_hash

    if how.resume and pieces.exists(how.folder / LAST):
        pieces.read(how.folder / LAST, ()).ensure_of(plan_hash(plan.data))
    how.folder.mkdir(parents=True, exist_ok=True)
    plan.save(how.folder / PLAN)


def fit(plan: Plan, how: Fit, order: Path | None = None, workers: int | None = None) -> Mapping[str, Any]:
    """Train in this process: alone, as one of several, or as all of them, in threads or by a recorded `order`.

    A worker that is not the first one returns nothing.
    """
    from lpc.runtime.report import default_reporter
    from lpc.runtime.workers.join import is_worker
    from lpc.specs.ranks.mesh import workers_of

    if order is not None:
        from lpc.replaying import replay

        return replay(plan, order, how.folder, how.device, default_reporter(), how.patience)
    if is_worker():
        return working(partial(_work, plan, how))
    reporter = default_reporter()
    if how.threads and (asked := workers or workers_of(plan.spec)) > 1:
        return _crew(plan, how, asked, reporter)
    trainer = lpc.Trainer(plan, how.device)
    return trainer.fit(
        how.folder, resume=how.resume, reporter=reporter, tensorboard=how.tensorboard, memory=how.memory,
        trace=how.trace,
    )


def _crew(plan: Plan, how: Fit, workers: int, reporter: Reporter) -> Mapping[str, Any]:
    """Work on all ranks, with one thread of torch's for each unless the environment says how many."""
    import torch

    from lpc.runtime.workers.crew import Crew

    def act(worker: Worker) -> Mapping[str, Any]:
        own = None if worker.transport.rank else reporter
        return worker.fit(
            how.folder, resume=how.resume, reporter=own, tensorboard=how.tensorboard, trace=how.trace
        )

    if how.memory:
        raise lpc.LpcError(lpc.Diagnostic("0684", "`--memory` measures a process with one worker", place="--memory"))
    crew = Crew[Mapping[str, Any]](plan.data, workers, how.device, how.patience)
    _keep(plan, how)
    before = torch.get_num_threads()
    torch.set_num_threads(before if "OMP_NUM_THREADS" in os.environ else 1)
    try:
        return crew.run(act)[0]
    finally:
        torch.set_num_threads(before)


def _work(plan: Plan, how: Fit) -> Mapping[str, Any]:
    """Work until the run is over."""
    from lpc.runtime.report import default_reporter
    from lpc.runtime.workers.join import join
    from lpc.runtime.workers.supervisor import STORE

    worker = join(plan.data, how.device, patience=how.patience, kept=how.keep * 2**20)
    reporter = default_reporter() if worker.transport.rank == 0 else None
    if worker.transport.rank == 0 and STORE not in os.environ:  # torchrun keeps no plan
        _keep(plan, how)
    summary = worker.fit(how.folder, resume=how.resume, reporter=reporter, tensorboard=how.tensorboard, trace=how.trace)
    worker.transport.close()
    return summary if worker.transport.rank == 0 else {}


def working(work: Callable[[], T]) -> T:
    """Do what a worker does. One that fails leaves at once: its threads may wait for ranks that are gone."""
    from lpc.runtime.workers.supervisor import LOSSES, LOST, MISTAKE

    try:
        return work()
    except lpc.LpcError as error:
        for problem in error.diagnostics:
            tell(problem)
        codes = {problem.code for problem in error.diagnostics}
        _leave(LOST if codes.intersection(LOSSES) else MISTAKE)
    except Exception:
        traceback.print_exc()
        _leave(DEFECT)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ensure_agreed(workers: int | None) -> None:
    """Refuse another number of workers than that of the processes that a launcher has started (0684)."""
    size = int(os.environ["WORLD_SIZE"])
    if workers not in (None, size):
        message = f"{workers} workers are asked for, and {size} processes were started"
        raise lpc.LpcError(lpc.Diagnostic("0684", message, place="--workers"))
