"""Where do workers of one machine meet? At a small key-value store that lives in their supervisor."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed

_dist: Any = torch.distributed  # which does not declare its stores
HOST = "127.0.0.1"


def serve() -> Any:
    """Return a new store, at a free port of this machine."""
    return _dist.TCPStore(HOST, 0, is_master=True, timeout=timedelta(seconds=60))


def address(store: Any) -> str:
    """Return where a store is served."""
    return f"{HOST}:{store.port}"


def reach(where: str, limit: timedelta) -> Any:
    """Return a client of a store."""
    host, _, port = where.rpartition(":")
    return _dist.TCPStore(host, int(port), is_master=False, timeout=limit)


def elsewhere(limit: timedelta) -> Any:
    """Return a client of the store that torchrun serves."""
    store, _, _ = next(_dist.rendezvous("env://", timeout=limit))
    store.set_timeout(limit)
    return _dist.PrefixStore("lpc", store)


def part(store: Any, attempt: int | str) -> Any:
    """Return the part of a store that belongs to one attempt."""
    return _dist.PrefixStore(str(attempt), store)
