"""How does an eager run go back by other weights? What autograd saves of a weight is swapped when it is read again.

An operator that is linear in its input saves its weight for one purpose, the derivative by the input. Where that
derivative is taken, a block of feedback alignment gets back its backward weight, laid out as the weight was. No
operator is known by name but those that are not linear maps: products of elements, and norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from lpc.compiler.eager import head_parameters, parameters_of
from lpc.compiler.estimator import ALIGNMENT
from lpc.compiler.feedback import backward_size
from lpc.compiler.localize import LocalProblem

aten = torch.ops.aten

COPIES = frozenset({aten.clone.default, aten._to_copy.default, aten._reshape_copy.default})
ELEMENTWISE = ("Mul", "Div", "NativeLayerNorm", "NativeGroupNorm", "NativeBatchNorm")


@dataclass
class BackwardWeights:
    """The backward weights of all blocks that have some, from the state and the noise."""

    graph: nx.DiGraph[str]
    problems: Mapping[str, LocalProblem]
    leaves: Mapping[str, Tensor]
    noise: Mapping[str, Tensor]
    swaps: dict[str, Swaps] = field(default_factory=dict)

    def around(self, block: str) -> AbstractContextManager[Any]:
        """Return what a block's operators run in."""
        problem = self.problems.get(block)
        if problem is None or problem.estimator.name != ALIGNMENT:
            return nullcontext()
        if block not in self.swaps:
            self.swaps[block] = self.find(block, problem)
        return self.swaps[block].swapping()

    def find(self, block: str, problem: LocalProblem) -> Swaps:
        """Return the swaps of a block's weights, those of its heads among them."""
        swaps = Swaps()
        for name in (*parameters_of(self.graph, block), *head_parameters(problem)):
            weight = self.leaves[name].detach()
            back = self.weight(name, weight, problem) if weight.dim() > 1 else None
            if back is not None:
                swaps.add(weight, torch.empty_like(weight).copy_(back))
        return swaps

    def weight(self, name: str, weight: Tensor, problem: LocalProblem) -> Tensor | None:
        """Return a weight's backward weight, None where nothing goes back through it."""
        kind, key = problem.estimator.options["kind"], f"feedback.{name}"
        if kind == "random":
            return self.leaves.get(key)
        if kind == "frsf":
            return self.leaves[key].abs() * weight.sign() if key in self.leaves else None
        even = backward_size(weight, problem.estimator.options["scale"]) * weight.sign()
        if kind == "brsf":
            return even * self.noise[key].abs() if key in self.noise else None
        return even


@dataclass
class Swaps:
    """Which memory stands for a weight, and the memory that takes its place on the way back."""

    held: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def add(self, weight: Tensor, back: Tensor) -> None:
        """Let one tensor take the place of another, which has its layout."""
        self.held[weight.untyped_storage().data_ptr()] = (weight, back)

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return what takes the place of a tensor, a view of a known one or not."""
        held = self.held.get(tensor.untyped_storage().data_ptr()) if tensor.layout is torch.strided else None
        return held[1].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()) if held is not None else None

    @contextmanager
    def swapping(self) -> Iterator[None]:
        """Inside, operators go back by what was added."""
        with _Copies(self), saved_tensors_hooks(self.saved, _read):
            yield

    def saved(self, tensor: Tensor) -> tuple[Tensor, Tensor | None]:
        """Keep what an operator saves together with what it shall read."""
        return tensor, self.of(tensor)


def _read(kept: tuple[Tensor, Tensor | None]) -> Tensor:
    tensor, back = kept
    node = torch._C._current_autograd_node()
    return tensor if back is None or node is None or node.name().startswith(ELEMENTWISE) else back


class _Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A copy of a weight stands for the weight too."""

    def __init__(self, swaps: Swaps) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.swaps = swaps

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        back = self.swaps.of(args[0]) if func in COPIES else None
        if back is not None:
            self.swaps.add(result, func(back, *args[1:], **(kwargs or {})))
        return result
