"""How does a process become one of the workers of a plan? It joins those that the same launcher has started."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from lpc.runtime.data import Splits
from lpc.runtime.selection import choose_device
from lpc.runtime.workers.gloo import Gloo
from lpc.runtime.workers.roll import Roll
from lpc.runtime.workers.store import elsewhere, part, reach
from lpc.runtime.workers.supervisor import ATTEMPT, STEPPED, STORE
from lpc.runtime.workers.transport import PATIENCE, ROOM
from lpc.runtime.workers.worker import Worker
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.loader import load_spec
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.plan import edges_of, rank_plans, room_of


def is_worker() -> bool:
    """Tell whether a launcher, torchrun or `lpc run --workers`, has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def join(
    plan: Plan, device: str | torch.device = "auto", data: Splits | None = None, patience: float = PATIENCE
) -> Worker:
    """Return this process's worker, once all of them are there. `patience` is how long a silent rank is waited for.

    Raises LpcError: 0580 and 0581 a plan that cannot be divided so, 0682 ranks that do not come, 0684 no launcher.
    """
    if not is_worker():
        raise LpcError(Diagnostic("0684", "no launcher has started this process as one of several", place="join"))
    spec = load_spec(plan.spec)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    plans = rank_plans(plan, spec, size)
    chosen = _device(plans[rank], str(device) if str(device) != "auto" else spec.run.device)
    met = meet(rank, size, patience)
    transport = Gloo(edges_of(plans), chosen, patience, max(ROOM, room_of(plans)), met.roll)
    worker = Worker(plan, plans, transport, chosen, data)
    worker.began = met.began if rank == 0 else None
    return worker


def _device(plan: Plan, wanted: str) -> torch.device:
    """Choose a device; where no number is asked for, each worker of a machine has a GPU of its own while they last."""
    chosen = choose_device(plan, wanted)
    if chosen.type != "cuda" or ":" in wanted:
        return chosen
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@dataclass(frozen=True)
class Met:
    """Ranks that have met: who has come to what, and what tells our own supervisor that the first step is done."""

    roll: Roll
    began: Callable[[], None] | None = None


def meet(rank: int, size: int, patience: float) -> Met:
    """Make the default process group, in the store of our own supervisor or of torchrun.

    Raises LpcError: 0682 with the ranks that have not come.
    """
    limit, own = timedelta(seconds=patience), STORE in os.environ
    roll = None
    try:
        store = part(reach(os.environ[STORE], limit), os.environ[ATTEMPT]) if own else elsewhere(limit)
        roll = Roll(store, rank, size)
        roll.answer()
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        missing = roll.missing() if roll is not None else []
        who = f": no word from rank {', '.join(map(str, missing))}" if missing else ""
        message, reason = f"the ranks did not meet{who}", str(error).split("\n")[0]
        raise LpcError(Diagnostic("0682", message, place=f"rank {rank}", notes=(reason,))) from None
    return Met(roll, (lambda: store.set(STEPPED, "yes")) if own else None)
