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
rounds = []
for _ in range(3):
    before = faults()
    large()
    rounds.append(faults() - before)
print(cost, min(rounds))  # a hole in the heap may cost one array once; what is given back is mapped every time
"""


def page_faults(keep: str) -> tuple[int, int]:
    """Return the page faults of the call itself, and the least of a round of four times six arrays of 4 MiB."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, keep], capture_output=True, text=True, check=True)
    cost, found = map(int, done.stdout.split())
    return cost, found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc unmaps by an adaptive threshold")
def test_large_arrays_are_not_mapped_again_and_again() -> None:
    cost, found = page_faults("yes")
    assert cost < 200
    assert found < page_faults("no")[1] / 2
