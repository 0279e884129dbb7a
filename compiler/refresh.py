"""In what order is an offset measured? The section that runs every n steps, before the step itself.

On a part of the batch, piece by piece: the local step as it is, without its effects; then backpropagation through
every block, last block first. Both sums of gradients then make the blocks' offsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from lpc.compiler.correction import Corrections, Refresh
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import Accumulate, Call, Every, Instruction, Offset, Part, Random
from lpc.specs.plan.kernel import Bundle, Kernel

PIECE, EXACT, LOCAL = "piece", "exact", "local"  # what values are called after, behind a dot


@dataclass(frozen=True)
class ExactKernels:
    """Backpropagation through one block: from its inputs again, or by residuals."""

    vjp: Kernel | None = None
    forward: Kernel | None = None
    backward: Kernel | None = None

    @property
    def every(self) -> tuple[Kernel, ...]:
        """The kernels that exist."""
        return tuple(k for k in (self.vjp, self.forward, self.backward) if k is not None)


def refreshes(
    graph: nx.DiGraph[str],
    corrections: Corrections,
    kernels: Mapping[str, ExactKernels],
    step: Sequence[Instruction],
    fields: Sequence[str],
    gradients: Mapping[str, Sequence[str]],
) -> list[Instruction]:
    """Return one section for each refresh. `step` is the local step's body, `gradients` its bundles by block."""
    return [
        _Writer(graph, corrections, kernels, step, fields, gradients, refresh, blocks).section()
        for refresh, blocks in corrections.refreshes.items()
    ]


@dataclass
class _Writer:
    graph: nx.DiGraph[str]
    corrections: Corrections
    kernels: Mapping[str, ExactKernels]
    step: Sequence[Instruction]
    fields: Sequence[str]
    gradients: Mapping[str, Sequence[str]]
    refresh: Refresh
    blocks: tuple[str, ...]
    body: list[Instruction] = field(default_factory=list)
    noise: dict[str, str] = field(default_factory=dict)  # random site -> value
    sums: dict[str, list[str]] = field(default_factory=dict)  # parameter -> sums of true gradients

    def section(self) -> Instruction:
        self.local()
        self.exact()
        sums = {i.target for i in self.body if isinstance(i, Accumulate)}
        share, pieces = self.refresh.share, self.refresh.pieces
        values = tuple(f"{name}.{PIECE}" for name in self.fields)
        part = Part(values, tuple(self.fields), share, pieces, tuple(with_frees(self.body, keep=sums)))
        offsets = [self.offset(block) for block in self.blocks]
        return Every(
            self.refresh.period, tuple(with_frees([part, *offsets], keep=self.fields)), self.refresh.phase
        )

    def offset(self, block: str) -> Offset:
        names = self.corrections.by_block[block].parameters
        exact = dict.fromkeys(value for name in names for value in self.sums.get(name, ()))
        return Offset(block, tuple(exact), tuple(f"{value}.{LOCAL}" for value in self.gradients[block]))

    def local(self) -> None:
        """The local step on the piece: its calls and noise, without records, writes and updates."""
        wanted = {value for block in self.blocks for value in self.gradients[block]}
        for instruction in self.step:
            if isinstance(instruction, Random):
                self.noise[instruction.site] = f"{instruction.value}.{PIECE}"
                self.body.append(Random(self.noise[instruction.site], instruction.site))
            if isinstance(instruction, Call):
                values, arguments = (
                    tuple(f"{v}.{PIECE}" for v in names) for names in (instruction.values, instruction.arguments)
                )
                self.body.append(Call(values, instruction.kernel, arguments))
                sums = [v for v in instruction.values if v in wanted]
                self.body += [Accumulate(f"{v}.{LOCAL}", f"{v}.{PIECE}", 1.0) for v in sums]

    def exact(self) -> None:
        """Backpropagation on the piece, from the block inputs that the local step computed."""
        order = [b for b in self.graph.nodes if b in self.kernels]
        if not self.refresh.recompute:
            for block in order:
                self.call(block, self.kernels[block].forward)
        for block in reversed(order):
            self.call(block, self.kernels[block].vjp if self.refresh.recompute else self.kernels[block].backward)

    def call(self, block: str, kernel: Kernel | None) -> None:
        assert kernel is not None
        arguments = tuple(self.argument(block, b) for b in kernel.arguments if b.role not in ("state", "seed"))
        values = tuple(self.value(block, b) for b in kernel.results)
        self.body.append(Call(values, kernel.name, arguments))
        for bundle, value in zip(kernel.results, values, strict=True):
            if bundle.role == "gradients":
                total = f"{block}.{bundle.name}.{EXACT}"
                self.body.append(Accumulate(total, value, 1.0))
                for port in bundle.ports:
                    self.sums.setdefault(port.source, []).append(total)

    def argument(self, block: str, bundle: Bundle) -> str:
        if bundle.role == "input":
            return f"{bundle.name}.{PIECE}"
        if bundle.role == "random":
            return self.drawn(block, bundle)
        return self.value(block, bundle)

    def drawn(self, block: str, bundle: Bundle) -> str:
        """The noise of a site is the local step's, where that draws it."""
        site = bundle.ports[0].source
        if site not in self.noise:
            self.noise[site] = f"{block}.{bundle.name}.{EXACT}"
            self.body.append(Random(self.noise[site], site))
        return self.noise[site]

    def value(self, block: str, bundle: Bundle) -> str:
        name = bundle.name if bundle.role == "cotangent" else f"{block}.{bundle.name}"
        return f"{name}.{EXACT}.{PIECE}"
