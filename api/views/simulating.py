"""On which numbers of processes is a plan simulated, and under which assumptions?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lpc.plan import Plan
from lpc.specs.diagnostics import LpcError
from lpc.specs.memory.sizes import Lengths
from lpc.specs.ranks.plan import rank_plans, room_of
from lpc.specs.simulation.engine import Network
from lpc.specs.simulation.programs import Rates, estimated, simulated
from lpc.views.simulation import Prediction
from lpc.views.units import count, size, time

ROOM = 4  # values that an edge of the runtime holds at least
# What is assumed of devices and of what joins them, where nothing is said: a GPU, and a network of 100 Gbit/s. Without
# a number of cores each process has one of its own.
RATES: dict[str, float] = {"flops": 1e13, "overhead": 2e-5, "updated": 5e11, "bandwidth": 1.25e10, "latency": 2e-5}
RATES["cores"] = OWN = float("inf")


def predicted(plan: Plan, workers: int, lengths: Lengths, given: Mapping[str, float]) -> Prediction:
    """Simulate 1, 2, 4, ... and `workers` processes; those that the plan cannot be divided for are left out.

    Raises LpcError: 0580, 0581 where `workers` themselves are too many, 0562 a length that is not given.
    """
    rates = {**RATES, **given}
    costs = estimated(Rates(rates["flops"], rates["overhead"], rates["updated"]))
    cores = rates["cores"]
    speeds = () if cores == OWN else int(cores) * (1.0,)
    network = Network(rates["latency"], rates["bandwidth"], ROOM, speeds)
    found = {}
    for number in powers(workers):
        try:
            plans = rank_plans(plan.data, plan.spec, number)
        except LpcError:
            if number == workers:
                raise
            continue
        found[number] = simulated(plans, lengths, costs, replace(network, room=max(ROOM, room_of(plans))))
    return Prediction(_assumed(rates), found)


def powers(workers: int) -> Sequence[int]:
    """Return 1, 2, 4, ... below a number, and the number."""
    found = [1]
    while found[-1] * 2 < workers:
        found.append(found[-1] * 2)
    return [*found, workers] if workers > 1 else found


def _assumed(rates: Mapping[str, float]) -> str:
    speeds = f"{count(round(rates['flops']))}flop/s, {time(rates['overhead'])} a call"
    steps = f"{size(round(rates['updated']))}/s of parameters stepped"
    between = f"{size(round(rates['bandwidth']))}/s and {time(rates['latency'])} between processes"
    shared = "" if rates["cores"] == OWN else f", which share {int(rates['cores'])} cores"
    return f"assumed: {speeds}, {steps}; {between}{shared}"
