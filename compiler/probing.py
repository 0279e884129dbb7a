"""In what order do readouts run? Passes over overlaid inputs, then what is joined from their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lpc.compiler.readouts import Probe
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import Accumulate, Call, Instruction, Part, Random, Record, Return, Update
from lpc.specs.plan.kernel import Bundle, Kernel

HALF = "positive"  # what the first half of a batch is called after, behind a dot


@dataclass(frozen=True)
class ProbeKernels:
    """A probe's kernels: an overlay for each pass, the training step, the judgement, and the prediction alone.

    `score` makes one column of each pass's features, where there are several passes.
    """

    overlays: tuple[Kernel, ...]
    local: Kernel | None
    judged: Kernel
    shown: Kernel
    score: Kernel | None = None

    @property
    def every(self) -> tuple[Kernel, ...]:
        """The kernels that exist."""
        return (*self.overlays, *(k for k in (self.local, self.judged, self.shown, self.score) if k is not None))


@dataclass(frozen=True)
class Probing:
    """A probe and its kernels, ready to be scheduled; `blocks` are always the blocks' prediction kernels."""

    probe: Probe
    kernels: ProbeKernels

    @property
    def name(self) -> str:
        return self.probe.name

    @property
    def runs_alone(self) -> bool:
        """Does it run the blocks itself?"""
        return bool(self.probe.overlays)

    def training(self, blocks: Mapping[str, Kernel]) -> list[Instruction]:
        """Return a readout's part of the step."""
        if self.kernels.local is None:
            return []
        writer = _Writer(self.probe, self.kernels, blocks, self.probe.halves)
        writer.finish(self.kernels.local)
        return [*writer.section(), Update(self.name, tuple(writer.gradients))]

    def judging(self, blocks: Mapping[str, Kernel]) -> list[Instruction]:
        """Return a probe's part of the evaluation."""
        writer = _Writer(self.probe, self.kernels, blocks, self.probe.halves)
        writer.finish(self.kernels.judged)
        return writer.section()

    def predicting(self, blocks: Mapping[str, Kernel]) -> list[Instruction]:
        """Return a probe's prediction; without overlays the blocks must have run before."""
        writer = _Writer(self.probe, self.kernels, blocks, False)
        value = writer.finish(self.kernels.shown)
        return [*writer.body, Return("output", value)]


@dataclass
class _Writer:
    probe: Probe
    kernels: ProbeKernels
    blocks: Mapping[str, Kernel]
    halved: bool
    body: list[Instruction] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)
    outside: dict[str, None] = field(default_factory=dict)  # values of the section around that are read

    def section(self) -> list[Instruction]:
        if not self.halved:
            return self.body
        sources = tuple(self.outside)
        halves = tuple(f"{name}.{HALF}" for name in sources)
        return [Part(halves, sources, 0.5, 1, tuple(with_frees(self.body, keep=self.gradients)))]

    def finish(self, kernel: Kernel) -> str:
        """Write all passes and the last kernel, whose first result is returned."""
        known: dict[str, str] = {}
        for index in range(len(self.kernels.overlays)):
            known = self.one_pass(index)
            if self.kernels.score is not None:
                known |= {f"scores_{i}": f"{self.probe.name}.scores.{i}" for i in range(index + 1)}
        return self.call(kernel, known)

    def one_pass(self, index: int) -> dict[str, str]:
        """One forward pass over an overlaid input; return what its values are called."""
        mark = f"{self.probe.name}{index}" if self.kernels.score is not None else self.probe.name
        overlay, image = self.kernels.overlays[index], f"{self.probe.image}.{mark}"
        self.body.append(Call((image,), overlay.name, (self.read(self.probe.image),)))
        known = {self.probe.image: image}
        for kernel in self.needed():
            for bundle in kernel.results:
                known[bundle.name] = f"{bundle.name}.{mark}"
            self.draw(kernel, mark)
            arguments = tuple(self.argument(kernel, b, known, mark) for b in _listed(kernel))
            self.body.append(Call(tuple(known[b.name] for b in kernel.results), kernel.name, arguments))
        if self.kernels.score is not None:
            score = self.kernels.score
            arguments = tuple(known[b.name] for b in _listed(score))
            self.body.append(Call((f"{self.probe.name}.scores.{index}",), score.name, arguments))
        return known

    def needed(self) -> list[Kernel]:
        """The blocks' kernels that the features are computed by, in order."""
        wanted = set(self.probe.features["eval"])
        found: list[Kernel] = []
        for kernel in reversed(list(self.blocks.values())):
            if wanted & {b.name for b in kernel.results}:
                wanted |= {b.name for b in kernel.arguments if b.role == "input"}
                found.append(kernel)
        return found[::-1]

    def draw(self, kernel: Kernel, mark: str) -> None:
        for bundle in kernel.arguments:
            if bundle.role == "random":
                self.body.append(Random(f"{kernel.block}.{bundle.name}.{mark}", bundle.ports[0].source))

    def argument(self, kernel: Kernel, bundle: Bundle, known: Mapping[str, str], mark: str) -> str:
        if bundle.role == "random":
            return f"{kernel.block}.{bundle.name}.{mark}"
        return known[bundle.name] if bundle.name in known else self.read(bundle.name)

    def read(self, value: str) -> str:
        """Name a value from around: a batch field, or a feature of the section's own pass."""
        self.outside.setdefault(value)
        return f"{value}.{HALF}" if self.halved else value

    def call(self, kernel: Kernel, known: Mapping[str, str]) -> str:
        name = self.probe.name
        self.draw(kernel, name)
        arguments = tuple(self.argument(kernel, b, known, name) for b in _listed(kernel))
        values = tuple(f"{name}.{bundle.name}" for bundle in kernel.results)
        self.body.append(Call(values, kernel.name, arguments))
        for bundle, value in zip(kernel.results, values, strict=True):
            self.follow(bundle, value)
        return values[0]

    def follow(self, bundle: Bundle, value: str) -> None:
        if bundle.role in ("loss", "metric"):
            self.body.append(Record(f"{self.probe.name}.{bundle.ports[0].source}", value))
        elif bundle.role == "gradients" and self.halved:
            self.body.append(Accumulate(f"{value}.sum", value, 1.0))
            self.gradients.append(f"{value}.sum")
        elif bundle.role == "gradients":
            self.gradients.append(value)


def _listed(kernel: Kernel) -> list[Bundle]:
    return [b for b in kernel.arguments if b.role not in ("state", "seed")]
