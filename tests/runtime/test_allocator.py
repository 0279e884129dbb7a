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


ARENAS = """
import sys, threading, psutil, torch
from lpc.runtime.allocator import keep_freed_memory, share_freed_memory

keep_freed_memory()
if sys.argv[1] == "yes":
    share_freed_memory()

def receive():
    held.extend(torch.zeros(2**18) for _ in range(24))

torch.zeros(2**20)
before = psutil.Process().memory_full_info().uss
for _ in range(3):
    held = []
    thread = threading.Thread(target=receive)
    thread.start()
    thread.join()
    del held
    held = [torch.zeros(2**18) for _ in range(24)]
    del held
print(psutil.Process().memory_full_info().uss - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives each thread a heap")
def test_what_a_thread_received_is_of_use_to_others() -> None:
    """24 MiB come and go, in one thread and in another: they are kept once, or twice."""

    def kept(shared: str) -> int:
        line = [sys.executable, "-c", ARENAS, shared]
        return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)

    assert kept("yes") < kept("no") - 16 * 2**20
