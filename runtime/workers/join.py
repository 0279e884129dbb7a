"""How does a process become one of the workers of a plan? It joins those that the same launcher has started."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import partial

import torch

from lpc.runtime.allocator import share_freed_memory
from lpc.runtime.data import Splits
from lpc.runtime.selection import choose_device
from lpc.runtime.workers.gloo import Gloo
from lpc.runtime.workers.meeting import AbsentError, Meeting, stepped
from lpc.runtime.workers.store import elsewhere, reach
from lpc.runtime.workers.supervisor import ATTEMPT, INCARNATION, STORE
from lpc.runtime.workers.transport import PATIENCE, ROOM
from lpc.runtime.workers.worker import Worker
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.kept import LIMIT
from lpc.specs.loader import load_spec
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.plan import edges_of, rank_plans, room_of


def is_worker() -> bool:
    """Tell whether a launcher, torchrun or `lpc run --workers`, has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def join(
    plan: Plan, device: str | torch.device = "auto", data: Splits | None = None, patience: float = PATIENCE,
    kept: int = LIMIT,
) -> Worker:
    """Return this process's worker, once all of them are there. `patience` is how long a silent rank is waited for.

    `kept`: bytes of what is sent that may be kept, so that a process that dies is started again alone.

    Raises LpcError: 0580 and 0581 a plan that cannot be divided so, 0682 ranks that do not come, 0684 no launcher.
    """
    if not is_worker():
        raise LpcError(Diagnostic("0684", "no launcher has started this process as one of several", place="join"))
    share_freed_memory()
    spec = load_spec(plan.spec)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    plans = rank_plans(plan, spec, size)
    chosen = device_of(plans[rank], str(device) if str(device) != "auto" else spec.run.device)
    meeting = meet(rank, size, patience)
    transport = Gloo(edges_of(plans), chosen, meeting, patience, max(ROOM, room_of(plans)), kept)
    worker = Worker(plan, plans, transport, chosen, data)
    if meeting.renewable and (rank == 0 or meeting.incarnation):
        worker.began = partial(meeting.tell, stepped(rank, meeting.incarnation))
    return worker


def device_of(plan: Plan, wanted: str) -> torch.device:
    """Choose a worker's device: of GPUs without a number, each worker of a machine has its own while they last."""
    chosen = choose_device(plan, wanted)
    if chosen.type != "cuda" or ":" in wanted:
        return chosen
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def meet(rank: int, size: int, patience: float) -> Meeting:
    """Reach the store of our own launcher or of torchrun, and come to the first act of all ranks.

    Raises LpcError: 0682 with the ranks that have not come.
    """
    limit, own = timedelta(seconds=patience), STORE in os.environ
    missing: list[int] = []
    try:
        store = reach(os.environ[STORE], limit).part(os.environ[ATTEMPT]) if own else elsewhere(limit)
        meeting = Meeting(store, rank, size, int(os.environ.get(INCARNATION, "0")), own)
        if not meeting.incarnation:
            meeting.exchange(None, patience)
        return meeting
    except AbsentError as error:
        missing, reason = error.missing, error.reason
    except (RuntimeError, ValueError) as error:
        reason = str(error)
    who = f": no word from rank {', '.join(map(str, missing))}" if missing else ""
    message, note = f"the ranks did not meet{who}", reason.split("\n")[0]
    raise LpcError(Diagnostic("0682", message, place=f"rank {rank}", notes=(note,)))
