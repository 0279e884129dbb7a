"""Who starts the workers on one machine, and starts them again when one dies? A loop that looks at its processes.

A worker that is killed, or loses another one, ends the attempt: all are ended, and begin again at the last checkpoint.
A worker that ends by a user's mistake ends the run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from lpc.runtime.workers.forking import Forked
from lpc.runtime.workers.store import address, part, serve

# What workers find in their environment besides RANK and WORLD_SIZE.
STORE, ATTEMPT = "LPC_STORE", "LPC_ATTEMPT"
STEPPED = "stepped"  # what rank 0 sets after its first step

LOSSES = ("0681", "0682")  # a silent rank, and one that is gone
LOST = 75  # the exit code of a worker that has lost another one: to be tried again
MISTAKE = 2
GLANCE = 0.02  # seconds between two looks
GRACE = 0.5  # seconds in which the others may end of themselves, so that the first cause is known
RESTARTS = 20
SHOW_CURSOR = "\x1b[?25h"


@dataclass(frozen=True)
class Ended:
    """How a run of workers ended: the exit code, and the seconds from each failure to the next first step."""

    code: int
    recoveries: tuple[float, ...] = ()


@dataclass
class Supervisor:
    """Runs a Python command on every rank: what `python` would be told, such as `-m lpc run PLAN`.

    `again` is what is added to it in later attempts; logs go into `logs`.
    """

    command: Sequence[str]
    workers: int
    logs: Path
    restarts: int = RESTARTS
    again: Sequence[str] = ()
    out: TextIO = field(default_factory=lambda: sys.stderr)
    recoveries: list[float] = field(default_factory=list)
    failed: float | None = None

    def run(self) -> Ended:
        """Return when all workers are done, one has made a mistake, or there were too many restarts."""
        self.store: Any = serve()
        self.logs.mkdir(parents=True, exist_ok=True)
        for attempt in range(self.restarts + 1):
            code = self.attempt(attempt)
            if code not in (LOST, -signal.SIGKILL, -signal.SIGTERM) and code >= 0:
                break
            self.failed = self.failed or time.monotonic()
            if attempt < self.restarts:
                print(f"starting the workers again, restart {attempt + 1} of {self.restarts}", file=self.out)
        return Ended(abs(code), tuple(self.recoveries))

    def attempt(self, number: int) -> int:
        """Run all workers once; return 0, or the exit code that ended it (negative: a signal)."""
        processes: list[Forked] = []
        try:
            for rank in range(self.workers):
                processes.append(self.start(rank, number))
            return self.watch(processes, part(self.store, number))
        finally:
            for process in processes:
                process.kill()
            if self.out.isatty():
                self.out.write(SHOW_CURSOR)  # which a progress bar may have hidden

    def start(self, rank: int, attempt: int) -> Forked:
        """Start a rank. Rank 0 has the terminal, the others a log."""
        environment = {
            "OMP_NUM_THREADS": "1",
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.workers),
            STORE: address(self.store),
            ATTEMPT: str(attempt),
        }
        command = [*self.command, *(self.again if attempt else ())]
        if rank and not attempt:
            self.log(rank).unlink(missing_ok=True)
        return Forked(command, environment, self.log(rank) if rank else None)

    def log(self, rank: int) -> Path:
        """Return where a rank's output is."""
        return self.logs / f"rank-{rank}.log"

    def watch(self, processes: Sequence[Forked], store: Any) -> int:
        """Wait until all are done, or until one is not done in order."""
        while any((code := process.poll()) is None or code for process in processes):
            ended = {rank: code for rank, process in enumerate(processes) if (code := process.poll())}
            if ended:
                return self.cause(processes, ended)
            if self.failed is not None and store.check([STEPPED]):
                self.recoveries.append(round(time.monotonic() - self.failed, 3))
                print(f"recovered in {self.recoveries[-1]:g} s", file=self.out)
                self.failed = None
            time.sleep(GLANCE)
        return 0

    def cause(self, processes: Sequence[Forked], ended: dict[int, int]) -> int:
        """Find who ended first: whoever lost another one did not."""
        self.failed = time.monotonic()
        deadline = self.failed + GRACE
        while set(ended.values()) == {LOST} and time.monotonic() < deadline and len(ended) < len(processes):
            time.sleep(GLANCE)
            ended |= {rank: code for rank, process in enumerate(processes) if (code := process.poll())}
        rank, code = min(ended.items(), key=lambda item: (item[1] != MISTAKE, item[1] == LOST))
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        print(f"rank {rank} {how}", file=self.out)
        if rank and code == MISTAKE:
            print(self.log(rank).read_text(errors="replace"), file=self.out, end="")
        elif rank and code == LOST:
            print(self.told(rank), file=self.out, end="")
        return code

    def told(self, rank: int) -> str:
        """Return what a rank said last of another one that it has lost."""
        written = self.log(rank).read_text(errors="replace")
        return written[max(written.rfind(f"error[LPC{code}]") for code in LOSSES) :]
