"""Which negative samples depend on the network? Those whose label is drawn from its own wrong predictions.

The data have made two halves of a batch. Before a step, what the run predicts for the first half is computed with a
label that says nothing, and the second half gets other labels than the data gave it, in proportion to the probabilities
of these predictions without the true class (Hinton 2022, arXiv 2212.13345).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lpc.compiler.probing import ProbeKernels, Probing
from lpc.compiler.readouts import Probe
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.instructions import Call, Instruction, Load, Random, Return
from lpc.specs.plan.kernel import Kernel

NEGATIVES = "negatives"  # what its kernels, its noise and its values are called
GIVEN = "given"  # what the image from the data is called after, behind a dot
SCORES = "scores"


@dataclass(frozen=True)
class Hard:
    """Negatives from predictions: whose, its passes over half of the batch, what writes, and the fields it reads."""

    predictor: str
    probe: Probe
    write: HardLabels
    label: str
    positive: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """The values that the writing kernel reads, in order."""
        return (self.probe.image, SCORES, self.label, self.positive)


class FirstHalf(nn.Module):
    """Write a label that says nothing over the first half of the images [B, ...]: [B / 2, ...]."""

    def __init__(self, overlay: nn.Module) -> None:
        super().__init__()
        self.overlay = overlay

    def forward(self, image: Tensor) -> Tensor:
        return self.overlay(image[: image.shape[0] // 2])  # type: ignore[no-any-return]


class HardLabels(nn.Module):
    """Write wrong labels over the negative ones of images [B, ...], each as likely as it is held for true.

    `scores` [B / 2, classes] are of the first half, whose sample i is the positive one of row B / 2 + i.
    """

    def __init__(self, classes: int, value: float) -> None:
        super().__init__()
        self.classes, self.value = classes, value

    def forward(self, image: Tensor, scores: Tensor, label: Tensor, positive: Tensor) -> Tensor:
        rows = torch.arange(label.shape[0], device=label.device) % scores.shape[0]
        classes = torch.arange(self.classes, device=label.device)
        own = scores[rows].masked_fill(label[:, None] == classes, float("-inf"))
        heights = own.softmax(1).cumsum(1)
        u = torch.rand(label.shape[0], 1, dtype=scores.dtype, device=label.device)
        wrong = (heights <= u * heights[:, -1:]).sum(1).clamp(max=self.classes - 1)
        flat = image.flatten(1)
        ink = (wrong[:, None] == classes).to(flat.dtype) * self.value
        written = torch.cat([ink, flat[:, self.classes :]], 1)
        return torch.where(positive[:, None], flat, written).reshape(image.shape)


def hard_negatives(spec: Spec, probes: Mapping[str, Probe], positive: str) -> Hard | None:
    """Return what `negatives=hard` asks for; None where the spec does not.

    Raises LpcError (0418) where what the run predicts is read from images that bear a label.
    """
    term = spec.data.contrast if spec.data is not None else None
    if term is None or term.name != "label_overlay":
        return None
    options = signatures.CONTRASTS[term.name].bind(term)
    if options["negatives"] != "hard":
        return None
    chosen = spec.run.predict
    name = str((*chosen.args, *chosen.kwargs.values())[0]) if chosen.name == "readout" else chosen.name
    probe = probes.get(name)
    if probe is None or not probe.overlays:
        message = f"`negatives=hard` needs predictions without a label in the image, and the run predicts by `{chosen}`"
        help = "let `run.predict` be a readout with `with: label_overlay(neutral)`, or `goodness`"
        raise LpcError(Diagnostic("0418", message, span=spec.origin("data", "contrast"), help=help))
    if len(spec.network.inputs) > 1:
        message = "`negatives=hard` predicts for half of a batch, and the network has further inputs"
        raise LpcError(Diagnostic("0418", message, span=spec.origin("data", "contrast"), help="take other negatives"))
    (label,) = {loss.target["train"] for loss in probe.problem.losses}
    write = HardLabels(int(options["classes"]), float(options["value"]))
    halved = replace(probe, name=NEGATIVES, overlays=tuple(map(FirstHalf, probe.overlays)), halves=False)
    return Hard(name, halved, write, label, positive)


@dataclass(frozen=True)
class NegativeKernels:
    """The kernels of the predictions, and the one that writes labels over the image."""

    hard: Hard
    predicting: ProbeKernels
    write: Kernel

    @property
    def every(self) -> tuple[Kernel, ...]:
        """The kernels that predictions alone do not have."""
        return (*self.predicting.overlays, self.write)

    def given(self, load: Load) -> Load:
        """Return the loading of a batch whose image is yet to be changed; it also takes what the kernel reads."""
        image = self.hard.probe.image
        fields = tuple(dict.fromkeys((*load.fields, image, self.hard.label, self.hard.positive)))
        return Load(tuple(f"{name}.{GIVEN}" if name == image else name for name in fields), fields)

    def section(self, blocks: Mapping[str, Kernel]) -> list[Instruction]:
        """Return the instructions that change the image before a step; `blocks` are the prediction kernels."""
        image = self.hard.probe.image
        *body, shown = Probing(self.hard.probe, self.predicting).predicting(blocks)
        assert isinstance(shown, Return)
        noise = [Random(f"{NEGATIVES}.{b.name}", b.ports[0].source) for b in self.write.arguments if b.role == "random"]
        values = {image: f"{image}.{GIVEN}", SCORES: shown.value}
        arguments = tuple(values.get(name, name) for name in self.hard.arguments)
        write = Call((image,), self.write.name, (*arguments, *(random.value for random in noise)))
        return [*(_renamed(instruction, image, values[image]) for instruction in body), *noise, write]


def _renamed(instruction: Instruction, name: str, other: str) -> Instruction:
    if not isinstance(instruction, Call):
        return instruction
    return replace(instruction, arguments=tuple(other if a == name else a for a in instruction.arguments))
