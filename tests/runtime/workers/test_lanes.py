"""Does memory that has a lane of its own arrive, once both ends are ready? Over gloo in place of NCCL, in threads."""

from __future__ import annotations

import threading
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import torch
import torch.distributed

from lpc.runtime.workers import lanes
from lpc.runtime.workers.transport import Stamp
from lpc.runtime.workers.wire import LAST, Wire, parcel

_dist: Any = torch.distributed
SECONDS = 20.0
CPU = torch.device("cpu")


def gloo(store: Any, number: int, device: torch.device, seconds: float) -> Any:
    """A process group of two that has NCCL's calls."""
    return _dist.ProcessGroupGloo(_dist.PrefixStore("lane", store), number, 2, timedelta(seconds=seconds))


def both(act: Any) -> list[Any]:
    """Return what an act returns for each of the two ends of a wire."""
    store, found = _dist.HashStore(), dict[int, Any]()

    def end(number: int) -> None:
        found[number] = act(number, Wire(store, "edge", number, CPU, SECONDS))

    threads = [threading.Thread(target=end, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[0], found[1]]


def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    places = count(1)
    monkeypatch.setattr(lanes, "place_of", lambda device: next(places))
    monkeypatch.setattr(lanes, "nccl", gloo)


def values(step: int) -> list[torch.Tensor]:
    """Now one tensor, now many, which need a second list of numbers; one of them empty."""
    base = torch.arange(6.0).reshape(2, 3) + step
    return [base.t(), torch.empty(0, 2)] + [base] * (20 if step % 3 == 2 else 0)


def passes(number: int, wire: Wire) -> list[bool]:
    assert wire.lane is not None
    if number == 0:
        posted = [wire.post(parcel(Stamp(step, 0, "h"), values(step), direct=True)) for step in range(7)]
        for work, _ in [*(one for own in posted for one in own), *wire.post(LAST)]:
            work.wait(timedelta(seconds=SECONDS))
        return []
    found = []
    for step in range(7):
        message = wire.read()
        assert message is not None
        same = [torch.equal(a, b) for a, b in zip(message.tensors, values(step), strict=True)]
        found.append(message.key[0] == step and all(same))
    return [*found, wire.read() is None]


def test_memory_goes_over_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    apart(monkeypatch)
    assert both(passes) == [[], [True] * 8]


def test_without_two_gpus_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def lane(number: int, wire: Wire) -> object:
        return wire.lane

    assert both(lane) == [None, None]
    monkeypatch.setattr(lanes, "place_of", lambda device: 5)  # both have the same one
    assert both(lane) == [None, None]


def test_what_nobody_is_ready_for_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    apart(monkeypatch)
    waited = threading.Event()

    def act(number: int, wire: Wire) -> str:
        if number == 1:
            assert waited.wait(SECONDS)
            assert wire.read() is not None
            return ""
        posted = wire.post(parcel(Stamp(0, 0, "h"), [torch.ones(3)], direct=True))
        leaving = posted[-1][0]
        with pytest.raises(RuntimeError, match="timed out"):
            leaving.wait(timedelta(seconds=0.05))
        waited.set()
        leaving.wait(timedelta(seconds=SECONDS))
        return "left"

    assert both(act) == ["left", ""]
