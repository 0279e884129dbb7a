"""Who starts the workers on one machine, and starts them again when one dies? A loop that looks at its processes.

A worker that is killed is started again alone, where the others can go on with it: they wait, and it goes over its
steps again from the last checkpoint. Else all are ended, and begin again there. A worker that ends by a user's mistake
ends the run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from lpc.runtime.workers.forking import Forked
from lpc.runtime.workers.keeper import announce
from lpc.runtime.workers.meeting import COMMITTED, GIVEN_UP, caught_up, recoverable, stepped
from lpc.runtime.workers.store import address, reach, serve

# What workers find in their environment besides RANK and WORLD_SIZE.
STORE, ATTEMPT, INCARNATION = "LPC_STORE", "LPC_ATTEMPT", "LPC_INCARNATION"

LOSSES = ("0681", "0682")  # a silent rank, and one that is gone
LOST, STALE = 75, 76  # exit codes: who has lost another one, and who has to begin at a newer checkpoint
MISTAKE = 2
GLANCE = 0.02  # seconds between two looks
GRACE = 0.5  # seconds in which the others may end of themselves, so that the first cause is known
RESTARTS = 20
FRUITLESS = 2  # how often a rank is started again alone without that it has stepped in between
REACHED = timedelta(seconds=60)  # in which its own board has to answer
SHOW_CURSOR = "\x1b[?25h"


@dataclass(frozen=True)
class Ended:
    """How a run of workers ended: the exit code, and the seconds from each failure to the next first step."""

    code: int
    recoveries: tuple[float, ...] = ()


@dataclass
class Supervisor:
    """Runs a Python command on every rank: what `python` would be told, such as `-m lpc run PLAN`.

    `again` is what is added to it when it is started again; logs go into `logs`. `patience` is how long ranks wait for
    another one that is started again alone; without it, all begin again.
    """

    command: Sequence[str]
    workers: int
    logs: Path
    restarts: int = RESTARTS
    again: Sequence[str] = ()
    out: TextIO = field(default_factory=lambda: sys.stderr)
    patience: float | None = None
    recoveries: list[float] = field(default_factory=list)
    failed: float | None = None  # since when all are being started again
    used: int = 0  # of the restarts

    def run(self) -> Ended:
        """Return when all workers are done, one has made a mistake, or there were too many restarts."""
        self.server = serve()
        try:
            return self.attempts()
        finally:
            self.server.close()

    def attempts(self) -> Ended:
        """Run all workers, again and again."""
        self.logs.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            code = self.attempt(number)
            if code not in (LOST, STALE) and code >= 0:
                break
            self.failed = self.failed or time.monotonic()
            if self.used >= self.restarts:
                break
            self.used += 1
            print(f"starting the workers again, restart {self.used} of {self.restarts}", file=self.out)
            number += 1
        return Ended(abs(code), tuple(self.recoveries))

    def attempt(self, number: int) -> int:
        """Run all workers once; return 0, or the exit code that ended it (negative: a signal)."""
        self.number, self.store = number, reach(address(self.server), REACHED).part(str(number))
        self.times = [0] * self.workers  # that a rank was started again alone
        self.fruitless = [0] * self.workers  # since its last first step
        self.since: dict[int, float] = {}  # when those have died that have not stepped since
        self.behind: dict[int, float] = {}  # and those that have not caught up
        self.processes: list[Forked] = []
        try:
            for rank in range(self.workers):
                self.processes.append(self.start(rank))
            return self.watch()
        finally:
            for process in self.processes:
                process.kill()
            self.show_cursor()

    def start(self, rank: int) -> Forked:
        """Start a rank. Rank 0 has the terminal, the others a log."""
        environment = {
            "OMP_NUM_THREADS": "1",
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.workers),
            STORE: address(self.server),
            ATTEMPT: str(self.number),
            INCARNATION: str(self.times[rank]),
        }
        first = not self.number and not self.times[rank]
        if rank and first:
            self.log(rank).unlink(missing_ok=True)
        return Forked([*self.command, *(() if first else self.again)], environment, self.log(rank) if rank else None)

    def log(self, rank: int) -> Path:
        """Return where a rank's output is."""
        return self.logs / f"rank-{rank}.log"

    def show_cursor(self) -> None:
        """Show what a progress bar may have hidden."""
        if self.out.isatty():
            self.out.write(SHOW_CURSOR)

    def watch(self) -> int:
        """Wait until all are done, or until one is not done in order and cannot be started again alone."""
        while any((code := process.poll()) is None or code for process in self.processes):
            ended = self.ended()
            if ended and not self.replaces(ended):
                return self.cause(ended)
            done = self.done()
            self.look()
            if done and self.behind:
                self.failed = min(self.behind.values())
                print(f"all have to begin again: rank {min(self.behind)} needs who has ended already", file=self.out)
                return LOST
            time.sleep(GLANCE)
        return 0

    def done(self) -> bool:
        """Tell whether a rank has ended in order."""
        return any(process.poll() == 0 for process in self.processes)

    def ended(self) -> dict[int, int]:
        """Return the ranks that are not done in order, with their exit codes."""
        return {rank: code for rank, process in enumerate(self.processes) if (code := process.poll())}

    def look(self) -> None:
        """Tell who has stepped, or caught up, since it was started again."""
        if self.failed is not None and self.store.check([stepped(0, 0)]):
            self.recovered("", self.failed)
            self.failed = None
        for rank, failed in [*self.since.items()]:
            if self.store.check([stepped(rank, self.times[rank])]):
                self.recovered(f"rank {rank} ", failed)
                del self.since[rank]
                self.fruitless[rank] = 0
        for rank, failed in [*self.behind.items()]:
            if self.store.check([caught_up(rank, self.times[rank])]):
                print(f"rank {rank} had caught up after {time.monotonic() - failed:.3g} s", file=self.out)
                del self.behind[rank]

    def recovered(self, who: str, failed: float) -> None:
        """Tell how long it took until a step was done again."""
        self.recoveries.append(round(time.monotonic() - failed, 3))
        print(f"{who}recovered in {self.recoveries[-1]:g} s", file=self.out)

    def replaces(self, ended: Mapping[int, int]) -> bool:
        """Start the ranks that have died again alone, if the others can go on with them."""
        if (reason := self.hindrance(ended)) is not None:
            if reason:
                print(f"all have to begin again: {reason}", file=self.out)
            return False
        now = time.monotonic()
        for rank in ended:
            self.used += 1
            self.times[rank] += 1
            self.fruitless[rank] += 1
            self.since.setdefault(rank, now)
            self.behind.setdefault(rank, now)
            announce(self.store, self.workers, sum(self.times) - 1, rank, self.times[rank])
        self.show_cursor()
        for rank, code in ended.items():
            if code != STALE:
                print(f"rank {rank} {how(code)}", file=self.out)
            print(f"starting rank {rank} again, restart {self.used} of {self.restarts}; the others wait", file=self.out)
            self.processes[rank] = self.start(rank)
        return True

    def hindrance(self, ended: Mapping[int, int]) -> str | None:
        """Return why ranks cannot be started again alone, in words where they are worth telling; None if they can."""
        died = all(code < 0 or code == STALE for code in ended.values())
        if self.patience is None or not died or self.done() or len(ended) == self.workers or self.server_died():
            return ""
        if self.used + len(ended) > self.restarts:
            return ""
        if not self.store.check([recoverable(rank) for rank in range(self.workers)]):
            return ""
        if self.store.check([GIVEN_UP]):
            return str(self.store.get(GIVEN_UP).decode())
        for rank in ended:
            if self.fruitless[rank] >= FRUITLESS:
                return f"rank {rank} died {FRUITLESS + 1} times without a step"
        age = time.time() - float(self.store.get(COMMITTED))
        if age > self.patience / 2:
            return f"the last checkpoint is {age:.0f} s old, and the others wait for {self.patience:g} s"
        return None

    def server_died(self) -> bool:
        """Tell whether the process is gone that workers are forks of, so that all will end."""
        return any(process.orphaned for process in self.processes)

    def cause(self, ended: dict[int, int]) -> int:
        """Find who ended first: whoever lost another one did not."""
        self.failed = time.monotonic()
        deadline = self.failed + GRACE
        while set(ended.values()) == {LOST} and time.monotonic() < deadline and len(ended) < self.workers:
            time.sleep(GLANCE)
            ended = self.ended()
        rank, code = min(ended.items(), key=lambda item: (item[1] != MISTAKE, item[1] == LOST))
        print(f"rank {rank} {how(code)}", file=self.out)
        if rank and code == MISTAKE:
            print(self.log(rank).read_text(errors="replace"), file=self.out, end="")
        elif rank and code == LOST:
            print(self.told(rank), file=self.out, end="")
        return code

    def told(self, rank: int) -> str:
        """Return what a rank said last of another one that it has lost."""
        written = self.log(rank).read_text(errors="replace")
        return written[max(written.rfind(f"error[LPC{code}]") for code in LOSSES) :]


def how(code: int) -> str:
    """Return how a process ended, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
