"""How does a worker begin without importing everything again? As a fork of a process that has imported it all.

That process, the standard library's fork server, has one thread and has computed nothing, so that its forks are as new
ones: what they need is there within milliseconds instead of seconds, also after a failure.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path

# What a worker needs, by name: this package may not import what is above it, and torch imports dynamo when the first
# optimizer is made.
PRELOAD = (
    "lpc.cli", "lpc.parallel", "lpc.trainer", "lpc.runtime.report", "lpc.runtime.workers.join", "lpc.specs.yaml_text",
    "torch._dynamo",
)  # fmt: skip
ORPHAN = 255  # what the standard library says of a process whose fork server is gone
GLANCE = 0.2  # seconds between looks at whether the fork server is still there

_context = multiprocessing.get_context("forkserver")


class Forked:
    """A worker that runs a Python command, `-m MODULE ...` or `SCRIPT ...`. Its output goes on at the end of `log`."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None = None) -> None:
        _prepare(environment.get("OMP_NUM_THREADS", "1"))
        self.process = _context.Process(target=_begin, args=(list(arguments), dict(environment), log))
        self.process.start()

    @property
    def pid(self) -> int:
        """The number that the system knows it by."""
        return self.process.pid or 0

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        code = self.process.exitcode
        return -signal.SIGKILL if code == ORPHAN else code  # it ends with its fork server: `end_with_launcher`

    @property
    def orphaned(self) -> bool:
        """Whether the fork server is gone, with which it ends."""
        return self.process.exitcode == ORPHAN

    def kill(self) -> None:
        """End it without a word."""
        if self.process.exitcode in (None, ORPHAN):
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.process.join()


def _prepare(threads: str) -> None:
    """Start the fork server, if it is not there. Libraries read the number of threads when they are loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    _context.set_forkserver_preload([*PRELOAD])
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which it would take for its own
    os.environ["OMP_NUM_THREADS"] = threads
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(arguments: list[str], environment: dict[str, str], log: Path | None) -> None:
    """Run a command in a fresh fork, as Python itself would. It is the launcher that hears interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environment)
    if log is not None:
        target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(target, 1)
        os.dup2(target, 2)
    end_with_launcher()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")


def end_with_launcher() -> None:
    """End this process when its launcher is gone, or the fork server; neither may have had time to end it."""
    launcher, server = multiprocessing.parent_process(), os.getppid()
    assert launcher is not None

    def watch() -> None:
        while os.getppid() == server and not wait([launcher.sentinel], GLANCE):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="watch of the launcher", daemon=True).start()
