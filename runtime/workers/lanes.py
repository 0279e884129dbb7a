"""How does memory go from GPU to GPU? By NCCL, beside a wire over which both ends say before that they are ready.

NCCL joins GPUs, not processes: where two ranks share one, or one has none, memory goes by way of the CPU instead.
"""

from __future__ import annotations

import queue
import socket
import threading
import zlib
from concurrent.futures import Future
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from lpc.runtime.workers.transport import FOREVER

_dist: Any = torch.distributed  # which does not declare all that it has
_cuda: Any = torch.cuda

READY = 2  # the tag of what a receiver says
NOWHERE = 0  # the place of a rank that NCCL does not reach


def place_of(device: torch.device) -> int:
    """Return a number for the GPU that a rank computes on, the same for no other one; NOWHERE without NCCL."""
    if device.type != "cuda" or not _dist.is_nccl_available():
        return NOWHERE
    name = f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"
    return zlib.crc32(name.encode()) or 1


def nccl(store: Any, number: int, device: torch.device, seconds: float) -> Any:
    """Return a process group of two GPUs, of which this rank's is number 0 or 1."""
    options = _dist.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=seconds)
    return _dist.ProcessGroupNCCL(store, number, 2, options)


class Lane:
    """One end of a way for memory that stays on its device, over a process group of two.

    A send is given to the group when the receiver has said over the wire's group, `words`, that it is ready: no
    GPU spends its time waiting for another. Sends and receives have a stream of their own, so that what is on the way
    holds up nothing that is computed; whoever waits is a thread.
    """

    def __init__(self, group: Any, words: Any, other: int, device: torch.device) -> None:
        self.group, self.words, self.other, self.device = group, words, other, device
        self.stream = _cuda.Stream(device) if device.type == "cuda" else None
        self.leaving: queue.SimpleQueue[tuple[Tensor, Any, Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._give, name="lane", daemon=True).start()

    def send(self, memory: Tensor) -> Leaving:
        """Send uint8 [n] without waiting. It may not change until it has left."""
        made = None
        if self.stream is not None:
            made = _cuda.Event()
            made.record(torch.cuda.current_stream(self.device))
        left: Future[None] = Future()
        self.leaving.put((memory, made, left))
        return Leaving(left)

    def receive(self, size: int) -> Tensor:
        """Return the next memory, uint8 [size], once it is there."""
        self.words.send([torch.zeros(1)], self.other, READY).wait()
        with self._apart():
            memory = torch.empty(size, dtype=torch.uint8, device=self.device)
            self._done(self.group.recv([memory], self.other, 0))
        if self.stream is not None:
            memory.record_stream(torch.cuda.default_stream(self.device))
        return memory

    def _give(self) -> None:
        """Send one memory after another, until the other end is gone: then none leaves any more."""
        gone: RuntimeError | None = None
        while True:
            memory, made, left = self.leaving.get()
            try:
                if gone is not None:
                    raise gone
                self.words.recv([torch.zeros(1)], self.other, READY).wait(FOREVER)
                with self._apart():
                    if self.stream is not None:
                        self.stream.wait_event(made)
                    self._done(self.group.send([memory], self.other, 0))
                left.set_result(None)
            except RuntimeError as error:
                gone = error
                left.set_exception(error)

    def _apart(self) -> Any:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def _done(self, work: Any) -> None:
        """Wait until it is done; NCCL's own `wait` is one of the stream."""
        work.wait()
        if self.stream is not None:
            self.stream.synchronize()


class Leaving:
    """A send on its way."""

    def __init__(self, left: Future[None]) -> None:
        self.left = left

    def wait(self, limit: timedelta) -> None:
        """Wait until it has left. Raises RuntimeError where the other end is gone, or takes nothing for too long."""
        try:
            self.left.result(limit.total_seconds())
        except TimeoutError:
            raise RuntimeError("timed out") from None
