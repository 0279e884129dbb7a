"""Does memory that was freed stay for the next step, at no cost?"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from lpc.runtime.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def large():
    for _ in range(4):
        [torch.zeros(2**20 + 7) for _ in range(6)]

torch.set_num_threads(1)
before = faults()
if sys.argv[1] == "yes":
    keep_freed_memory()
cost = faults() - before
large()
before = faults()
large()
print(cost, faults() - before)
"""


def page_faults(keep: str) -> tuple[int, int]:
    """Return the page faults of the call itself, and of four times six arrays of 4 MiB (1024 pages)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, keep], capture_output=True, text=True, check=True)
    cost, found = map(int, done.stdout.split())
    return cost, found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc unmaps by an adaptive threshold")
def test_large_arrays_are_not_mapped_again_and_again() -> None:
    """Where addresses happen to leave a hole in the heap, one array is mapped again; another process has others."""
    unkept = page_faults("no")[1]
    kept = (page_faults("yes") for _ in range(3))
    assert any(cost < 200 and found < unkept / 2 for cost, found in kept)
