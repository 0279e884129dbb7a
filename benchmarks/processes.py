"""What do two processes gain? The speed-up of a pipeline over that of two independent copies, beside torch's own 1F1B.

    OMP_NUM_THREADS=1 python benchmarks/processes.py [--workers 2] [--width 512] [--batch 256] [--steps 60]
        [--rounds 25] [--way stop]

The same processes take turns: the plan on all of them, an independent copy of the whole plan on each side by side, and
one copy alone; of copies the slowest counts. What copies reach together is what the machine has to give; a
round's figure is the share of it that the pipeline reaches. The weights must have the bits of one process. Beside
1F1B over gradient links torch.distributed.pipelining trains the same network in as many pieces, in the same rounds.

Timelines of six steps go into benchmarks/processes_stop.svg and benchmarks/processes_1f1b.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from timeline import drawing
from torch import Tensor

import lpc
from lpc.runtime.tracing import gathered, overlap
from lpc.runtime.trainer import Trainer
from lpc.runtime.workers.join import join
from lpc.runtime.workers.supervisor import Supervisor

BLOCKS = 8
WARM = 2  # steps before the clock starts
TRACED = 6  # steps in a picture
PIECES = 4  # micro-batches of 1F1B
WAYS = {"stop": ("stop", 1), "gradient": ("gradient", 1), "1f1b": ("gradient", PIECES)}  # links, micro-batches
DRAWN = {"stop": "Eight equal blocks, `stop` links", "1f1b": f"The same network, backpropagation in {PIECES} pieces"}


def spec(width: int, batch: int, link: str, pieces: int = 1) -> dict[str, Any]:
    """Equal blocks with heads of their own; over `gradient` links only the last one has a loss."""
    layers: list[Any] = []
    for index in range(1, BLOCKS + 1):
        layers += [{f"fc{index}": f"linear({width})"}, "tanh"]
    learn: dict[str, Any] = {"blocks": "*", "optimizer": "sgd(lr=0.01)"}
    learn |= {"head": "linear(out=10)", "loss": "cross_entropy"} if link == "stop" else {}
    return {
        "network": {"inputs": {"x": [width]}, "layers": layers},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        **({"loss": "cross_entropy"} if link == "gradient" else {}),
        "decompose": {"blocks": {f"b{i}": f"fc{i}" for i in range(1, BLOCKS + 1)}, "links": link},
        "learn": [learn],
        "run": {"target": "cpu", "metrics": [], "microbatches": pieces},
    }


def batches(width: int, batch: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"x": torch.randn(batch, width, generator=generator), "label": torch.arange(batch) % 10} for _ in range(4)
    ]


def timed(trainer: Trainer, data: list[dict[str, Tensor]], steps: int) -> float:
    """Return the seconds of a step, from when all ranks are warm to when the last one is done."""
    for index in range(WARM):
        trainer.step(data[index % len(data)])
    trainer.transport.exchange(None)
    start = time.perf_counter()
    for index in range(steps):
        trainer.step(data[index % len(data)])
    trainer.transport.exchange(None)
    return (time.perf_counter() - start) / steps


class Rival:
    """The same network in torch.distributed.pipelining: a stage on each rank, 1F1B, one step of SGD after the batch."""

    def __init__(self, transport: Any, width: int) -> None:
        from torch import nn
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B

        store = transport.meeting.store.clone().part("rival")
        torch.distributed.init_process_group("gloo", store=store, rank=transport.rank, world_size=transport.size)
        self.transport, share = transport, BLOCKS // transport.size
        layers = [layer for _ in range(share) for layer in (nn.Linear(width, width), nn.Tanh())]
        self.module = nn.Sequential(*layers)
        stage = PipelineStage(self.module, transport.rank, transport.size, torch.device("cpu"))
        self.schedule = Schedule1F1B(stage, PIECES, loss_fn=nn.functional.cross_entropy)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01)

    def step(self, batch: dict[str, Tensor]) -> None:
        """Train on one batch: the first rank takes the inputs, the last one the labels."""
        self.optimizer.zero_grad()
        last = self.transport.rank == self.transport.size - 1
        inputs = (batch["x"],) if self.transport.rank == 0 else ()
        self.schedule.step(*inputs, **({"target": batch["label"], "losses": []} if last else {}))
        self.optimizer.step()


def work(plan: lpc.Plan, folder: Path, given: argparse.Namespace) -> None:
    """What each process does, by turns: its part of the plan, a copy of the whole, and rank 0 one more alone."""
    worker, copy, data = join(plan.data, "cpu"), Trainer(plan.data, "cpu"), batches(given.width, given.batch)
    one, exchange, steps = Trainer(plan.data, "cpu"), worker.transport.exchange, given.steps
    rival = Rival(worker.transport, given.width) if given.way == "1f1b" else None
    found: dict[str, Any] = {"pipeline": [], "copies": [], "one": [], "rival": []}
    for _ in range(given.rounds):
        exchange(None)
        found["pipeline"].append(timed(worker, data, steps))
        found["copies"].append(max(exchange(timed(copy, data, steps))))
        if rival is not None:
            found["rival"].append(timed(rival, data, steps))
        if worker.transport.rank == 0:
            found["one"].append(timed(one, data, steps))
    state, own = copy.state_dict(), worker.state_dict()
    found["same"] = all(exchange(all(torch.equal(state[name], own[name]) for name in own)))
    with worker.machine.traced() as tape:
        for index in range(WARM + TRACED):
            worker.step(data[index % len(data)])
    first = worker.steps_done - TRACED
    spans = gathered([span for span in tape.spans if span.step >= first], worker.transport)
    found["overlap"] = overlap(spans)
    if worker.transport.rank == 0:
        (folder / "picture.svg").write_text(drawing(spans, DRAWN.get(given.way, given.way)))
        (folder / "0.json").write_text(json.dumps(found))
    worker.transport.close()


def measure(plan: Path, way: str, workers: int, options: list[str]) -> dict[str, Any]:
    """Return the seconds of a step by way and round, and whether the weights were the same; draw the timeline."""
    with tempfile.TemporaryDirectory() as name:
        command = [str(Path(__file__).resolve()), *options, "--plan", str(plan), "--folder", name]
        ended = Supervisor([*command, "--way", way], workers, Path(name) / "logs", restarts=0).run()
        if ended.code:
            raise SystemExit(ended.code)
        found: dict[str, Any] = json.loads((Path(name) / "0.json").read_text())
        if way in DRAWN:
            picture = Path(__file__).with_name(f"processes_{way}.svg")
            picture.write_text((Path(name) / "picture.svg").read_text())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"workers": 2, "width": 512, "batch": 256, "steps": 60, "rounds": 25}
    for option, default in defaults.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.plan is not None:
        work(lpc.load(given.plan), given.folder, given)
        return
    options = [f"--{name}={getattr(given, name)}" for name in defaults]
    began = time.perf_counter()
    print(f"{BLOCKS} blocks of width {given.width}, batch {given.batch}, {given.workers} workers")
    print(f"load of the machine at the start {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        for way, (link, pieces) in WAYS.items():
            if given.way in (None, way):
                plan = Path(folder) / f"{way}.plan"
                lpc.build(spec(given.width, given.batch, link, pieces)).save(plan)
                print(describe(way, measure(plan, way, given.workers, options), given.workers), flush=True)
    print(f"{time.perf_counter() - began:.0f} s in all")


def describe(way: str, found: dict[str, Any], workers: int) -> str:
    """Return the medians over rounds: milliseconds, speed-ups over one process, the share; and if bits are the same."""
    rounds = list(zip(found["one"], found["copies"], found["pipeline"], strict=True))
    middle = statistics.median
    ways = [name for name in ("one", "copies", "pipeline", "rival") if found[name]]
    times = "  ".join(f"{name} {1e3 * middle(found[name]):.2f} ms" for name in ways)
    ceiling = middle(workers * one / copies for one, copies, _ in rounds)
    gained = middle(one / pipeline for one, _, pipeline in rounds)
    low, share, high = statistics.quantiles((copies / pipeline / workers for _, copies, pipeline in rounds), n=4)
    speeds = f"ceiling {ceiling:.2f}  gained {gained:.2f}  share {share:.3f} (quartiles {low:.3f} {high:.3f})"
    pairs = zip(found["copies"], found["rival"], strict=True) if found["rival"] else ()
    rival = f"  share of torch's 1F1B {middle(c / r / workers for c, r in pairs):.3f}" if found["rival"] else ""
    return f"{way}: {times}  {speeds}{rival}  busy at a time {found['overlap']:.2f}  same bits {found['same']}"


if __name__ == "__main__":
    main()
