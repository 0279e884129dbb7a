"""How do a layer's weights follow from all codes so far? Memory matrices, and sweeps over the weights' columns.

    A <- A + a'a, B <- B + c'a      (with forget f: A <- (1 - f) A + f a'a, and B alike; rows of a and c are samples)
    W[:, j] <- W[:, j] + (B[:, j] - W A[:, j]) / A[j, j]     for each column in turn, then shrunk by a soft threshold

The columns' sweep is a step of Gauss and Seidel on W A = B, so that without shrinking it is one triangular solve.
Source: Choromanska et al. 2019, arXiv 1806.09077 (AM-mem), after Mairal et al. 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    def kept(self) -> Mapping[str, tuple[int, ...]]:
        """The sizes of A and B, by their names in the state."""
        sizes = {"A": (self.inputs, self.inputs), "B": (self.outputs, self.inputs)}
        return {f"memory.{self.block}.{name}": size for name, size in sizes.items()}

    @property
    def weights(self) -> tuple[str, ...]:
        """The layer's only parameter."""
        return (self.weight,)

    def after(self, a: Tensor, c: Tensor, old: Sequence[Tensor]) -> list[Tensor]:
        """Return A and B with the rows of a batch, a [B, inputs] and c [B, outputs], and the weight that follows."""
        first, second = remembered(self, a, c, old)
        return [first, second, solved(self, old[2], first, second)]


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
