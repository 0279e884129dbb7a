"""Does the simulation foretell the step time of several processes, and what does it foretell for thousands?

    OMP_NUM_THREADS=1 python benchmarks/simulation.py [--workers 2 4] [--width 512] [--batch 256] [--steps 30]
    python benchmarks/simulation.py --table

Measured: the plans of benchmarks/processes.py, and the gradient one in four micro-batches. All processes first run a
copy of the whole plan side by side, which gives the seconds of each kernel on a machine as busy as it will be, and of
what lies between kernels; twenty values go from one to another, and half the time of one is work of its sender, half of
its receiver. From these the step time of the pipeline is foretold, then it is measured, by turns.

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


VALUES = 20  # that are sent to time one


def one_way(worker: Any, size: int) -> float:
    """Return the seconds that a value of so many bytes takes from rank 0 to 1 where many follow each other."""
    transport, value = worker.transport, [torch.zeros(size // 4)]
    transport.exchange(None)
    start = time.perf_counter()
    for count in range(VALUES):
        stamp = Stamp(-2, count, "there")
        if transport.rank == 0:
            transport.send(1, stamp, value)
        elif transport.rank == 1:
            transport.receive(0, stamp)
    transport.exchange(None)
    return (time.perf_counter() - start) / VALUES


def work(plan: lpc.Plan, folder: Path, batch: int, width: int, steps: int) -> None:
    """What each process does by turns: costs on copies side by side, a prediction, and the pipeline itself."""
    worker, copy, data = join(plan.data, "cpu"), Trainer(plan.data, "cpu"), batches(width, batch)
    exchange, size = worker.transport.exchange, worker.transport.size
    found: dict[str, Any] = {"predicted": [], "measured": [], "value": []}
    plans, lengths = rank_plans(plan.data, plan.spec, size), {"B": batch}
    network = Network(room=max(ROOM, room_of(plans)))
    for _ in range(ROUNDS):
        exchange(None)
        own = kernel_seconds(copy, data, steps)
        if any(isinstance(one, Part) for one in plan.data.program.step):
            own |= in_pieces(Trainer(plan.data, "cpu"), data, steps)
        alone = statistics.fmean(exchange(timed(copy, data, steps)))
        mean = {name: statistics.fmean(each[name] for each in exchange(own)) for name in own}
        rest = alone / simulated([plan.data], lengths, measured(mean), network).period  # what lies between the kernels
        costs = measured({name: rest * seconds for name, seconds in mean.items()})
        value = one_way(worker, batch * width * 4)
        found["predicted"].append(simulated(plans, lengths, costs, network, handling=value / 2).period)
        found["measured"].append(timed(worker, data, steps))
        found["value"].append(value)
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
