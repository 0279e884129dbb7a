"""Does the simulation foretell the step time of several processes, and what does it foretell for thousands?

    OMP_NUM_THREADS=1 python benchmarks/simulation.py [--workers 2 4] [--width 512] [--batch 256] [--rounds 25]
    python benchmarks/simulation.py --table

Measured: the plans of benchmarks/processes.py, and the gradient one in four micro-batches. By turns, processes measure
what `lpc calibrate` does (see `lpc.runtime.workers.calibrating`), and run the pipeline. Its step time is foretold from
the medians of all that was measured, and compared with the median of those that it took.

Foretold only: ResNet-152 and a transformer of 7 billion parameters on 8 to 4,096 devices, under stated assumptions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from processes import batches, spec, timed

import lpc
from lpc.runtime.trainer import Trainer
from lpc.runtime.workers.calibrating import EDGES, Calibrator
from lpc.runtime.workers.gloo import Gloo
from lpc.runtime.workers.join import join
from lpc.runtime.workers.meeting import Meeting
from lpc.runtime.workers.supervisor import Supervisor
from lpc.runtime.workers.transport import ROOM
from lpc.specs.ranks.plan import rank_plans, room_of
from lpc.specs.simulation.calibration import Calibration
from lpc.specs.simulation.engine import Compute, Done, Give, Network, Simulation, Take, Work, simulate
from lpc.specs.simulation.programs import simulated

WAYS = {"stop": 1, "gradient": 1, "gradient in 4 pieces": 4}


def predicted(plan: lpc.Plan, found: Calibration, size: int, steps: int) -> float:
    """Return the seconds of a step of the plan on so many ranks, over steps that begin and end together."""
    plans = rank_plans(plan.data, plan.spec, size)
    network = replace(found.processes.network(), room=max(ROOM, room_of(plans)))
    ends = simulated(plans, dict(found.lengths), found.costs(plan.data), network, steps).ends
    return max(end[-1] for end in ends) / steps


def work(plan: lpc.Plan, folder: Path, given: argparse.Namespace) -> None:
    """What each process does by turns: measure costs, and run the pipeline."""
    worker, copy, data = join(plan.data, "cpu"), Trainer(plan.data, "cpu"), batches(given.width, given.batch)
    transport = worker.transport
    apart = Meeting(transport.meeting.store.part("costs"), transport.rank, transport.size)
    calibrator = Calibrator(copy, [copy.parts(batch) for batch in data], Gloo(EDGES, copy.device, apart))
    taken: list[float] = []
    for _ in range(given.rounds):
        calibrator.round(given.steps)
        taken.append(timed(worker, data, given.steps))
    transport.close()
    if transport.rank == 0:
        found = calibrator.found()
        outcome = {"foretold": predicted(plan, found, transport.size, given.steps), "taken": taken}
        (folder / "0.json").write_text(json.dumps(outcome))
        found.write(folder / "costs.json")


def compare(given: argparse.Namespace) -> None:
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; 8 blocks of {given.width}, batch {given.batch}")
    names = ("width", "batch", "steps", "rounds")
    options = [f"--{name}={getattr(given, name)}" for name in names]
    with tempfile.TemporaryDirectory() as name:
        command = [str(Path(__file__).resolve()), *options, "--plan", f"{name}/x.plan", "--folder", name]
        for way, pieces in WAYS.items():
            text = spec(given.width, given.batch, way.split()[0])
            text["run"]["microbatches"] = pieces
            lpc.build(text).save(Path(name) / "x.plan")
            for count in given.workers:
                ended = Supervisor(command, count, Path(name) / "logs", restarts=0).run()
                if ended.code:
                    raise SystemExit(ended.code)
                print(f"{way}, {count} processes: {told(json.loads((Path(name) / '0.json').read_text()))}", flush=True)


def told(found: dict[str, Any]) -> str:
    """Return what was foretold and what was measured, in words."""
    low, middle, high = (1e3 * quartile for quartile in statistics.quantiles(found["taken"], n=4))
    error = 1e5 * found["foretold"] / middle - 100
    measured = f"measured {middle:.2f} ms (quartiles {low:.2f} {high:.2f})"
    return f"foretold {1e3 * found['foretold']:.2f} ms, {measured}, error {error:+.1f} %"


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
    for option, default in {"width": 512, "batch": 256, "steps": 10, "rounds": 25}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.plan is not None:
        work(lpc.load(given.plan), given.folder, given)
    elif given.table:
        table()
    else:
        compare(given)


if __name__ == "__main__":
    main()
