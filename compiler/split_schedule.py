"""In what order does a step of a split network run? Layer by layer, over variables that are kept for all samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lpc.compiler.relaxation import AGE, FIRST, INDEX
from lpc.compiler.splitting import SplitLayer
from lpc.specs.plan.flow import values_made, values_read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import (
    Call,
    Due,
    Every,
    Fetch,
    Instruction,
    Load,
    Random,
    Record,
    Return,
    Store,
    Visit,
    Write,
)
from lpc.specs.plan.kernel import Bundle, Kernel

NEW = ".new"  # behind a variable's name: its solution


@dataclass(frozen=True)
class SplitKernels:
    """The kernels of a layer: its variables' first values, all solutions in their order, and its multiplier's step."""

    begin: Kernel
    solve: Kernel
    grow: Kernel | None

    @property
    def every(self) -> tuple[Kernel, ...]:
        """The kernels that exist."""
        return tuple(k for k in (self.begin, self.solve, self.grow) if k is not None)


def split_step(layers: Mapping[str, SplitLayer], kernels: Mapping[str, SplitKernels]) -> tuple[Instruction, ...]:
    """Return the instructions of a training step."""
    writer = _Writer(layers, kernels)
    names = tuple(name for layer in layers.values() for name in layer.variables)
    first = [*writer.begin(), Store(names, INDEX, tuple(f"{name}{NEW}" for name in names))]
    every: list[Instruction] = [Fetch(names, INDEX), *writer.solve()]
    body: list[Instruction] = [Due(INDEX, FIRST, _closed(first)), Due(INDEX, 1, _closed(every)), Fetch(names, INDEX)]
    body += [Return(name, name) for name in names]
    body.append(Visit(INDEX, 1, (AGE,)))
    made = values_made(body)
    fields = tuple(name for name in values_read(body) if name not in made)
    return tuple(with_frees([Load(fields, fields), *body]))


@dataclass
class _Writer:
    layers: Mapping[str, SplitLayer]
    kernels: Mapping[str, SplitKernels]

    def begin(self) -> Iterator[Instruction]:
        """Find the first values, each layer from those of the one before."""
        made: dict[str, str] = {}
        for block, layer in self.layers.items():
            kernel = self.kernels[block].begin
            arguments = []
            for bundle in _listed(kernel):
                if bundle.role == "random":
                    site = bundle.ports[0].source
                    yield Random(f"random.{site}", site)
                arguments.append(f"random.{bundle.ports[0].source}" if bundle.role == "random" else bundle.name)
            yield Call(
                tuple(f"{bundle.ports[0].source}{NEW}" for bundle in kernel.results),
                kernel.name,
                tuple(made.get(name, name) for name in arguments),
            )
            made[layer.activation] = f"{layer.a}{NEW}"

    def solve(self) -> Iterator[Instruction]:
        """Solve layer after layer, and keep the solutions."""
        order = list(self.layers.values())
        split = order[0].split
        read = {layer.activation: layer.a for layer in order if layer.above is not None}
        for layer in order if split.order == "forward" else order[::-1]:
            kernels = self.kernels[layer.block]
            yield from self.solution(layer, kernels.solve, read)
            read |= {name: f"{name}{NEW}" for name in layer.variables if name != layer.multiplier}
            if layer.above is not None:
                read[layer.activation] = f"{layer.a}{NEW}"
        kept = [name for layer in order for name in layer.variables if name != layer.multiplier]
        yield Store(tuple(kept), INDEX, tuple(f"{name}{NEW}" for name in kept))
        grow = self.kernels[order[-1].block].grow
        if grow is not None:
            name = order[-1].multiplier
            grown: Sequence[Instruction] = (
                Call((f"{name}{NEW}",), grow.name, _arguments(grow, read)), Store((name,), INDEX, (f"{name}{NEW}",)),
            )  # fmt: skip
            yield Every(1, _closed(grown), split.warmup)

    def solution(self, layer: SplitLayer, kernel: Kernel, read: Mapping[str, str]) -> Iterator[Instruction]:
        values = {"buffers": f"{layer.block}.weights", "metric": f"{layer.block}.objective"}
        made = tuple(values.get(b.role, f"{b.name}{NEW}") for b in kernel.results)
        yield Call(made, kernel.name, _arguments(kernel, read))
        yield Write(values["buffers"])
        yield Record(values["metric"], values["metric"])


def _listed(kernel: Kernel) -> list[Bundle]:
    return [b for b in kernel.arguments if b.role not in ("state", "seed")]


def _arguments(kernel: Kernel, read: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(read.get(bundle.name, bundle.name) for bundle in _listed(kernel))


def _closed(body: Sequence[Instruction] | Iterator[Instruction]) -> tuple[Instruction, ...]:
    """Free in a body what it makes; what is around outlives it."""
    listed = list(body)
    made = values_made(listed)
    return tuple(with_frees(listed, keep=[name for name in values_read(listed) if name not in made]))
