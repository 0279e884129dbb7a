"""Does the simulation foretell the step time of several processes, and what does it foretell for thousands?

    OMP_NUM_THREADS=1 python benchmarks/simulation.py [--workers 2 4] [--width 512] [--batch 256] [--steps 30]
    python benchmarks/simulation.py --table

Measured: the plans of benchmarks/processes.py, and the gradient one in four micro-batches. By turns, one process
runs a copy of the whole plan while the others wait, which gives the seconds of each kernel and of what lies between
kernels; as many processes as there are cores run copies side by side, which gives how much slower cores are that all
work; and values go from one process to another, which gives the processor time of handing one on, and how long it is
on its way besides. From these the step time of the pipeline is foretold, then it is measured.

Foretold only: ResNet-152 and a transformer of 7 billion parameters on 8 to 4,096 devices, under stated assumptions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from processes import batches, spec, timed

import lpc
from lpc.runtime.stopwatch import Stopwatch
from lpc.runtime.trainer import Trainer
from lpc.runtime.workers.join import join
from lpc.runtime.workers.supervisor import Supervisor
from lpc.runtime.workers.transport import ROOM, Stamp
from lpc.specs.plan.instructions import Call, Part, Update
from lpc.specs.ranks.plan import rank_plans, room_of
from lpc.specs.simulation.engine import Compute, Done, Give, Network, Simulation, Take, Work, simulate
from lpc.specs.simulation.programs import measured, simulated

ROUNDS = 7
WAYS = {"stop": 1, "gradient": 1, "gradient in 4 pieces": 4}


def kernel_seconds(trainer: Trainer, data: Sequence[Any], steps: int) -> dict[str, float]:
    """Return the usual seconds of each kernel and update; kernels in a part are timed by hand."""
    watch = Stopwatch(trainer.machine, trainer.device)
    original, trainer.machine = trainer.machine, watch  # type: ignore[assignment]
    for index in range(steps):
        trainer.step(data[index % len(data)])
    trainer.machine = original
    found: dict[str, list[float]] = {}
    body = trainer.plan.program.steps[0]
    for lap in watch.laps:
        one = body[lap.index]
        if isinstance(one, Call | Update):
            name = one.kernel if isinstance(one, Call) else f"update {one.block}"
            found.setdefault(name, []).append(lap.seconds)
    return {name: statistics.fmean(sorted(values)[: -len(values) // 10 or None]) for name, values in found.items()}


def in_pieces(trainer: Trainer, data: Sequence[Any], steps: int) -> dict[str, float]:
    """Return the seconds of kernels that run in a part: each linked function is wrapped with a clock."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    names = [i.kernel for one in trainer.plan.program.step if isinstance(one, Part) for i in one.body
             if isinstance(i, Call)]  # fmt: skip
    resources = trainer.machine
    for name in names:
        inner = resources.function(resources.kernel(name))

        def clocked(values: Any, inner: Any = inner, name: str = name) -> Any:
            start = time.perf_counter()
            found = inner(values)
            sums[name] = sums.get(name, 0.0) + time.perf_counter() - start
            counts[name] = counts.get(name, 0) + 1
            return found

        resources.linked[name] = clocked  # type: ignore[assignment]
    resources._steps.clear()
    for index in range(steps):
        trainer.step(data[index % len(data)])
    return {name: sums[name] / counts[name] for name in sums}


VALUES = 20  # that are given away to time one


def handed_on(worker: Any, size: int) -> tuple[float, float]:
    """Return the processor seconds that a value costs on each side, and the seconds that it is on its way besides.

    Rank 0 gives values of so many bytes to rank 1, first one after another and then each when rank 1 waits for it.
    """
    exchange, began = worker.transport.exchange, time.process_time()
    for count in range(VALUES):
        passed(worker, count, size)
    exchange(None)
    work = statistics.fmean(exchange((time.process_time() - began) / VALUES)[:2])
    moments: list[float] = []
    for count in range(VALUES, 2 * VALUES):
        exchange(None)
        moments.append(passed(worker, count, size))
    starts, ends = exchange(moments)[:2]
    there = statistics.median(end - start for start, end in zip(starts, ends, strict=True))
    return work, max(there - 2 * work, 0.0)


def passed(worker: Any, count: int, size: int) -> float:
    """Give a value from rank 0 to 1; return when a rank began to give it, or had it (one clock for all processes)."""
    transport, stamp, start = worker.transport, Stamp(-2, count, "there"), time.perf_counter()
    if transport.rank == 0:
        transport.send(1, stamp, [torch.zeros(size // 4)])
    elif transport.rank == 1:
        transport.receive(0, stamp)
        return time.perf_counter()
    return start


def side_by_side(worker: Any, copy: Trainer, data: Sequence[Any], steps: int, count: int) -> float:
    """Return the seconds of a step of the slowest where so many ranks run a copy of the plan and the others wait."""
    own = timed(copy, data, steps) if worker.transport.rank < count else 0.0
    worker.transport.exchange(None)
    return max(worker.transport.exchange(own))


@dataclass(frozen=True)
class Machine:
    """What a round measured: seconds of kernels on a core of its own, speeds of cores, a value's work and way."""

    kernels: dict[str, float]
    steps: list[float]  # seconds of a step of the whole plan while one rank works, two, ... up to the cores
    value: tuple[float, float]

    def foretold(self, plan: lpc.Plan, size: int, lengths: dict[str, int], steps: int) -> float:
        """Return the seconds of a step of the plan on so many ranks, over steps that begin and end together."""
        plans = rank_plans(plan.data, plan.spec, size)
        whole = simulated([plan.data], lengths, measured(self.kernels), Network()).period
        costs = measured({name: self.steps[0] / whole * seconds for name, seconds in self.kernels.items()})
        speeds = tuple(self.steps[0] / seconds for seconds in self.steps)
        work, way = self.value
        network = Network(latency=way, room=max(ROOM, room_of(plans)), speeds=speeds)
        ends = simulated(plans, lengths, costs, network, steps, handling=work).ends
        return max(end[-1] for end in ends) / steps


def machine(worker: Any, plan: lpc.Plan, copy: Trainer, data: Sequence[Any], steps: int, size: int) -> Machine:
    """Measure on all ranks together, by turns."""
    exchange, rank = worker.transport.exchange, worker.transport.rank
    kernels = kernel_seconds(copy, data, steps) if rank == 0 else {}
    if rank == 0 and any(isinstance(one, Part) for one in plan.data.program.step):
        kernels |= in_pieces(Trainer(plan.data, "cpu"), data, steps)
    kernels = exchange(kernels)[0]
    together = range(1, min(worker.transport.size, os.cpu_count() or 1) + 1)
    seconds = [side_by_side(worker, copy, data, steps, count) for count in together]
    return Machine(kernels, seconds, handed_on(worker, size))


def work(plan: lpc.Plan, folder: Path, batch: int, width: int, steps: int) -> None:
    """What each process does by turns: costs, a prediction from them, and the pipeline itself."""
    worker, copy, data = join(plan.data, "cpu"), Trainer(plan.data, "cpu"), batches(width, batch)
    size = batch // (plan.spec.run.microbatches) * width * 4
    found: dict[str, Any] = {"predicted": [], "measured": [], "machines": []}
    for _ in range(ROUNDS):
        here = machine(worker, plan, copy, data, steps, size)
        found["predicted"].append(here.foretold(plan, worker.transport.size, {"B": batch}, steps))
        found["measured"].append(timed(worker, data, steps))
        found["machines"].append((here.steps, here.value))
    worker.transport.close()
    (folder / f"{worker.transport.rank}.json").write_text(json.dumps(found))


def compare(workers: Sequence[int], width: int, batch: int, steps: int) -> None:
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; 8 blocks of width {width}, batch {batch}")
    with tempfile.TemporaryDirectory() as name:
        for way, pieces in WAYS.items():
            text = spec(width, batch, way.split()[0])
            text["run"]["microbatches"] = pieces
            lpc.build(text).save(Path(name) / "x.plan")
            for count in workers:
                options = [f"--{key}={value}" for key, value in (("width", width), ("batch", batch), ("steps", steps))]
                command = [str(Path(__file__).resolve()), *options, "--plan", f"{name}/x.plan"]
                ended = Supervisor([*command, "--folder", name], count, Path(name) / "logs", restarts=0).run()
                if ended.code:
                    raise SystemExit(ended.code)
                found = json.loads((Path(name) / "0.json").read_text())
                errors = [p / m - 1 for p, m in zip(found["predicted"], found["measured"], strict=True)]
                middle = statistics.median
                times = [f"{word} {1e3 * middle(found[word]):.2f} ms" for word in ("predicted", "measured")]
                spread = f"{100 * min(errors):+.0f} to {100 * max(errors):+.0f}"
                line = f"{way}, {count} processes: {', '.join(times)}, error {100 * middle(errors):+.1f} % ({spread})"
                print(line, flush=True)


@dataclass(frozen=True)
class Model:
    """A chain of equal-cost layers for a table: forward flops of all layers for a sample, bytes of parameters."""

    name: str
    layers: int
    flops: float  # forward, a sample
    parameters: float
    activation: float  # bytes between layers, a sample
    batch: int  # samples of the whole batch


DEVICE_FLOPS, LINK, LATENCY, PIECE_OVERHEAD = 1.5e14, 2.5e10, 2e-5, 1e-4
MODELS = (
    Model("ResNet-152", 50, 2 * 11.5e9, 60.2e6, 2 * 14 * 14 * 1024, 16384),
    Model("transformer, 7 billion", 32, 2 * 6.7e9 * 2048, 6.74e9, 2 * 2048 * 4096, 4096),
)
DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def stage(model: Model, stages: int, k: int, replicas: int, pieces: int, local: bool, steps: int) -> Iterator[Work]:
    """What a device does: its layers on its shard in pieces, then its group's sum; over gradient links as 1F1B."""
    share = model.batch / replicas / pieces
    layers = model.layers // stages + (k < model.layers % stages)
    forward = model.flops * share * layers / model.layers / DEVICE_FLOPS
    size = model.activation * share
    ahead = 0 if local else min(stages - 1 - k, pieces)
    gradients = 2 * model.parameters * layers / model.layers  # bytes, in bfloat16
    reducing = 2 * (replicas - 1) / replicas * gradients / LINK + (LATENCY * 2 * (replicas - 1) if replicas > 1 else 0)
    for _ in range(steps):
        for turn in range(pieces + ahead):
            if turn < pieces:
                yield from [Take(k - 1)] if k else []
                yield Compute((3 if local else 1) * forward + PIECE_OVERHEAD)
                yield from [Give(k + 1, size)] if k < stages - 1 else []
            if not local and turn >= ahead:
                yield from [Take(k + 1)] if k < stages - 1 else []
                yield Compute(2 * forward + PIECE_OVERHEAD)
                yield from [Give(k - 1, size)] if k else []
        yield Compute(reducing)
        yield Done()


def foretold(model: Model, devices: int, stages: int, times: int, local: bool) -> Simulation:
    """Simulate one replica, all of which are alike, with `times` as many pieces as stages."""
    replicas = devices // stages
    pieces = max(min(times * stages, model.batch // replicas), 1)
    programs = [stage(model, stages, k, replicas, pieces, local, 3) for k in range(stages)]
    return simulate(programs, Network(LATENCY, LINK, room=2 * stages))


def best_of(model: Model, devices: int, local: bool) -> tuple[Simulation, int, int]:
    """Return the fastest way that fits into the devices' memory: 16 bytes a parameter, 72 GB."""
    ways = [
        (stages, times)
        for stages in (1, 2, 4, 8, 16, 32)
        if stages <= min(devices, model.layers) and model.parameters * 16 / stages <= 7.2e10
        for times in (2, 4, 8, 16)
    ]
    found = ((foretold(model, devices, *way, local), *way) for way in ways)
    return min(found, key=lambda one: one[0].period)


def table() -> None:
    for model in MODELS:
        print(f"\n{model.name}: {model.layers} layers, batch {model.batch}; samples a second, share of time waited\n")
        print("| devices | local links | stages | waiting | 1F1B | stages | waiting | local / 1F1B |")
        print("|---:|---:|---:|---:|---:|---:|---:|---:|")
        for devices in DEVICES:
            cells, periods = list[str](), list[float]()
            for local in (True, False):
                found, stages, times = best_of(model, devices, local)
                periods.append(found.period)
                waiting = max(100 * found.bubble, 0.0)
                cells += [f"{model.batch / found.period:,.0f}", f"{stages} x {times}", f"{waiting:.0f} %"]
            print(f"| {devices} | {' | '.join(cells)} | {periods[1] / periods[0]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    for option, default in {"width": 512, "batch": 256, "steps": 30}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.plan is not None:
        work(lpc.load(given.plan), given.folder, given.batch, given.width, given.steps)
    elif given.table:
        table()
    else:
        compare(given.workers, given.width, given.batch, given.steps)


if __name__ == "__main__":
    main()
