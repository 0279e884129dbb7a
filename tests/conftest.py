"""What holds for every test: hypothesis measures no time on a shared machine, and draws alike in each run of CI."""

from __future__ import annotations

import gc
import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "lpc",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lpc")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: builds make it look there again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
