"""How does a block run for a check before anything is captured? Its own modules, two random samples, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from lpc.compiler.blocks import BlockModule, extract, outside_readers
from lpc.compiler.capture.types import tensor_types
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.localize import LocalProblem
from lpc.compiler.samples import Types, example, examples
from lpc.compiler.state import named_state, run_with_state

SAMPLES = 2


@dataclass(frozen=True)
class Rehearsal:
    """A block as it trains, random samples of what it reads, and copies of its tensors as they are at the start."""

    problem: LocalProblem
    block: BlockModule
    inputs: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    types: Types
    aliases: Mapping[str, str]

    def parameters(self) -> list[str]:
        """Return the names in the block's module of what is trained."""
        wanted = set(self.problem.trainable)
        named = self.block.module.named_parameters(remove_duplicate=False)
        return [n for n, _ in named if self.aliases.get(n, n) in wanted]

    def run(self, run: fx.Interpreter) -> dict[str, Any]:
        """Run the block's graph by an interpreter; return its outputs by name."""
        outputs = run_with_state(run, self.state, list(self.inputs.values()))
        return dict(zip(self.block.outputs, outputs, strict=True))


@contextmanager
def rehearsing() -> Iterator[None]:
    """Draw the same numbers each time and compute in float64, also where code names float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]), Promoting():  # type: ignore[no-untyped-call]
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


def rehearsal(traced: Traced, graph: nx.DiGraph[str], problem: LocalProblem) -> Rehearsal:
    """Prepare a block's run; its samples are drawn inside `rehearsing`."""
    block = training_block(traced, graph, problem)
    types = tensor_types(traced.train)
    state = {name: _double(t.detach().cpu().clone()) for name, t in named_state(block.module).items()}
    inputs = dict(zip(block.inputs, map(_double, examples(block, types, state, SAMPLES)), strict=True))
    return Rehearsal(problem, block, inputs, state, types, traced.tied)


def sampled(types: Types, name: str) -> Tensor:
    """Draw samples of a value of the network."""
    return _double(example(types[name], SAMPLES))


def training_block(traced: Traced, graph: nx.DiGraph[str], problem: LocalProblem) -> BlockModule:
    """Return a block's module in training, which gives what other blocks read, and what its head reads."""
    nodes: Sequence[str] = graph.nodes[problem.block]["nodes"]["train"]
    outputs = (*outside_readers(traced.train, nodes), problem.feature["train"])
    return extract(traced.train, nodes, tuple(dict.fromkeys(outputs)))


class Promoting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Reads a float32 that code names as the default dtype."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if any(a is torch.float32 for a in (*args, *given.values())):
            dtype = torch.get_default_dtype()
            args, given = tree_map_only(torch.dtype, lambda d: dtype if d is torch.float32 else d, (args, given))
        return func(*args, **given)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
