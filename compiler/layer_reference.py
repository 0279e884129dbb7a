"""What should a layer's formula give? The definitions once more: column by column, and by stacked equations."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.layer_solver import LayerSolver
from lpc.compiler.least_squares import LeastSquares
from lpc.compiler.memory import SETTLED, SMALLEST, Memory

State = MutableMapping[str, Tensor]


def solve_by_hand(rule: LayerSolver, state: State, inputs: Tensor, code: Tensor) -> None:
    """Write what a solver makes of a batch, inputs [B, i] and variables [B, o], into the state."""
    _BY_HAND[type(rule)](rule, state, inputs, code)


def _memory(rule: Memory, state: State, inputs: Tensor, code: Tensor) -> None:
    share = rule.forget or 1.0
    for name, rows in zip(rule.kept, (inputs, code), strict=True):
        kept = state[name] if rule.forget == 0.0 else (1.0 - rule.forget) * state[name]
        state[name] = kept + share * torch.einsum("bi,bj->ij", rows, inputs)
    a, b = (state[name] for name in rule.kept)
    weight = state[rule.weight].detach().clone()
    for _ in range(rule.sweeps):
        before = weight.clone()
        for j in range(rule.inputs):
            weight[:, j] += (b[:, j] - weight @ a[:, j]) / (a[j, j] + SMALLEST)
            if rule.shrink:
                weight[:, j] = F.softshrink(weight[:, j], rule.shrink)
        if (weight - before).abs().max() < SETTLED:
            break
    state[rule.weight] = weight


def _least_squares(rule: LeastSquares, state: State, inputs: Tensor, code: Tensor) -> None:
    """Stack the distance to the old weights below the batch's equations; solve them as one system of least norm."""
    old = state[rule.weights[0]].detach()
    rows = inputs
    if len(rule.weights) > 1:
        old = torch.cat([old, state[rule.weights[1]].detach()[:, None]], 1)
        rows = F.pad(inputs, (0, 1), value=1.0)
    root = rule.hold**0.5
    left = torch.cat([rows, root * torch.eye(rows.shape[1], dtype=rows.dtype)])
    found = torch.linalg.pinv(left) @ torch.cat([code, root * old.t()])
    width = state[rule.weights[0]].shape[1]
    state[rule.weights[0]] = found[:width].t()
    if len(rule.weights) > 1:
        state[rule.weights[1]] = found[width]


_BY_HAND: dict[type, Callable[[Any, State, Tensor, Tensor], None]] = {
    Memory: _memory,
    LeastSquares: _least_squares,
}
