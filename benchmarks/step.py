"""How long is a step of a plan? Its time over that of a hand-written eager loop of the same algorithm.

    python benchmarks/step.py [--nets mlp lenet5 resnet18 vit] [--methods local backprop] [--threads 1 2]

Both sides run in one process, by turns (A B, B A, ...); a repetition's figure is the median of the ratios of
neighbours. `CPU time` is the same ratio of processor time, which other work on the machine hardly moves.
The loop has fused optimizers, one a block where the blocks learn alone, sets gradients to none, and measures
nothing but the loss, as the plan does. Before timing, both sides must compute the same.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from nets import LABEL, NETS, Net, head_input
from torch import Tensor, nn

import lpc

Step = Callable[[], Any]
LIMITS = {"local": 1.0, "backprop": 1.2}


def spec(net: Net, method: str) -> dict[str, Any]:
    """The network with stop links and local losses, or with gradient links and none."""
    pool = "(pool=mean)" if net.pooled else ""
    learn: dict[str, Any] = {"blocks": "*", "optimizer": net.optimizer}
    learn |= {"head": f"linear{pool}", "loss": "cross_entropy"} if method == "local" else {"loss": "none"}
    return {
        "network": {**net.network, "inputs": {"image": list(net.shape)}},
        "fields": LABEL,
        "loss": "cross_entropy",
        "decompose": {"blocks": net.blocks, "links": "stop" if method == "local" else "gradient"},
        "learn": [learn],
        "run": {"epochs": 1, "target": "cpu", "metrics": []},
    }


def optimizer(text: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the fused optimizer of a spec's term."""
    name, _, rest = text.partition("(")
    options = dict(pair.split("=") for pair in rest.rstrip(")").split(", "))
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    found: torch.optim.Optimizer = kind(parameters, **{k: float(v) for k, v in options.items()}, fused=True)
    return found


class Eager:
    """The loop by hand: `local` and `backprop` each take one step and return the losses."""

    def __init__(self, net: Net, method: str, state: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        self.net, self.batch = net, batch
        self.module = net.module()
        self.stages = net.stages(self.module)
        local = method == "local"
        self.heads = nn.ModuleList(nn.Linear(size, 10) for size in net.features if local)
        self.load(state)
        owned = [[p for name in names for p in self.module.get_submodule(name).parameters()] for names in net.owned]
        if local:
            heads = [*(list(head.parameters()) for head in self.heads), []]
            groups = [[*own, *head] for own, head in zip(owned, heads, strict=True)]
        else:
            groups = [[p for own in owned for p in own]]
        self.optimizers = [optimizer(net.optimizer, group) for group in groups]
        self.step: Step = self.local if local else self.backprop

    def load(self, state: dict[str, Tensor]) -> None:
        """Begin with a trainer's weights."""
        own = [(n, t) for n, t in state.items() if not n.startswith("heads.")]
        self.module.load_state_dict(dict(own))
        heads = [t for n, t in state.items() if n.startswith("heads.")]
        for tensor, given in zip((p for h in self.heads for p in h.parameters()), heads, strict=True):
            tensor.data.copy_(given)

    def local(self) -> list[Tensor]:
        x, label, losses = self.batch["image"], self.batch["label"], []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            last = index == len(self.heads)
            scores = x if last else self.heads[index](head_input(x, self.net.pooled))
            loss = F.cross_entropy(scores, label)
            self.optimizers[index].zero_grad(set_to_none=True)
            loss.backward()
            self.optimizers[index].step()
            losses.append(loss.detach())
            x = x.detach()
        return losses

    def backprop(self) -> list[Tensor]:
        x = self.batch["image"]
        for stage in self.stages:
            x = stage(x)
        loss = F.cross_entropy(x, self.batch["label"])
        self.optimizers[0].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[0].step()
        return [loss.detach()]


def rivals(net: Net, method: str) -> tuple[Step, Step]:
    """Return the plan's step and the loop's, from the same weights; each returns its losses in block order."""
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randn(net.batch, *net.shape, generator=generator),
        "label": torch.randint(0, 10, (net.batch,), generator=generator),
    }
    trainer = lpc.Trainer(lpc.build(spec(net, method)), device="cpu")
    eager = Eager(net, method, {n: t.clone() for n, t in trainer.state_dict().items()}, batch)
    return lambda: list(trainer.step(batch).values()), eager.step


def difference(plan: Step, eager: Step, steps: int = 3) -> float:
    """Take some steps on both sides and return the largest relative difference of a loss."""
    pairs = [(a, b) for _ in range(steps) for a, b in zip(plan(), eager(), strict=True)]
    return max(float((a - b).abs() / b.abs()) for a, b in pairs)


@dataclass(frozen=True)
class Seconds:
    """What a clock on the wall and the processor's own account say."""

    wall: float
    cpu: float


def seconds(step: Step, inner: int) -> Seconds:
    """Time `inner` steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(inner):
        step()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


@dataclass(frozen=True)
class Comparison:
    """Median ratios of neighbouring timings, plan over loop, and the loop's median seconds for one step."""

    wall: float
    cpu: float
    loop: float


def compare(plan: Step, eager: Step, pairs: int, inner: int) -> Comparison:
    """Time `inner` steps of each side by turns, `pairs` times; every other pair begins with the loop."""
    found = []
    for pair in range(pairs):
        order = (eager, plan) if pair % 2 else (plan, eager)
        times = {step: seconds(step, inner) for step in order}
        found.append((times[plan], times[eager]))
    return Comparison(
        statistics.median(a.wall / b.wall for a, b in found),
        statistics.median(a.cpu / b.cpu for a, b in found),
        statistics.median(b.wall / inner for _, b in found),
    )


def measure(net: Net, method: str, repetitions: int, span: float) -> tuple[list[Comparison], float]:
    """Return the comparisons of about `span` seconds each, and how much the losses of both sides differ."""
    plan, eager = rivals(net, method)
    apart = difference(plan, eager)
    once = seconds(eager, 3).cpu / 3
    inner = max(1, round(0.02 / once))
    pairs = max(9, round(span / (2 * inner * once)))
    compare(plan, eager, 3, inner)
    return [compare(plan, eager, pairs, inner) for _ in range(repetitions)], apart


def rows(options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Yield each line of the table, and by how much its median is over the limit."""
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.nets:
            for method in options.methods:
                found, apart = measure(NETS[name](), method, options.repetitions, options.span)
                wall = [c.wall for c in found]
                middle, cpu = statistics.median(wall), statistics.median(c.cpu for c in found)
                loop = 1000 * statistics.median(c.loop for c in found)
                spread = " | ".join(f"{r:.3f}" for r in (middle, min(wall), max(wall), cpu))
                yield (
                    f"| {threads} | {name} | {method} | {loop:.2f} | {spread} | {apart:.0e} |",
                    middle - LIMITS[method],
                )


def main() -> int:
    """Print the table; return 1 where a median is over its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--nets", nargs="*", choices=NETS, default=list(NETS))
    parser.add_argument("--methods", nargs="*", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--span", type=float, default=4.0, help="seconds of each repetition")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}\n")
    print("| threads | network | method | loop ms | plan / loop | least | most | CPU time | losses differ by |")
    print("|---:|---|---|---:|---:|---:|---:|---:|---:|")
    missed = False
    for line, excess in rows(options):
        print(line, flush=True)
        missed = missed or excess > 0
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
