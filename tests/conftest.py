"""What holds for every test: hypothesis measures no time on a shared machine, and draws alike in each run of CI."""

from __future__ import annotations

import fcntl
import gc
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import lpc

gc.disable()  # until all is imported, which makes no garbage

settings.register_profile(
    "lpc",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lpc")


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[], lpc.Plan]], lpc.Plan]:
    """Return the plan of a name, built by the first worker that asks for it."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def plan(name: str, build: Callable[[], lpc.Plan]) -> lpc.Plan:
        path = shared / f"{name}.plan"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                build().save(path)
        return lpc.load(path)

    return plan


@pytest.fixture(scope="session")
def built() -> Callable[[Any], lpc.Plan]:
    """Return the plan of a spec, built once in this process: plans are data, and no test changes one."""
    known: dict[str, lpc.Plan] = {}

    def plan(spec: Any) -> lpc.Plan:
        text = spec if isinstance(spec, str) else json.dumps(spec)
        if text not in known:
            known[text] = lpc.build(spec)
        return known[text]

    return plan


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: builds make it look there again and again."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in so many words that the browser was not driven: a skipped test alone is easily overlooked."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)]
    found = [reason for reason in reasons if "browser: " in reason]
    if found:
        why = found[0].partition("browser: ")[2]
        terminalreporter.write_line(f"{len(found)} tests in a browser were SKIPPED: {why}")
