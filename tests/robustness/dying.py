"""What does one of several processes do that dies at its work? It trains, and kills itself at some operation on files.

The first lives of each rank end so; which operation it is depends on rank and life alone.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import lpc
from lpc.runtime.workers.supervisor import ATTEMPT, INCARNATION, LOST

LIVES = 3  # of each rank that end early
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.scandir", "os.listdir"}
LATEST = 60  # operation


def main(folder: Path, resume: bool) -> None:
    rank, life = int(os.environ["RANK"]), int(os.environ[INCARNATION])
    if life < LIVES and os.environ[ATTEMPT] == "0":
        die(str(folder / "run"), random.Random(f"{rank} {life}").randrange(10, LATEST))
    try:
        worker = lpc.join(lpc.load(folder / "w.plan"), "cpu", patience=60)
        worker.fit(folder / "run", resume=resume)
        worker.transport.close()
    except lpc.LpcError as error:
        print(error, flush=True)
        os._exit(LOST)


def die(folder: str, number: int) -> None:
    """Kill this process at some operation on files below a folder: between any two of them something is half done."""
    count = 0

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal count
        if event in OPERATIONS and isinstance(details[0], (str, os.PathLike)):
            count += os.fspath(details[0]).startswith(folder)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--resume" in sys.argv)
