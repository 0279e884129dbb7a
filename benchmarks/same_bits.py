"""Do 1, 2 and 4 processes over gloo end with the same bits, and whoever goes on from another's checkpoint?

    OMP_NUM_THREADS=1 python benchmarks/same_bits.py [--steps 50] [--only NAME ...]

Every plan trains on digits: in one process, by 2 and by 4 processes; half of the steps by one number and the rest by
another. What is compared with one process's undisturbed run is all that the last checkpoint holds (weights, buffers,
optimizers' state), the schedules' numbers, and the rows of the journal but for their times. Ends with code 1 where
something differs. The processes of one number are started once for all plans; each plan has its own groups.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from outcome import outcome

import lpc
from lpc.runtime.trainer import Trainer
from lpc.runtime.workers.gloo import Gloo
from lpc.runtime.workers.join import meet
from lpc.runtime.workers.meeting import Meeting
from lpc.runtime.workers.supervisor import Supervisor
from lpc.runtime.workers.transport import PATIENCE, ROOM
from lpc.runtime.workers.worker import Worker
from lpc.specs.ranks.plan import edges_of, rank_plans, room_of

HEAD = "network:\n  inputs: {image: [1, 8, 8]}\n  layers:\n"
DATA = "data: {source: digits, batch: 64}\nloss: cross_entropy\n"
LOCAL = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=3e-3), schedule: cosine}]\n'
WHOLE = 'learn: [{blocks: "*", optimizer: "sgd(lr=0.05, momentum=0.9)", schedule: cosine}]\n'


def network(layers: Sequence[str]) -> str:
    return HEAD + "".join(f"    - {layer}\n" for layer in layers) + DATA


def blocks(named: dict[str, str], links: str) -> str:
    return f"decompose: {{blocks: {{{', '.join(f'{b}: {n}' for b, n in named.items())}}}, links: {links}}}\n"


MLP = network(
    ["flatten", "fc1: linear(32)", "norm1: batch_norm", "relu", "dropout(0.2)", "fc2: linear(32)", "relu",
     "fc3: linear(32)", "relu", "out: linear(10)"]
)  # fmt: skip
MLP_BLOCKS = {"b1": "[fc1, norm1]", "b2": "fc2", "b3": "fc3", "head": "out"}
CONV = network(
    [line for i in range(1, 9) for line in (f"conv{i}: conv(8, kernel=3, padding=1)", f"norm{i}: batch_norm", "relu")]
    + ["global_avg_pool", "out: linear(10)"]
)
CONV_BLOCKS = {f"b{i}": f"[conv{i}, norm{i}]" for i in range(1, 8)} | {"b8": "[conv8, norm8, out]"}
ATTENTION, MIXING = "[layer_norm, attention(4, dropout=0.1)]", "[layer_norm, linear(64), gelu, linear(32)]"
TRANSFORMER = network(
    ["patches(2)", "embed: linear(32)"]
    + [line for i in range(1, 5) for line in (f"at{i}: {{residual: {ATTENTION}}}", f"ff{i}: {{residual: {MIXING}}}")]
    + ["mean(1)", "out: linear(10)"]
)
TRANSFORMER_BLOCKS = {"b1": "[embed, at1, ff1]", "b2": "[at2, ff2]", "b3": "[at3, ff3]", "b4": "[at4, ff4, out]"}
CHAIN = network(
    ["flatten", "fc1: linear(24)", "tanh", "fc2: linear(24)", "tanh", "fc3: linear(24)", "tanh", "out: linear(10)"]
)
CHAINED = "decompose: {blocks: {b1: fc1, b2: fc2, b3: fc3, head: out}}\n"
RUN = "run: {steps: STEPS, seed: 1, target: cpu, log: every(5), checkpoint: every(10)MORE}\n"

PLANS: dict[str, tuple[str, str]] = {  # name -> spec without `run`, what is added to `run`
    "digits": (MLP + blocks(MLP_BLOCKS, "stop") + LOCAL, ""),
    "digits, supervised, float64": (MLP + blocks(MLP_BLOCKS, "gradient") + LOCAL, ", dtype: float64"),
    "conv net": (CONV + blocks(CONV_BLOCKS, "stop") + LOCAL, ""),
    "conv net, 1F1B": (CONV + blocks(CONV_BLOCKS, "gradient") + WHOLE, ", microbatches: 4"),
    "conv net, replicas": (CONV + blocks(CONV_BLOCKS, "stop") + LOCAL, ", replicas: 2, microbatches: 2"),
    "transformer": (TRANSFORMER + blocks(TRANSFORMER_BLOCKS, "stop") + LOCAL, ""),
    "transformer, 1F1B": (TRANSFORMER + blocks(TRANSFORMER_BLOCKS, "gradient") + WHOLE, ", microbatches: 4"),
    "transformer, replicas": (
        TRANSFORMER + blocks(TRANSFORMER_BLOCKS, "gradient") + WHOLE, ", replicas: 2, microbatches: 2, accumulate: 2"
    ),
    "transformer, sharded": (
        TRANSFORMER + blocks(TRANSFORMER_BLOCKS, "gradient") + WHOLE,
        ", replicas: 2, microbatches: 2, accumulate: 2, shard: true",
    ),
    "digits, four replicas": (MLP + blocks(MLP_BLOCKS, "gradient") + WHOLE, ", replicas: 4"),
    "BlockProp": ("recipe: blockprop(steps=3)\n" + CHAIN + CHAINED, ""),
    "BlockProp, cached": ("recipe: blockprop_cached(refresh=2)\n" + CHAIN + CHAINED, ""),
    "altmin": ("recipe: altmin\n" + CHAIN + CHAINED, ""),
}  # fmt: skip
# Who runs what, in order: a number of processes, then (folder, from whose half it goes on).
HALF = "half"
TURNS: tuple[tuple[int, tuple[tuple[str, str], ...]], ...] = (
    (1, (("1", ""), ("1 half", HALF))),
    (2, (("2", ""), ("2 half", HALF))),
    (4, (("4", ""), ("4 half", HALF), ("1 > 4", "1 half"), ("2 > 4", "2 half"))),
    (2, (("4 > 2", "4 half"), ("1 > 2", "1 half"))),
    (1, (("2 > 1", "2 half"), ("4 > 1", "4 half"))),
)
COLUMNS = ("2", "4", "1 > 2", "1 > 4", "2 > 1", "2 > 4", "4 > 1", "4 > 2")


def halted(kind: type[Any], steps: int) -> type[Any]:
    """Return a trainer that ends after so many steps, whose schedules know of the whole run."""
    return type("Halted", (kind,), {"total_steps": steps})


def run(trainer: type[Any], arguments: Sequence[Any], folder: Path, origin: str) -> Any:
    """Train into a folder: all of it, its first half, or from what another folder holds."""
    made = trainer(*arguments)
    if origin == HALF:
        made = halted(trainer, made.total_steps // 2)(*arguments)
    if origin not in ("", HALF) and getattr(made.transport, "rank", 0) == 0:
        shutil.copytree(folder.parent / origin, folder)
    made.transport.exchange(None)
    made.fit(folder, resume=origin not in ("", HALF))
    return made


def work(root: Path, turn: int) -> None:
    """What each process does: its part of every plan that is there, one after another."""
    size, acts = TURNS[turn]
    rank = int(os.environ.get("RANK", "0"))
    store = meet(rank, size, PATIENCE).store if size > 1 else None
    for path in sorted(root.glob("*/it.plan"), key=lambda path: int(path.parent.name)):
        plan = lpc.load(path)
        plans = rank_plans(plan.data, plan.spec, size)
        for name, origin in acts:
            folder = path.parent / name
            if size == 1:
                run(Trainer, (plan.data, "cpu"), folder, origin)
                continue
            meeting = Meeting(store.part(f"{path.parent.name} {name}"), rank, size)
            transport = Gloo(edges_of(plans), torch.device("cpu"), meeting, PATIENCE, max(ROOM, room_of(plans)))
            run(Worker, (plan.data, plans, transport, "cpu"), folder, origin)
            transport.close()


def compared(folder: Path, wanted: Path) -> str:
    """Tell `same` where bits, numbers and rows are the same, else the largest relative difference."""
    (tensors, *rest), (others, *other_rest) = outcome(folder), outcome(wanted)
    if tensors.keys() != others.keys():
        return "names"
    unequal = [name for name in others if not torch.equal(tensors[name], others[name])]
    if not unequal:
        return "same" if rest == other_rest else "rows"
    scale = {name: others[name].double().abs().max().clamp(min=1e-300) for name in unequal}
    worst = max(float((tensors[n].double() - others[n].double()).abs().max() / scale[n]) for n in unequal)
    return f"{len(unequal)} of {len(others)}: {worst:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--root", type=Path)
    parser.add_argument("--turn", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.turn is not None:
        work(given.root, given.turn)
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for index, one in enumerate(given.only):
            text, more = PLANS[one]
            built = lpc.build(text + RUN.replace("STEPS", str(given.steps)).replace("MORE", more))
            built.save(root / str(index) / "it.plan")
        for turn, (size, _) in enumerate(TURNS):
            turned(root, turn, size)
            print(f"{size} processes done after {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        raise SystemExit(told(root, given.only))


def turned(root: Path, turn: int, size: int) -> None:
    if size == 1:
        work(root, turn)
        return
    command = [str(Path(__file__).resolve()), "--root", str(root), "--turn", str(turn)]
    ended = Supervisor(command, size, root / "logs", restarts=0).run()
    if ended.code:
        raise SystemExit(ended.code)


def told(root: Path, names: Sequence[str]) -> int:
    """Print a row for each plan; return 1 where something differs."""
    print(f"| plan | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    different = 0
    for index, name in enumerate(names):
        found = [compared(root / str(index) / column, root / str(index) / "1") for column in COLUMNS]
        different |= any(one != "same" for one in found)
        print(f"| {name} | {' | '.join(found)} |")
    return int(different)


if __name__ == "__main__":
    main()
