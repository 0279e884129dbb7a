"""How does memory that one step frees stay for the next? By telling glibc once that large blocks come and go."""

from __future__ import annotations

from functools import cache

import torch

LARGEST = 2**25 - 2**13  # with malloc's own header just below 32 MiB, the most that glibc adapts to


@cache
def keep_freed_memory() -> None:
    """Raise the sizes from which glibc gives memory back to the system, as freeing any large array does.

    glibc maps and unmaps each block above a threshold, and the kernel zeroes every page again. The threshold
    follows the largest block that was ever freed, up to 32 MiB, and the process then keeps up to 64 MiB at the
    top of its heap (mallopt(3), M_MMAP_THRESHOLD). The block is never touched: it costs no memory, and nothing
    where another allocator is in use.
    """
    torch.empty(LARGEST, dtype=torch.uint8, device="cpu")  # freed at once
