"""What was measured of a plan on a machine? Seconds of its kernels, and what processes cost each other, in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NoReturn

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.files import write_atomically
from lpc.specs.flops import kernel_flops
from lpc.specs.memory.sizes import Lengths
from lpc.specs.plan.decode import MismatchError, decoder, parse_json
from lpc.specs.plan.encode import canonical
from lpc.specs.plan.instructions import Call, Update
from lpc.specs.plan.plan import Plan
from lpc.specs.simulation.engine import Network
from lpc.specs.simulation.programs import Costs, Rates, estimated, named, simulated

FORMAT = 1


@dataclass(frozen=True)
class Waking:
    """After so many seconds without work, so many more seconds of work."""

    gap: float
    seconds: float


@dataclass(frozen=True)
class Processes:
    """What processes of one machine cost each other.

    `steps`: seconds of a step of the whole plan while one process computes, while two do, and so on; one number means
    that nothing of others was measured. A value costs each of its two ends `value` seconds of work, and `byte` for
    each byte; on its way it is `latency` besides.
    """

    steps: tuple[float, ...]
    waking: tuple[Waking, ...] = ()
    value: float = 0.0
    byte: float = 0.0
    latency: float = 0.0

    @property
    def alone(self) -> bool:
        return len(self.steps) == 1

    def network(self) -> Network:
        """Return the network that processes on this machine have."""
        speeds = () if self.alone else tuple(self.steps[0] / seconds for seconds in self.steps)
        waking = tuple((one.gap, one.seconds) for one in self.waking)
        return Network(self.latency, speeds=speeds, waking=waking, handling=(self.value, self.byte))


@dataclass(frozen=True)
class Calibration:
    """Seconds that a plan's kernels took at lengths, by name, and `update BLOCK`; and what processes add to them."""

    format: int
    plan: str
    device: str
    torch: str
    lengths: Mapping[str, int]
    kernels: Mapping[str, float]
    processes: Processes

    def costs(self, plan: Plan) -> Costs:
        """Return what instructions of this plan, or of its ranks' plans, cost.

        What lies between kernels is spread over them. A kernel that no measured step ran, such as one that runs every
        hundredth step, takes the time of its operations at the speed of those that did run.
        """
        otherwise = estimated(Rates(flops=self._speed(plan)))

        def raw(plan: Plan, instruction: Call | Update, lengths: Lengths) -> float:
            found = self.kernels.get(named(instruction))
            return otherwise(plan, instruction, lengths) if found is None else found

        bare = simulated([plan], dict(self.lengths), raw, Network()).period
        share = self.processes.steps[0] / bare if bare else 1.0
        return lambda plan, instruction, lengths: share * raw(plan, instruction, lengths)

    def _speed(self, plan: Plan) -> float:
        """Return the operations a second of the kernels that ran."""
        flops, run = 0, 0.0

        def probe(plan: Plan, instruction: Call | Update, lengths: Lengths) -> float:
            nonlocal flops, run
            if isinstance(instruction, Call) and instruction.kernel in self.kernels:
                flops += sum(kernel_flops(plan.kernels["native"][instruction.kernel], lengths).values())
                run += self.kernels[instruction.kernel]
            return 0.0

        simulated([plan], dict(self.lengths), probe, Network(), steps=1)
        return flops / run if flops and run else Rates.flops

    def write(self, path: Path) -> None:
        """Write the file, all at once."""
        write_atomically(path, canonical(self, Calibration, indent=1))


def read_calibration(path: Path, plan: str, lengths: Mapping[str, int]) -> Calibration:
    """Read what was measured of the plan with this hash, at the lengths that are asked for.

    Raises LpcError (0709) where the file is damaged or of something else, and OSError.
    """
    place = str(path)

    def refuse(message: str, where: str = "") -> NoReturn:
        raise LpcError(Diagnostic("0709", message, place=f"{place}: ${where}"))

    try:
        found: Calibration = decoder(Calibration)(parse_json(path.read_bytes()))
    except MismatchError as problem:
        refuse(str(problem), problem.path)
    except RecursionError:
        refuse("the JSON is nested too deeply")
    if found.format != FORMAT:
        refuse(f"it has format {found.format}, expected {FORMAT}", ".format")
    for where, value in _numbers(found):
        if not (isfinite(value) and value >= 0):
            refuse(f"expected seconds, found {value}", where)
    if found.plan != plan:
        refuse("it is of another plan", ".plan")
    for name, length in lengths.items():
        if found.lengths.get(name) != length:
            refuse(f"measured with {name} = {found.lengths.get(name)}, asked for {name} = {length}", f".lengths.{name}")
    return found


def _numbers(found: Calibration) -> Iterator[tuple[str, float]]:
    """Yield all seconds, and where each stands; for those that must not be nothing, -1 where they are."""
    processes = found.processes
    yield from ((f".kernels.{name}", seconds) for name, seconds in found.kernels.items())
    yield from ((f".processes.steps[{index}]", one or -1.0) for index, one in enumerate(processes.steps or (-1.0,)))
    gaps = [0.0, *(one.gap for one in processes.waking)]
    for index, one in enumerate(processes.waking):
        yield f".processes.waking[{index}].gap", one.gap if one.gap > gaps[index] else -1.0
        yield f".processes.waking[{index}].seconds", one.seconds
    yield from ((f".processes.{name}", getattr(processes, name)) for name in ("value", "byte", "latency"))
