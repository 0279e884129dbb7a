"""How does memory that one step frees stay for the next? By telling glibc once that large blocks come and go."""

from __future__ import annotations

import ctypes
from functools import cache

import torch

LARGEST = 2**25 - 2**13  # with malloc's own header just below 32 MiB, the most that glibc adapts to
ARENAS = -8  # M_ARENA_MAX of mallopt(3)


@cache
def keep_freed_memory() -> None:
    """Raise the sizes from which glibc gives memory back to the system, as freeing any large array does.

    glibc maps and unmaps each block above a threshold, and the kernel zeroes every page again. The threshold
    follows the largest block that was ever freed, up to 32 MiB, and the process then keeps up to 64 MiB at the
    top of its heap (mallopt(3), M_MMAP_THRESHOLD). The block is never touched: it costs no memory, and nothing
    where another allocator is in use.
    """
    torch.empty(LARGEST, dtype=torch.uint8, device="cpu")  # freed at once


@cache
def share_freed_memory() -> None:
    """Let threads take their memory from the heap of all, if none was started before.

    glibc gives each thread a heap of its own, which keeps what it was once given: what one thread receives, and
    another one frees, is then of no use to any other. Nothing happens where another allocator is in use.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(ARENAS, 1)
