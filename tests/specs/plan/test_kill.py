"""Is the plan on disk whole after its writer was killed at any moment?"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lpc.specs.plan.plan import Plan
from lpc.specs.plan.store import load, save

KILLS, MOST = 12, 100  # how often a writer is killed; and at most, until one was in the middle of a save

# Saves two plans in turn over the same path, for ever.
WRITER = """
import sys
from lpc.specs.plan.store import load, save
plans = [load(path) for path in sys.argv[2:]]
print("ready", flush=True)
while True:
    for plan in plans:
        save(plan, sys.argv[1])
"""


@pytest.mark.parametrize("suffix", ["plan", "zip"])
def test_killed_writers_leave_a_whole_plan(plan: Plan, tmp_path: Path, suffix: str) -> None:
    big = replace(plan, weights=bytes(plan.weights) + bytes(2_000_000))
    choices = [plan, replace(big, spec="lpc: 1\nname: other\n")]
    sources = [tmp_path / "a.plan", tmp_path / "b.plan"]
    for choice, source in zip(choices, sources, strict=True):
        save(choice, source)
    target = tmp_path / f"target.{suffix}"
    save(plan, target)
    draw = random.Random(suffix)
    litter = 0
    for kill in range(MOST):
        if kill >= KILLS and litter:
            break
        kill_a_writer([str(target), *map(str, sources)], draw.random() * 0.04)
        assert load(target) in choices
        litter += len(list(tmp_path.rglob("*.tmp")))
    save(plan, target)
    assert load(target) == plan
    assert not list(tmp_path.rglob("*.tmp"))
    assert litter, "no kill came in the middle of a save: the test proves nothing"


def kill_a_writer(arguments: list[str], delay: float) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(delay)
    writer.kill()
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
