"""On which numbers of processes is a plan simulated, and under which assumptions?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lpc.plan import Plan
from lpc.specs.diagnostics import LpcError
from lpc.specs.memory.sizes import Lengths
from lpc.specs.ranks.plan import rank_plans, room_of
from lpc.specs.simulation.calibration import Calibration
from lpc.specs.simulation.engine import Network
from lpc.specs.simulation.programs import Costs, Rates, estimated, simulated
from lpc.views.simulation import Prediction
from lpc.views.units import count, size, time

ROOM = 4  # values that an edge of the runtime holds at least
# What is assumed of devices and of what joins them, where nothing is said: a GPU, and a network of 100 Gbit/s. Without
# a number of cores each process has one of its own.
RATES: dict[str, float] = {"flops": 1e13, "overhead": 2e-5, "updated": 5e11, "bandwidth": 1.25e10, "latency": 2e-5}
RATES["cores"] = OWN = float("inf")
ESTIMATED = frozenset(("flops", "overhead", "updated"))  # by which instructions cost what they do


@dataclass(frozen=True)
class Assumed:
    """What instructions cost, what lies between ranks, and both in words."""

    costs: Costs
    network: Network
    text: str


def by_rates(given: Mapping[str, float]) -> Assumed:
    """Assume a device and a network by rates, of which some are given."""
    rates = {**RATES, **given}
    costs = estimated(Rates(rates["flops"], rates["overhead"], rates["updated"]))
    network = Network(rates["latency"], rates["bandwidth"], ROOM, _speeds(rates["cores"]))
    speeds = f"{count(round(rates['flops']))}flop/s, {time(rates['overhead'])} a call"
    steps = f"{size(round(rates['updated']))}/s of parameters stepped"
    return Assumed(costs, network, f"assumed: {speeds}, {steps}; {_between(network, rates['cores'])}")


def by_measurement(found: Calibration, plan: Plan, given: Mapping[str, float]) -> Assumed:
    """Assume what was measured: the machine that it was measured on, unless rates say what else is between ranks.

    Where one process measured alone, each has a core of its own.
    """
    own = found.processes.network()
    known = {"latency": RATES["latency"], "bandwidth": RATES["bandwidth"], "cores": OWN}
    rates = {**(known if found.processes.alone else {"latency": own.latency, "bandwidth": own.bandwidth}), **given}
    speeds = _speeds(rates["cores"]) if "cores" in rates else own.speeds
    network = replace(own, latency=rates["latency"], bandwidth=rates["bandwidth"], room=ROOM, speeds=speeds)
    cores = rates.get("cores", float(len(speeds)))
    return Assumed(found.costs(plan.data), network, f"measured on {found.device}; {_between(network, cores)}")


def predicted(plan: Plan, workers: int, lengths: Lengths, assumed: Assumed) -> Prediction:
    """Simulate 1, 2, 4, ... and `workers` processes; those that the plan cannot be divided for are left out.

    Raises LpcError: 0580, 0581 where `workers` themselves are too many, 0562 a length that is not given.
    """
    found = {}
    for number in powers(workers):
        try:
            plans = rank_plans(plan.data, plan.spec, number)
        except LpcError:
            if number == workers:
                raise
            continue
        network = replace(assumed.network, room=max(ROOM, room_of(plans)))
        found[number] = simulated(plans, lengths, assumed.costs, network)
    return Prediction(assumed.text, found)


def powers(workers: int) -> Sequence[int]:
    """Return 1, 2, 4, ... below a number, and the number."""
    found = [1]
    while found[-1] * 2 < workers:
        found.append(found[-1] * 2)
    return [*found, workers] if workers > 1 else found


def _speeds(cores: float) -> tuple[float, ...]:
    return () if cores == OWN else int(cores) * (1.0,)


def _between(network: Network, cores: float) -> str:
    rate = "" if network.bandwidth == OWN else f"{size(round(network.bandwidth))}/s and "
    shared = "" if cores == OWN else f", which share {int(cores)} cores"
    return f"{rate}{time(network.latency)} between processes{shared}"
