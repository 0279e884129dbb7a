"""How fast is partitioning? Seconds for synthetic graphs that double in size, with each way to choose blocks.

    python benchmarks/partition.py [--nodes 40000] [--doublings 3]

A graph is a chain of layers with activations, and a skip connection over every four layers. The time is the
processor's for `partition` alone, on training and evaluation graphs of that many nodes each; the best of
seven rounds. The command exits with 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass

import torch
from torch import fx, nn

from lpc.compiler.partition import partition
from lpc.specs.model import Decompose, Network, Spec
from lpc.specs.term import Term

LIMIT_SECONDS, LIMIT_RATIO = 2.0, 2.5
WAYS = {
    "each": Term("each", ("stages.*",)),
    "per_layer": Term("per_layer"),
    "balanced": Term("balanced", (), {"count": 8, "by": "memory"}),
}
SKIP, LAYERS_PER_STAGE = 4, 12


@dataclass(frozen=True)
class Traced:
    """Two annotated graphs, as the front end gives them."""

    train: fx.GraphModule
    eval: fx.GraphModule
    rung: str = "modules"
    inputs: tuple[str, ...] = ("x",)


class Layer(nn.Module):
    """A layer that is only looked at, and quickly made."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, 4))


def synthetic(nodes: int) -> fx.GraphModule:
    """Return a graph of about `nodes` compute nodes: linear, relu, linear, relu, ..., and skips."""
    root, graph = nn.Module(), fx.Graph()
    root.stages = nn.ModuleList()
    value = torch.empty(8, 4)
    last = skip = graph.placeholder("x")
    number = made = 0
    while made < nodes:
        stage, position = divmod(number, LAYERS_PER_STAGE)
        if position == 0:
            root.stages.append(nn.ModuleList())
        root.stages[stage].append(Layer())
        path = f"stages.{stage}.{position}"
        last = _noted(graph.call_module(path, (last,)), value, path, (f"{path}.weight",))
        last = _noted(graph.call_function(torch.relu, (last,)), value, f"stages.{stage}", ())
        made += 2
        if number % SKIP == SKIP - 1:
            last = skip = _noted(graph.call_function(torch.add, (last, skip)), value, "", ())
            made += 1
        number += 1
    graph.output(last)
    module = fx.GraphModule(root, graph)
    module.meta.update(symbols={}, hint_batch=8)
    return module


def _noted(node: fx.Node, value: torch.Tensor, path: str, parameters: tuple[str, ...]) -> fx.Node:
    node.meta.update(val=value, path=path, call=0, key=node.name, parameters=parameters)
    node.meta.update(buffers=(), flops=128, bytes=128)
    return node


def seconds(traced: Traced, way: str) -> float:
    """Return the processor time of one partitioning, which is single-threaded Python."""
    spec = Spec(network=Network(), decompose=Decompose(blocks=WAYS[way]), learn=())
    start = time.process_time()
    partition(traced, spec)
    return time.process_time() - start


def measure(nodes: int, doublings: int, repeats: int = 7) -> dict[int, dict[str, float]]:
    """Return {nodes: {way: seconds}}, from the smallest graph to the one of `nodes` nodes.

    All sizes are timed in every round, so that a slower spell of the machine does not meet one size alone.
    """
    sizes = [nodes >> step for step in range(doublings, -1, -1)]
    graphs = {size: Traced(synthetic(size), synthetic(size)) for size in sizes}
    rounds = []
    for _ in range(repeats):
        gc.collect()
        rounds.append({n: {way: seconds(g, way) for way in WAYS} for n, g in graphs.items()})
    return {n: {way: min(times[n][way] for times in rounds) for way in WAYS} for n in sizes}


def main() -> int:
    """Print the table; return 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--nodes", type=int, default=40_000)
    parser.add_argument("--doublings", type=int, default=3)
    options = parser.parse_args()
    missed = False
    before: dict[str, float] = {}
    print("| nodes |" + "|".join(f" {way} s | x " for way in WAYS) + "|")
    print("|---:|" + "---:|---:|" * len(WAYS))
    for nodes, times in measure(options.nodes, options.doublings).items():
        ratios = {way: times[way] / before[way] for way in before}
        cells = [f" {times[way]:.3f} | {f'{ratios[way]:.2f}' if ratios else '-'} " for way in WAYS]
        print(f"| {nodes} |" + "|".join(cells) + "|", flush=True)
        missed = missed or max(times.values()) > LIMIT_SECONDS or max(ratios.values(), default=0) > LIMIT_RATIO
        before = times
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
