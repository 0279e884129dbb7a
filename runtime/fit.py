"""How does a whole run go? Epochs of steps, with logging, validation and checkpoints when they are due."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lpc.runtime import checkpoint, pieces
from lpc.runtime.batch import Batch
from lpc.runtime.checkpoint import BEST, LAST, Progress
from lpc.runtime.data import batches
from lpc.runtime.engine import Engine
from lpc.runtime.footprint import Footprint
from lpc.runtime.journal import FILE, Journal
from lpc.runtime.meter import Meter
from lpc.runtime.period import due
from lpc.runtime.phases import stretch_at
from lpc.runtime.report import Quiet, Reporter
from lpc.runtime.stopping import criterion, find
from lpc.runtime.tracing import Tracer
from lpc.runtime.workers.order import FILE as ORDER
from lpc.runtime.workers.order import Order
from lpc.runtime.workers.transport import Stamp
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.files import leftovers, write_atomically

SUMMARY = "summary.json"
STARTING = Stamp(-1, 0, "the start of the run")


def fit(
    engine: Engine, folder: Path | None, resume: bool, reporter: Reporter | None, tensorboard: bool, memory: bool,
    trace: bool = False,
) -> dict[str, Any]:
    """Run the spec's `run` section on an engine and return its summary (see `Trainer.fit`)."""
    run = _Run(engine, folder, reporter or Quiet(), memory, trace)
    try:
        run.begin(resume, tensorboard)
        run.train()
        return run.summary()
    finally:
        run.end()


def ensure_whole(engine: Engine) -> None:
    """Refuse (0673) batches of some samples where formulas solve the weights for all of them."""
    solved = [variable for variable in engine.plan.program.variables.values() if not variable.optimizer]
    if solved and engine.steps_per_epoch > 1:
        size, count = engine.batch_size, len(engine.splits.train)
        message = f"a step solves the weights for its {size} samples alone, and there are {count}"
        span = engine.spec.origin("data", "batch")
        place = None if span else "data.batch"
        raise LpcError(Diagnostic("0673", message, span, place, help=f"write `batch: {count}`"))


class _Run:
    """One run: what is due when, and how far it is."""

    def __init__(self, engine: Engine, folder: Path | None, reporter: Reporter, memory: bool, trace: bool) -> None:
        self.engine = engine
        self.tracer = Tracer(engine) if trace else None
        self.footprint = Footprint(engine) if memory else None
        self.folder = folder
        self.leads = engine.transport.rank == 0  # one rank reports, and writes what is not a block's
        self.reporter = reporter if self.leads else Quiet()
        self.progress = Progress()
        self.window = Meter(engine.plan.program.metrics)  # since the last log point
        self.latest: dict[str, dict[str, float]] = {}
        self.journal = Journal(None)
        self.order: Order | None = None
        self.total, self.per_epoch = engine.total_steps, engine.steps_per_epoch
        ensure_whole(engine)
        self.ends = {phase.end for phase in engine.stretches}
        settings = engine.spec.run
        self.log_due = due(settings.log, self.per_epoch, "run.log")
        self.validation_due = due(settings.validate_, self.per_epoch, "run.validate")
        self.checkpoint_due = due(settings.checkpoint, self.per_epoch, "run.checkpoint")
        held_out = (name for name in ("validation", "test") if getattr(engine.splits, name) is not None)
        self.held_out = next(held_out, None)
        if settings.early_stop is not None:
            span = engine.spec.origin("run", "early_stop")
            criterion(settings.early_stop, list(engine.plan.program.metrics), span)
            if self.held_out != "validation":
                message = "`early_stop` needs a validation split: the test split must not decide when to stop"
                raise LpcError(Diagnostic("0672", message, span))

    def begin(self, resume: bool, tensorboard: bool) -> None:
        """Start anew, or where the last checkpoint in the folder was written."""
        if resume and self.folder is None:
            raise LpcError(Diagnostic("0670", "there is no folder to resume from", place="resume"))
        self.plan = self.engine.identity
        self.base = 0.0
        if self.folder is not None:
            if self.leads:
                self.sweep(self.folder)
            self.engine.transport.lead(partial(self.tidy, self.folder, resume), STARTING)
            if resume and pieces.exists(self.folder / LAST):
                self.restore(self.folder / LAST)
            self.stand(self.folder)
        self.journal = Journal(self.folder if self.leads else None, self.progress.step, tensorboard)
        self.engine.steps_done = self.progress.step
        if self.engine.pace is not None:
            self.order = Order(self.engine, self.folder, self.progress.step)
        self.reporter.start(self.progress.step, self.total)
        self.announce()
        self.started = time.perf_counter()

    def sweep(self, folder: Path) -> None:
        """Make the folder, and remove what this rank left when it was killed while it wrote."""
        folder.mkdir(parents=True, exist_ok=True)
        manifests = (pieces.manifest_of(folder / name).name for name in (LAST, BEST))
        for name in (LAST, BEST, SUMMARY, FILE, ORDER, *manifests):
            for torn in leftovers(folder / name):
                torn.unlink(missing_ok=True)

    def tidy(self, folder: Path, resume: bool) -> None:
        """Remove what an earlier run left that is not continued."""
        if not resume or not pieces.exists(folder / LAST):
            for stale in (LAST, BEST):
                pieces.remove(folder / stale)
            (folder / SUMMARY).unlink(missing_ok=True)
            (folder / ORDER).unlink(missing_ok=True)

    def end(self) -> None:
        """Leave terminal and files in order, however the run went."""
        self.reporter.end()
        self.journal.close()

    def restore(self, path: Path) -> None:
        own = {entry.block for entry in self.engine.plan.program.state.values()}
        found = pieces.read(path, own if self.engine.transport.size > 1 else None, self.engine.state)
        found.restore(self.engine.machine, self.plan)
        self.progress = found.progress
        self.base = self.progress.seconds
        device = self.engine.device
        recorded = self.engine.machine.recorded if self.engine.keeps else frozenset()
        totals = {name: total.to(device) for name, total in found.part("meter.").items() if name in recorded}
        self.window.totals, self.window.weights = totals, {name: self.progress.weights[name] for name in totals}

    def stand(self, folder: Path) -> None:
        """Go on from here: with what a process knew whose place this one takes, or as one that others may replace."""
        transport, step = self.engine.transport, self.progress.step
        known = transport.remembered(step)
        if known is None:
            transport.remember(step, self.known())
        else:
            self.window.load(known["window"], self.engine.device)
            self.latest = known["latest"]
        transport.commit(step, partial(pieces.sweep, folder / LAST), STARTING)

    def known(self) -> dict[str, Any]:
        """Return what is in no checkpoint, or is this rank's alone: what it has measured since the last log point."""
        return {"window": self.window.portable(), "latest": self.latest}

    @property
    def over(self) -> bool:
        return self.progress.stopped or self.progress.step >= self.total

    def train(self) -> None:
        """Step until the run is over, epoch by epoch; the order of samples depends on (seed, epoch) alone."""
        engine, parts = self.engine, self.engine.per_step
        while not self.over:
            epoch, within = divmod(self.progress.step, self.per_epoch)
            stream = batches(
                engine.splits.train,
                engine.batch_size,
                seed=engine.spec.run.seed,
                epoch=epoch,
                start=within * parts,
                shuffle=True,
                device=engine.device,
            )
            while not self.over and len(group := list(islice(stream, parts))) == parts:
                self.step(group)

    def step(self, group: Sequence[Batch]) -> None:
        """Do one step and what is due after it; the checkpoint comes last, so that it covers the rest."""
        if self.tracer is not None:
            self.tracer.turn()
        readings = (self.footprint or self.engine).advance(group)
        with torch.inference_mode():
            self.window.add(readings)
        self.progress.step += 1
        step = self.progress.step
        last = step in self.ends
        log, save = self.log_due(step) or last, self.checkpoint_due(step) or self.over
        held_out = self.held_out if self.validation_due(step) or last else None
        if self.order is not None and (log or save or held_out):
            self.meet(self.order)
        if log:
            self.log()
        if held_out is not None:
            self.validate(held_out)
        if save or self.over:  # which may have been stopped by now
            self.save(LAST)
        if last:
            self.announce()

    def meet(self, order: Order) -> None:
        """All ranks end the steps that have begun, and tell in which order they ran."""
        with torch.inference_mode():
            self.window.add(self.engine.settle())
        order.write()

    def announce(self) -> None:
        """Tell which phase comes next, if the run has any."""
        phases = self.engine.plan.program.phases
        if phases and not self.over:
            index = stretch_at(self.engine.stretches, self.progress.step).index
            self.reporter.phase(index + 1, len(phases), phases[index].trains)

    def phase(self) -> dict[str, int]:
        """Return the number of the phase that the last step was in, as an entry of the journal."""
        if not self.engine.plan.program.phases:
            return {}
        return {"phase": stretch_at(self.engine.stretches, self.progress.step - 1).index + 1}

    def log(self) -> None:
        values = self.engine.joined(self.window).values()
        self.window.reset()
        self.latest["train"] = values
        self.reporter.step(self.progress.step, values)
        more = {**self.phase(), "seconds": self.seconds()}
        self.journal.write("train", self.progress.step, self.epoch(), values, **more)

    def validate(self, split: str) -> None:
        """Evaluate the held-out split; only a validation split may choose the best weights or end the run."""
        values = self.engine.evaluate(split)  # type: ignore[arg-type]
        self.latest[split] = values
        best = False
        if split == "validation" and values:
            best = criterion(self.engine.spec.run.early_stop, list(values)).judge(values, self.progress)
        if best:
            self.save(BEST)
        self.reporter.held_out(split, self.progress.step, values, best)
        self.journal.write(split, self.progress.step, self.epoch(), values, **self.phase())

    def save(self, name: str) -> None:
        if self.folder is None:
            return
        self.progress.seconds = self.seconds()
        self.progress.weights = dict(self.window.weights)
        path, engine = self.folder / name, self.engine
        if engine.transport.size > 1:
            if name == LAST:
                engine.transport.remember(self.progress.step, self.known())
            pieces.write(
                path, self.plan, engine.machine, self.progress, self.window, engine.transport, engine.keeps,
                commits=name == LAST,
            )
            return
        checkpoint.write(path, self.plan, engine.machine, self.progress, self.window.totals)
        if pieces.manifest_of(path).exists():  # of several ranks, and older
            pieces.remove_blocks(path)

    def epoch(self) -> float:
        return self.progress.step / self.per_epoch

    def seconds(self) -> float:
        return round(self.base + time.perf_counter() - self.started, 3)

    def summary(self) -> dict[str, Any]:
        """Return what the run came to, and write it to `summary.json`."""
        seconds = self.seconds()
        for split in ("validation", "test"):
            if getattr(self.engine.splits, split) is not None and split not in self.latest:
                self.latest[split] = self.engine.evaluate(split)
        found: dict[str, Any] = {
            "steps": self.progress.step,
            "epochs": self.epoch(),
            "seconds": seconds,
            "device": str(self.engine.device),
            "stopped_early": self.progress.stopped,
            **(self.footprint.summary() if self.footprint is not None else {}),
            **(self.tracer.summary(self.folder) if self.tracer is not None else {}),
            **(self.order.end() if self.order is not None else {}),
            **self.latest,
        }
        if self.engine.plan.program.phases:
            pairs = zip(self.engine.plan.program.phases, self.engine.stretches, strict=True)
            found["phases"] = [{"trains": list(phase.trains), "steps": one.length} for phase, one in pairs]
        if self.progress.best is not None:
            found["best"] = {"step": self.progress.best_step, **self.progress.best_values}
        accuracy = find("accuracy", list(self.latest.get("test", {})))
        if accuracy is not None:
            found["test_accuracy"] = self.latest["test"][accuracy]
        if self.folder is not None and self.leads:
            write_atomically(self.folder / SUMMARY, json.dumps(found, indent=1).encode() + b"\n")
        return found
