"""How do all ranks of a plan run in one process? Each in a thread, and on a GPU in a stream of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch

from lpc.runtime.selection import choose_device
from lpc.runtime.workers.threads import Hub
from lpc.runtime.workers.transport import PATIENCE, ROOM
from lpc.runtime.workers.worker import Worker
from lpc.specs.loader import load_spec
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.plan import edges_of, rank_plans, room_of

T = TypeVar("T")
_cuda: Any = torch.cuda


class Crew(Generic[T]):
    """The ranks of a plan; the first one acts in the thread that calls, which signals come to.

    `recorded` is an order of overlapping steps, and `patience` how long a silent rank is waited for. Raises LpcError:
    0580 and 0581 a plan that cannot be divided so.
    """

    def __init__(
        self, plan: Plan, workers: int, device: str | torch.device = "auto", patience: float = PATIENCE,
        recorded: Sequence[Mapping[int, int]] | None = None,
    ) -> None:
        spec = load_spec(plan.spec)
        self.plan, self.plans, self.recorded = plan, rank_plans(plan, spec, workers), recorded
        self.device = choose_device(plan, device if str(device) != "auto" else spec.run.device)
        self.hub = Hub(workers, edges_of(self.plans), max(ROOM, room_of(self.plans)), patience, self.device)
        self.errors: list[BaseException] = []
        self.found: dict[int, T] = {}

    def run(self, act: Callable[[Worker], T]) -> list[T]:
        """Return what an act returns on each rank. Raises what the first one that failed has raised."""
        threads = [
            threading.Thread(target=self._rank, args=(rank, act), name=f"rank {rank}", daemon=True)
            for rank in range(1, self.hub.size)
        ]
        for thread in threads:
            thread.start()
        self._rank(0, act)
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        return [self.found[rank] for rank in range(self.hub.size)]

    def _rank(self, rank: int, act: Callable[[Worker], T]) -> None:
        versions = None if self.recorded is None else self.recorded[rank]
        try:
            with self._stream():
                transport = self.hub.transport(rank)
                self.found[rank] = act(Worker(self.plan, self.plans, transport, self.device, recorded=versions))
        except BaseException as error:
            self.errors.append(error)
            self.hub.abort()

    def _stream(self) -> AbstractContextManager[Any]:
        if self.device.type != "cuda":
            return nullcontext()
        return _cuda.stream(_cuda.Stream(self.device))  # type: ignore[no-any-return]
