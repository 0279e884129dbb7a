"""Which kernels does a readout need? Overlays of the input, its training step, its judgement and its prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from lpc.compiler.capture.cut import slice_kernel
from lpc.compiler.capture.joint import CaptureTarget, Inputs, LocalGraph, trace_inference
from lpc.compiler.capture.steps import trace_training
from lpc.compiler.capture.types import dtype_of
from lpc.compiler.localize import LocalProblem
from lpc.compiler.negatives import NEGATIVES, SCORES, Hard, NegativeKernels
from lpc.compiler.objective import MODES
from lpc.compiler.probing import ProbeKernels
from lpc.compiler.readouts import JOINED, Join, Probe, joining
from lpc.specs.plan.kernel import Kernel

Types = Mapping[str, tuple[torch.dtype, tuple[int | str, ...]]]


@dataclass(frozen=True)
class Probing:
    """Captures probes of a network: its graphs and types by mode, metrics, and what to capture for."""

    graphs: Mapping[str, fx.GraphModule]
    types: Mapping[str, Types]
    metrics: Sequence[str]
    target: CaptureTarget

    def kernels(self, probe: Probe) -> tuple[ProbeKernels, tuple[LocalGraph, ...]]:
        """Return a probe's kernels, and the local graphs whose noise and findings the plan must know."""
        image, several = probe.image, len(probe.overlays) > 1
        overlays = tuple(
            self.computed(f"{probe.name}.overlay{i if several else ''}", (image,), module, image)
            for i, module in enumerate(probe.overlays)
        )
        if not probe.learns:
            return self.by_label(probe, overlays)
        mode = "eval" if probe.overlays else "train"
        module = joining(self.graphs[mode], probe.features["train"], probe.joining)
        inputs = Inputs(self.types[mode])
        training = trace_training(probe.problem, module, inputs, self.metrics, {}, frozenset(), self.target)
        joined = joining(self.graphs["eval"], probe.features["eval"], probe.joining)
        judging = trace_inference(probe.problem, joined, Inputs(self.types["eval"]), self.metrics, {}, self.target)
        shown = self.shown(probe)
        kernels = ProbeKernels(
            overlays,
            slice_kernel(training, "local", (), ("loss", "metric", "gradients", "buffers")),
            slice_kernel(judging, "eval", (), ("loss", "metric")),
            shown,
        )
        return kernels, (training, judging)

    def by_label(
        self, probe: Probe, overlays: tuple[Kernel, ...]
    ) -> tuple[ProbeKernels, tuple[LocalGraph, ...]]:
        """Each pass makes a column of scores; prediction puts them side by side."""
        names = [f"scores_{i}" for i in range(len(overlays))]
        features = probe.features["eval"]
        score = self.computed(f"{probe.name}.score", features, probe.joining, "scores")
        dtype = self.types["eval"][features[0]][0]
        types = {**self.types["eval"], **dict.fromkeys(names, (dtype, ("B", 1)))}
        stacked = joining(self.graphs["eval"], names, Join(rms=False))
        judging = trace_inference(probe.problem, stacked, Inputs(types), self.metrics, {}, self.target)
        quiet = trace_inference(_silent(probe.name), stacked, Inputs(types), (), {}, self.target)
        judged = slice_kernel(judging, "eval", (), ("loss", "metric"))
        shown = slice_kernel(quiet, "predict", (JOINED,), ("output",))
        return ProbeKernels(overlays, None, judged, shown, score), (judging,)

    def negatives(self, hard: Hard, own: ProbeKernels) -> tuple[NegativeKernels, LocalGraph]:
        """Return the kernels that make hard negatives, and the graph whose noise the plan must know.

        `own` are those of the probe that predicts. Its scores have a length of their own: half of the batch.
        """
        image = hard.probe.image
        overlays = tuple(
            self.computed(f"{NEGATIVES}.overlay{i}", (image,), module, image)
            for i, module in enumerate(hard.probe.overlays)
        )
        kind = own.shown.results[0].ports[0].type
        types = {**self.types["eval"], SCORES: (dtype_of(kind.dtype), ("H", hard.write.classes))}
        made = joining(self.graphs["eval"], hard.arguments, hard.write)
        traced = trace_inference(_silent(NEGATIVES), made, Inputs(types), (), {}, self.target)
        write = _giving(slice_kernel(traced, "hard", (JOINED,), ("output",)), image)
        return NegativeKernels(hard, replace(own, overlays=overlays, local=None), write), traced

    def shown(self, probe: Probe) -> Kernel:
        """The head's output: head and joining as one module, whose state bears the head's names."""
        head = probe.problem.heads.modules.get("")
        joined = probe.joining if head is None else _Headed(probe.joining, head)
        module = joining(self.graphs["eval"], probe.features["eval"], joined)
        state = head.state_dict(keep_vars=True) if head is not None else {}
        aliases = {f"join.head.{name}": f"heads.{probe.name}.{name}" for name in state}
        traced = trace_inference(
            _silent(probe.name), module, Inputs(self.types["eval"]), (), aliases, self.target
        )
        return slice_kernel(traced, "predict", (JOINED,), ("output",))

    def computed(self, name: str, inputs: Sequence[str], module: nn.Module, result: str) -> Kernel:
        """Capture a module without state that only computes: a kernel `name` from values to the value `result`."""
        block, _, kind = name.partition(".")
        made = joining(self.graphs["eval"], inputs, module)
        traced = trace_inference(_silent(block), made, Inputs(self.types["eval"]), (), {}, self.target)
        return _giving(slice_kernel(traced, kind, (JOINED,), ("output",)), result)


class _Headed(nn.Module):
    """A head on joined features."""

    def __init__(self, join: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.join, self.head = join, head

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        return self.head(self.join(*features))  # type: ignore[no-any-return]


def _giving(kernel: Kernel, result: str) -> Kernel:
    """Return the kernel with another name for its result."""
    bundle = kernel.results[0]
    return replace(kernel, results=(replace(bundle, name=result, ports=(replace(bundle.ports[0], source=result),)),))


def _silent(name: str) -> LocalProblem:
    """A problem without loss or variables, for a module that only computes."""
    return LocalProblem(name, dict.fromkeys(MODES, JOINED), (), (), (), {}, None)
