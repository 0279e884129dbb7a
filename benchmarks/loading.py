"""How much memory does a process take to begin with its part of a plan, or to go on with it from a checkpoint?

    OMP_NUM_THREADS=1 python benchmarks/loading.py [--width 3600] [--blocks 8] [--processes 2 4]

A chain of equal blocks whose first weights have 415 MB, SGD with momentum, by K processes over gloo, each with some of
the blocks, or with parts of all of them (`run.shard`). Told in MiB, each of the process that has most, above what it
had once everything was imported: the tensors that its part of the plan has, the most of its private memory until it
could do its first step, and what it keeps then.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from growth import Growth

import lpc
from lpc.runtime.allocator import share_freed_memory

MEBI = 2**20
SPEC = """\
name: loading
network: {{inputs: {{image: [1, 8, 8]}}, layers: [flatten, {layers}, out: linear(10)]}}
data: {{source: digits, batch: 64}}
loss: cross_entropy
decompose: {{blocks: {{{blocks}, head: out}}, links: stop}}
learn: [{{blocks: "*", head: linear, loss: cross_entropy, optimizer: "sgd(lr=1e-4, momentum=0.9)"}}]
run: {{steps: 1, target: cpu, log: none, validate: none, replicas: {replicas}, shard: {shard}}}
"""


def spec(width: int, count: int, replicas: int) -> str:
    names = [f"fc{index}" for index in range(count)]
    return SPEC.format(
        layers=", ".join(f"{name}: linear({width}), relu" for name in names),
        blocks=", ".join(f"b{index}: {name}" for index, name in enumerate(names)),
        replicas=replicas, shard="true" if replicas > 1 else "false",
    )  # fmt: skip


def work(path: Path, out: Path, resumed: Path | None) -> None:
    """Be one of the processes: begin, and write what it took."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    torch.optim.SGD([parameter], fused=True).zero_grad()  # which imports what the first optimizer imports
    share_freed_memory()  # as `join` does, before there is a second thread
    growth = Growth()
    worker = lpc.join(lpc.load(path))
    if resumed is not None:
        worker.fit(resumed, resume=True)
    gc.collect()
    most, kept = growth.end()
    machine = worker.machine
    held = list(machine.state.own.values())
    held += [v for o in machine.optimizers.values() for _, _, v in o.state() if isinstance(v, torch.Tensor)]
    told = {"most": most, "kept": kept, "held": sum(tensor.nbytes for tensor in held)}
    (out / f"rank-{worker.transport.rank}.json").write_text(json.dumps(told))
    worker.transport.close()


def by_processes(count: int, *options: str) -> None:
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--rdzv-backend", "c10d"]
    line += ["--rdzv-endpoint", "localhost:0", *options]
    quiet, alone = subprocess.DEVNULL, {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(line, check=True, env=alone, stdout=quiet, stderr=quiet)


def row(what: str, count: int, folder: Path, *options: str) -> None:
    """Print one row."""
    by_processes(count, __file__, *options, "--out", str(folder))
    found = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(count)]
    cells = " | ".join(f"{max(told[key] for told in found) / MEBI:.0f}" for key in ("held", "most", "kept"))
    print(f"| {what} | {count} | {cells} |", flush=True)


def rows(width: int, blocks: int, count: int, replicas: int) -> None:
    """Print the rows of one plan: its first start, from both forms, and going on, from both forms of checkpoints."""
    plan = lpc.build(spec(width, blocks, replicas))
    with tempfile.TemporaryDirectory() as name:
        folder, how = Path(name), "parts, " if replicas > 1 else ""
        paths = [folder / "it.plan", folder / "it.zip"]
        for path in paths:
            plan.save(path)
        del plan
        for path, form in zip(paths, ("folder", "archive"), strict=True):
            row(f"{how}{form}", count, folder, "--plan", str(path))
        run = str(folder / "run")
        by_processes(count, "-m", "lpc", "run", str(paths[0]), "--out", run)
        row(f"{how}checkpoint of {count}", count, folder, "--plan", str(paths[0]), "--resumed", run)
        if replicas == 1:
            line = [sys.executable, "-m", "lpc", "run", str(paths[0]), "--out", run, "--workers", "1"]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
            row(f"{how}checkpoint of 1", count, folder, "--plan", str(paths[0]), "--resumed", run)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=3600)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--processes", type=int, nargs="*", default=[2, 4])
    for name in ("--plan", "--out", "--resumed"):
        parser.add_argument(name, type=Path)
    given: Any = parser.parse_args()
    torch.set_num_threads(1)
    if given.plan is not None:
        work(given.plan, given.out, given.resumed)
        return
    print("| from | processes | tensors of its part | most | kept |")
    print("|---|---|---|---|---|")
    for count in given.processes:
        rows(given.width, given.blocks, count, 1)
        rows(given.width, given.blocks, count, count)


if __name__ == "__main__":
    main()
