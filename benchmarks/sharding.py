"""How much memory does each process need whose blocks are sharded over replicas, and how much do they send?

    OMP_NUM_THREADS=1 python benchmarks/sharding.py [--width 1024] [--blocks 8] [--replicas 2 4]

A chain of equal blocks with Adam: in one process, and by R processes over gloo, with whole blocks and with parts of
them. Told in MiB, each of the rank that has most: the peak of a step that the rank's plan predicts; what live tensors
came to in a step, as its own thread makes and frees them; the most that its private memory grew from the loaded plan to
the last step, which has what lies on edges, what threads and sockets take and what the allocator keeps beside; what it
sends in a step, counted, and as the simulation of its plan has it. All end with the bits of one process, or the script
with code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from growth import Growth
from torch import Tensor

import lpc
from lpc.runtime.allocator import share_freed_memory
from lpc.runtime.workers.worker import Worker
from lpc.specs.simulation.engine import Network
from lpc.specs.simulation.programs import Rates, estimated, simulated

MEBI = 2**20
STEPS, BATCH = 6, 64
KINDS = (False, True)  # whole blocks, parts of them
SPEC = """\
name: sharding
network: {{inputs: {{image: [1, 8, 8]}}, layers: [flatten, {layers}, out: linear(10)]}}
data: {{source: digits, batch: {batch}}}
loss: cross_entropy
decompose: {{blocks: {{{blocks}, head: out}}, links: {link}}}
learn: [{{blocks: "*", {local}optimizer: adam(lr=1e-3)}}]
run: {{steps: {steps}, target: cpu, replicas: {replicas}, shard: {shard}}}
"""


def spec(width: int, count: int, replicas: int, shard: bool, link: str) -> str:
    names = [f"fc{index}" for index in range(count)]
    return SPEC.format(
        layers=", ".join(f"{name}: linear({width}), relu" for name in names),
        blocks=", ".join(f"b{index}: {name}" for index, name in enumerate(names)),
        link=link, local="head: linear, loss: cross_entropy, " if link == "stop" else "",
        replicas=replicas, shard="true" if shard else "false", steps=STEPS, batch=BATCH,
    )  # fmt: skip


def digits(count: int) -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    return [{"image": torch.randn(BATCH, 1, 8, 8), "label": torch.randint(0, 10, (BATCH,))} for _ in range(count)]


def hashed(state: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return found.hexdigest()


def warm() -> None:
    """Import what the first step of an optimizer imports, which is no memory of the plan's."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    parameter.grad = torch.zeros(4)
    torch.optim.Adam([parameter], fused=True).step()


class Counting:
    """A transport that counts the bytes which are given to it."""

    def __init__(self, transport: Any) -> None:
        self.transport, self.sent = transport, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def send(self, to: int, stamp: Any, tensors: Sequence[Tensor]) -> None:
        self.sent += sum(tensor.nbytes for tensor in tensors)
        self.transport.send(to, stamp, tensors)


def work(folder: Path) -> None:
    """Be one of the processes: train, and write what it took."""
    warm()
    plan = lpc.load(folder / "plan")
    share_freed_memory()  # as `join` does, before there is a second thread
    growth = Growth()
    worker: Worker = lpc.join(plan)
    transport = Counting(worker.machine.transport)
    worker.machine.transport = transport  # type: ignore[assignment]
    for batch in digits(STEPS):
        transport.sent = 0
        worker.step(batch)
    grown, _ = growth.end()
    sent = transport.sent
    before = [tensor.clone() for tensor in worker.state.own.values()]
    measured = worker.measure(digits(1)[0])
    for tensor, value in zip(worker.state.own.values(), before, strict=True):
        tensor.detach().copy_(value)
    state = hashed(worker.state_dict())
    told = {"state": state, "grown": grown, "sent": sent, **measured}
    rank = worker.transport.rank
    (folder / f"rank-{rank}.json").write_text(json.dumps(told))
    worker.transport.close()


def by_processes(folder: Path, plan: lpc.Plan, count: int) -> list[dict[str, Any]]:
    """Return what each of so many processes has told."""
    plan.save(folder / "plan")
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--rdzv-backend", "c10d"]
    line += ["--rdzv-endpoint", "localhost:0", __file__, "--work", str(folder)]
    subprocess.run(line, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(count)]


def row(width: int, blocks: int, replicas: int, shard: bool, link: str) -> bool:
    """Print one row; return whether the bits are those of one process."""
    plan = lpc.build(spec(width, blocks, replicas, shard, link))
    one = lpc.Trainer(plan, "cpu")
    for batch in digits(STEPS):
        one.step(batch)
    plans = plan.ranks(replicas)
    sent = simulated([own.data for own in plans], {"B": BATCH}, estimated(Rates()), Network(), steps=1).sent
    with tempfile.TemporaryDirectory() as folder:
        found = by_processes(Path(folder), plan, replicas)
    same = {told["state"] for told in found} == {hashed(one.state_dict())}
    predicted = max(own.memory(BATCH).total for own in plans)
    simulated_sent = max(sum(size for (source, _), size in sent.items() if source == rank) for rank in range(replicas))
    cells = [predicted, *(max(told[key] for told in found) for key in ("measured", "grown", "sent"))]
    numbers = " | ".join(f"{cell / MEBI:.1f}" for cell in (*cells, simulated_sent))
    how = "parts" if shard else "whole"
    print(f"| `{link}` | {replicas} | {how} | {numbers} | {'yes' if same else 'NO'} |", flush=True)
    return same


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--replicas", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.work is not None:
        work(given.work)
        return 0
    print("| links | processes | blocks | predicted | live tensors | grown | sent | sent, simulated | same bits |")
    print("|---|---|---|---|---|---|---|---|---|")
    cases = [(replicas, shard, link) for link in ("stop", "gradient") for replicas in given.replicas for shard in KINDS]
    same = [row(given.width, given.blocks, replicas, shard, link) for replicas, shard, link in cases]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
