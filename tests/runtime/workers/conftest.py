"""How do these tests run a plan on several ranks? In threads of this process, each with its own worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import lpc
from lpc.runtime.workers.threads import Hub
from lpc.runtime.workers.transport import ROOM
from lpc.runtime.workers.worker import Worker
from lpc.specs.ranks.plan import edges_of, rank_plans, room_of

torch.set_num_threads(1)

OnRanks = Callable[..., list[Any]]


def on_ranks(
    plan: lpc.Plan, workers: int, act: Callable[[Worker], Any], patience: float = 60.0, recorded: Any = None
) -> list[Any]:
    """Return what `act` returns on each rank; the first error is raised. `recorded`: an order of overlapping steps."""
    plans = rank_plans(plan.data, plan.spec, workers)
    hub = Hub(workers, edges_of(plans), max(ROOM, room_of(plans)), patience)
    found: list[Any] = [None] * workers
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            versions = None if recorded is None else recorded[rank]
            found[rank] = act(Worker(plan.data, plans, hub.transport(rank), "cpu", recorded=versions))
        except BaseException as error:
            errors.append(error)
            hub.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


@pytest.fixture(scope="session")
def ranks() -> OnRanks:
    return on_ranks
