"""What does one of two processes do whose steps overlap? It trains; the second one is slow at times, and dies once."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import lpc
from lpc.runtime.workers.supervisor import ATTEMPT, LOST

DEATH = 29  # the step at which the second process is killed, in the first attempt


def main(folder: Path, resume: bool) -> None:
    worker = lpc.join(lpc.load(folder / "run.plan"), "cpu", patience=60)
    run, draw = worker.machine.run, random.Random(int(os.environ[ATTEMPT]))

    def slowly(operations: Any, frame: Any) -> Any:
        if worker.transport.rank == 1:
            time.sleep(draw.choice([0.0, 0.0, 0.0, 0.01]))
            if worker.steps_done == DEATH and not resume:
                os.kill(os.getpid(), signal.SIGKILL)
        return run(operations, frame)

    worker.machine.run = slowly
    try:
        worker.fit(folder, resume=resume)
        worker.transport.close()
    except lpc.LpcError as error:
        print(error, flush=True)
        os._exit(LOST)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--resume" in sys.argv)
