"""How do capture tests get and run a graph? A function traced with a free batch, and the graph as fx runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from lpc.compiler.capture.cut import ports
from lpc.compiler.capture.joint import LocalGraph, Slot
from lpc.compiler.capture.simplify import simplify
from lpc.compiler.capture.tracing import Argument, TracedFunction, trace_function

CPU = torch.device("cpu")


def trace(function: Callable[..., Any], *shapes: Sequence[int | str], portable: bool = False) -> TracedFunction:
    """Trace a function of float64 tensors; `B` and other names are free lengths."""

    def listed(*tensors: Tensor) -> list[Tensor]:
        result = function(*tensors)
        return list(result) if isinstance(result, tuple | list) else [result]

    arguments = [Argument(f"x{i}", torch.float64, tuple(shape)) for i, shape in enumerate(shapes)]
    return trace_function(listed, arguments, device=CPU, portable=portable)


def run(graph: fx.Graph, *tensors: Tensor) -> list[Tensor]:
    """Run a traced graph on real tensors, node by node."""
    with torch.no_grad():
        return list(fx.Interpreter(fx.GraphModule(nn.Module(), graph)).run(*tensors))


def step(w: Tensor, b: Tensor, x: Tensor, seed: Tensor, d_h: Tensor) -> list[Tensor]:
    """A local step by hand: tanh(x w' + b), its mean square as the loss, and all gradients."""
    w, b, x = (t.detach().requires_grad_() for t in (w, b, x))
    h = torch.tanh(x @ w.t() + b)
    loss = (h * h).mean()
    gradients = torch.autograd.grad([loss, h], [w, b, x], [seed, d_h])
    return [h.detach(), loss.detach(), *gradients]


SHAPES: tuple[tuple[int | str, ...], ...] = ((4, 3), (4,), ("B", 3), (), ("B", 4))
ARGUMENTS = (
    Slot("state", "state", "w"),
    Slot("state", "state", "b"),
    Slot("input", "x", "x"),
    Slot("seed", "seed_loss", "loss"),
    Slot("cotangent", "d_h_next", "h@next"),
)
RESULTS = (
    Slot("output", "h", "h"),
    Slot("loss", "loss", "loss"),
    Slot("gradients", "gradients", "w"),
    Slot("gradients", "gradients", "b"),
    Slot("cotangent", "d_x_block", "x@block"),
)


def local_graph() -> LocalGraph:
    """The step above as capture leaves it."""
    traced = trace(step, *SHAPES)
    simplify(traced.graph)
    return LocalGraph("block", traced.graph, traced.symbols, ARGUMENTS, RESULTS, ())


class Tools:
    """The helpers of this file: importlib mode gives tests no way to import it."""

    trace, run, step = staticmethod(trace), staticmethod(run), staticmethod(step)
    local_graph, ports = staticmethod(local_graph), staticmethod(ports)

    @staticmethod
    def values(seed: int = 0, batch: int = 5) -> list[Tensor]:
        """Real arguments of the step."""
        generator = torch.Generator().manual_seed(seed)
        sizes = [[batch if size == "B" else size for size in shape] for shape in SHAPES]
        values = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
        values[3] = torch.ones((), dtype=torch.float64)
        return values


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools
