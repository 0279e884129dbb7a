"""How do these tests run a plan on several ranks? In threads of this process, each with its own worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

import lpc
from lpc.runtime.workers.crew import Crew
from lpc.runtime.workers.threads import Hub, Threads
from lpc.runtime.workers.transport import Stamp
from lpc.runtime.workers.worker import Worker

torch.set_num_threads(1)

OnRanks = Callable[..., list[Any]]


class Watched(Threads):
    """A transport that notes what was sent, which has to stay as it is: it may have to be sent again."""

    keeps = True

    def __init__(self, hub: Hub, rank: int) -> None:
        super().__init__(hub, rank)
        self.noted: list[tuple[Stamp, torch.Tensor, torch.Tensor]] = []

    def send(self, to: int, stamp: Stamp, tensors: Sequence[torch.Tensor]) -> None:
        self.noted += [(stamp, tensor, tensor.clone()) for tensor in tensors]
        super().send(to, stamp, tensors)

    def changed(self) -> list[Stamp]:
        """Return which values are not as they were sent; infinities and NaN are as they are."""
        return [stamp for stamp, now, then in self.noted if not torch.equal(now.nan_to_num(), then.nan_to_num())]


def on_ranks(
    plan: lpc.Plan, workers: int, act: Callable[[Worker], Any], patience: float = 60.0, recorded: Any = None,
    watched: bool = True,
) -> list[Any]:
    """Return what `act` returns on each rank; the first error is raised. `recorded`: an order of overlapping steps.

    Unless it is not `watched`, what is sent has to stay as it is, of which copies are kept.
    """
    crew, watching = Crew[Any](plan.data, workers, "cpu", patience, recorded), list[Watched]()

    def transport(rank: int) -> Watched:
        watching.append(Watched(crew.hub, rank))
        return watching[-1]

    if watched:
        crew.hub.transport = transport  # type: ignore[method-assign]
    found = crew.run(act)
    assert [stamp for one in watching for stamp in one.changed()] == []
    return found


@pytest.fixture(scope="session")
def ranks() -> OnRanks:
    return on_ranks


@pytest.fixture(scope="session")
def stopping() -> Callable[[Any, int], Any]:
    """A function that lets a trainer fail at a step, and returns it."""

    def stopping(trainer: Any, step: int) -> Any:
        advance = trainer.advance

        def until(parts: Any) -> Any:
            if trainer.steps_done == step:
                raise RuntimeError("stopped by the test")
            return advance(parts)

        trainer.advance = until
        return trainer

    return stopping
