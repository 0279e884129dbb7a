"""Which losses reach which parameters? The influence that the kernels have, parameters of equal influence together."""

from __future__ import annotations

from dataclasses import dataclass

from lpc.specs.plan.plan import Plan
from lpc.specs.plan.reach import indirect_influence, influence


@dataclass(frozen=True)
class Row:
    """Parameters of one block that the same losses reach, and the same ones through variables."""

    block: str
    parameters: tuple[str, ...]
    losses: frozenset[str]
    indirect: frozenset[str] = frozenset()  # through auxiliary variables, by no gradient


@dataclass(frozen=True)
class Flow:
    """The matrix of parameters and losses. `losses` are in the order of the kernels, `rows` in that of the state."""

    losses: tuple[str, ...]
    rows: tuple[Row, ...]

    def of(self, block: str) -> frozenset[str]:
        """Return the losses that reach any parameter of a block."""
        return frozenset(loss for row in self.rows if row.block == block for loss in row.losses)


def flow(plan: Plan) -> Flow:
    """Return the matrix of a plan, read off its kernels and its steps."""
    found, indirect = influence(plan), indirect_influence(plan)
    grouped: dict[tuple[str, frozenset[str], frozenset[str]], list[str]] = {}
    for name, losses in found.items():
        grouped.setdefault((plan.program.state[name].block, losses, indirect[name]), []).append(name)
    rows = tuple(Row(block, tuple(names), *reached) for (block, *reached), names in grouped.items())
    return Flow(tuple(_losses(plan, frozenset().union(*found.values(), *indirect.values()))), rows)


def _losses(plan: Plan, known: frozenset[str]) -> list[str]:
    """Return the losses in the order of the kernels that they enter."""
    seeds = (
        f"{kernel.block}.{port.source}"
        for kernel in plan.kernels["native"].values()
        for bundle in kernel.arguments
        if bundle.role == "seed"
        for port in bundle.ports
    )
    ordered = dict.fromkeys(seeds)
    return [loss for loss in ordered if loss in known] + sorted(known - ordered.keys())
