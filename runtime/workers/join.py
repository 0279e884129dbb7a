"""How does a process become one of the workers of a plan? It joins those that the same launcher has started."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from lpc.runtime.data import Splits
from lpc.runtime.selection import choose_device
from lpc.runtime.workers.gloo import Gloo
from lpc.runtime.workers.store import part, reach
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
    began = meet(rank, size, patience)
    worker = Worker(plan, plans, Gloo(edges_of(plans), chosen, patience, max(ROOM, room_of(plans))), chosen, data)
    worker.began = began if rank == 0 else None
    return worker


def _device(plan: Plan, wanted: str) -> torch.device:
    """Choose a device; where no number is asked for, each worker of a machine has a GPU of its own while they last."""
    chosen = choose_device(plan, wanted)
    if chosen.type != "cuda" or ":" in wanted:
        return chosen
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def meet(rank: int, size: int, patience: float) -> Callable[[], None] | None:
    """Make the default process group; return what tells our own supervisor that the first step is done."""
    limit = timedelta(seconds=patience)
    try:
        if STORE not in os.environ:
            dist.init_process_group("gloo", timeout=limit)
            return None
        store = part(reach(os.environ[STORE], limit), os.environ[ATTEMPT])
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=limit)
        return lambda: store.set(STEPPED, "yes")
    except (RuntimeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise LpcError(Diagnostic("0682", "the ranks did not meet", place=f"rank {rank}", notes=(reason,))) from None
