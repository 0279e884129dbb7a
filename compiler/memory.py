"""How do a layer's weights follow from all codes so far? Memory matrices, and sweeps over the weights' columns.

    A <- A + a'a, B <- B + c'a      (with forget f: A <- (1 - f) A + f a'a, and B alike; rows of a and c are samples)
    W[:, j] <- W[:, j] + (B[:, j] - W A[:, j]) / A[j, j]     for each column in turn, then shrunk by a soft threshold

The columns' sweep is a step of Gauss and Seidel on W A = B, so that without shrinking it is one triangular solve.
Source: Choromanska et al. 2019, arXiv 1806.09077 (AM-mem), after Mairal et al. 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor, fx, nn

from lpc.compiler.frontend.trace import Traced
from lpc.compiler.rules import stated, stated_at
from lpc.compiler.variables import Variable
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec

SOLVER = "memory"
SMALLEST = 1e-10  # added to A's diagonal
SETTLED = 1e-3  # largest change of a weight after which no further sweep is made


@dataclass(frozen=True)
class Memory:
    """A block's layer without bias: its node, its weight [outputs, inputs], and how the weight is solved."""

    block: str
    node: str
    weight: str
    outputs: int
    inputs: int
    forget: float
    shrink: float
    sweeps: int

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """The sizes of A and B, by their names in the state."""
        sizes = {"A": (self.inputs, self.inputs), "B": (self.outputs, self.inputs)}
        return {f"memory.{self.block}.{name}": size for name, size in sizes.items()}


def memory_solver(
    spec: Spec, traced: Traced, graph: nx.DiGraph[str], block: str, trainable: Sequence[str], makes: Sequence[Variable]
) -> Memory | None:
    """Return what `solver: memory` says of a block; None where it is solved otherwise.

    Raises LpcError (0423) for a block that is not one linear layer without bias, right before its variable.
    """
    term = stated(spec, block, "solver")
    if term is None or term.name != SOLVER:
        return None
    node = _layer(traced.train, graph.nodes[block]["nodes"]["train"])
    reason = _obstacle(spec, traced, block, node, trainable, makes)
    if reason is not None or node is None:
        message = f"block `{block}` cannot be solved by memory matrices: {reason}"
        raise LpcError(Diagnostic("0423", message, span=stated_at(spec, block, "solver")))
    layer = traced.train.get_submodule(str(node.target))
    assert isinstance(layer, nn.Linear)
    given = signatures.SOLVERS[SOLVER].bind(term)
    return Memory(
        block, node.name, trainable[0], layer.out_features, layer.in_features,
        float(given["forget"]), float(given["shrink"]), given["sweeps"],
    )  # fmt: skip


def _layer(network: fx.GraphModule, nodes: Sequence[str]) -> fx.Node | None:
    own = set(nodes)
    called = [n for n in network.graph.nodes if n.name in own and n.op == "call_module"]
    linear = [n for n in called if isinstance(network.get_submodule(str(n.target)), nn.Linear)]
    return linear[0] if len(linear) == 1 else None


def _obstacle(
    spec: Spec, traced: Traced, block: str, node: fx.Node | None, trainable: Sequence[str], makes: Sequence[Variable]
) -> str | None:
    if node is None:
        return "it needs one linear layer"
    if [v.value for v in makes] != [node.name]:
        return "the variable after it does not stand for what its linear layer computes: take `at: preactivation`"
    weight = f"{node.target}.weight"
    if list(trainable) != [traced.tied.get(weight, weight)]:
        return "it trains more than the layer's weight: take `linear(n, bias=false)`, and no norm"
    if (stated(spec, block, "steps") or 1) > 1:
        return "it takes no further steps on a batch"
    return None


def remembered(rule: Memory, a: Tensor, c: Tensor, old: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return A [inputs, inputs] and B [outputs, inputs] with the rows of a batch, a [B, inputs] and c [B, outputs]."""
    products = (a.t() @ a, c.t() @ a)
    if rule.forget == 0.0:
        return old[0] + products[0], old[1] + products[1]
    kept, new = 1.0 - rule.forget, rule.forget
    return kept * old[0] + new * products[0], kept * old[1] + new * products[1]


def solved(rule: Memory, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the weights after the sweeps; one that has settled is not swept again."""
    sweep = _by_columns if rule.shrink else _at_once
    current = sweep(rule, weight, a, b)
    before = weight
    for _ in range(rule.sweeps - 1):
        moves = (current - before).abs().max() >= SETTLED
        before, current = current, torch.where(moves, sweep(rule, current, a, b), current)
    return current


def _at_once(rule: Memory, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Solve W' (upper part of A) = B - W (strictly lower part of A), where the diagonal is a little larger."""
    diagonal = SMALLEST * torch.eye(rule.inputs, dtype=a.dtype, device=a.device)
    right = b - weight @ (a.tril(-1) - diagonal)
    found: Tensor = torch.linalg.solve_triangular(a.triu() + diagonal, right, upper=True, left=False)
    return found


def _by_columns(rule: Memory, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    columns = list(weight.unbind(1))
    for j in range(rule.inputs):
        column = columns[j] + (b[:, j] - torch.stack(columns, 1) @ a[:, j]) / (a[j, j] + SMALLEST)
        columns[j] = torch.sign(column) * torch.clamp(column.abs() - rule.shrink, min=0.0)
    return torch.stack(columns, 1)
