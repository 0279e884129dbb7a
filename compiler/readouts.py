"""What learns and predicts beside the blocks? Readouts of detached features, and goodness for each label.

A readout is captured as a block of its own, whose module joins features. What it reads comes from the step's own
forward pass or, with a label written over the input, from a second one in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import networkx as nx
import torch
from torch import Tensor, fx, nn

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.types import dtype_of
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.heads import HEADS
from lpc.compiler.local_loss import LocalLoss, LocalModules
from lpc.compiler.localize import LocalProblem
from lpc.compiler.losses import LOSSES
from lpc.compiler.objective import MODES, Objectives, output_node, seed_of_modules
from lpc.compiler.setting import Setting
from lpc.compiler.solver import optimizer_of
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Path, Readout, Spec
from lpc.specs.plan.kernel import TensorType
from lpc.specs.term import Term

JOINED = "joined"


@dataclass(frozen=True)
class Probe:
    """What is computed from features: a readout with its problem, or scores by label without one.

    `features` are node names by mode. Each of `overlays` changes the network's input `image` for one forward pass in
    evaluation mode, whose joined features make one result; several results are put side by side. Without overlays the
    features are the step's own. With `halves` only the first half of a batch is read: its positive samples.
    """

    name: str
    problem: LocalProblem
    joining: nn.Module
    features: Mapping[str, tuple[str, ...]]
    overlays: tuple[nn.Module, ...]
    image: str
    halves: bool
    learns: bool = True


class Join(nn.Module):
    """Put features [B, ...] side by side, flattened, each over its root mean square if `rms`; one keeps its shape."""

    def __init__(self, rms: bool) -> None:
        super().__init__()
        self.rms = rms

    def forward(self, *features: Tensor) -> Tensor:
        flat = [f.flatten(1) for f in features]
        if self.rms:
            flat = [f / (f.square().mean(1, keepdim=True).sqrt() + 1e-8) for f in flat]
        return torch.cat(flat, 1) if len(flat) > 1 else flat[0].reshape(features[0].shape)


class Overlay(nn.Module):
    """Write constants over the first numbers of each input [B, ...]."""

    def __init__(self, ink: Sequence[float]) -> None:
        super().__init__()
        self.ink = tuple(ink)

    def forward(self, image: Tensor) -> Tensor:
        flat = image.flatten(1)
        runs = [(value, len(list(run))) for value, run in groupby(self.ink)]
        ink = [flat.new_full((flat.shape[0], width), value) for value, width in runs]
        return torch.cat([*ink, flat[:, len(self.ink) :]], 1).reshape(image.shape)


class Goodness(nn.Module):
    """Sum the squares of features [B, ...], or their means, over everything but the samples: [B, 1]."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, *features: Tensor) -> Tensor:
        squares = [f.flatten(1).square() for f in features]
        return torch.stack([s.mean(1) if self.mean else s.sum(1) for s in squares]).sum(0)[:, None]


def joining(network: fx.GraphModule, names: Sequence[str], module: nn.Module) -> BlockModule:
    """Return `module` as a block that reads the nodes `names` of `network`, or other values."""
    nodes = {node.name: node for node in network.graph.nodes}
    graph = fx.Graph()
    inputs = []
    for name in names:
        placeholder = graph.placeholder(name)
        placeholder.meta = dict(nodes[name].meta) if name in nodes else {}
        inputs.append(placeholder)
    joined = graph.call_module("join", tuple(inputs))
    joined.meta.update(path="", call=0)
    graph.output((joined,))
    return BlockModule(fx.GraphModule({"join": module}, graph), tuple(names), (JOINED,))


def probes(
    spec: Spec,
    traced: Traced,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    fields: Mapping[str, TensorType],
) -> dict[str, Probe]:
    """Return the spec's readouts by name, and what `run.predict: goodness(...)` needs as `goodness`.

    Raises LpcError (0402 to 0405, 0418) for what does not fit.
    """
    around = _Around(spec, traced, problems, Objectives(spec, traced, graph, fields), fields)
    found = {name: around.readout(name, readout) for name, readout in spec.readouts.items()}
    return found | ({"goodness": around.by_label()} if spec.run.predict.name == "goodness" else {})


@dataclass(frozen=True)
class _Around:
    spec: Spec
    traced: Traced
    problems: Mapping[str, LocalProblem]
    objectives: Objectives
    fields: Mapping[str, TensorType]

    @property
    def image(self) -> str:
        """The network's first input."""
        return self.traced.inputs[0]

    @property
    def halves(self) -> bool:
        return self.spec.data is not None and self.spec.data.contrast is not None

    def readout(self, name: str, readout: Readout) -> Probe:
        place: Path = ("readouts", name)
        if keys := self.spec.run.splits:
            message = f"the readout `{name}` learns from one whole batch, and `{keys[0]}` splits a step"
            span = self.spec.origin("run", keys[0])
            raise LpcError(Diagnostic("0418", message, span=span, help=f"remove `run.{keys[0]}`"))
        unknown = next((i for i, b in enumerate(readout.from_) if b not in self.problems), None)
        if unknown is not None or name in self.problems:
            what, origin = "has the name of a block", self.spec.key_origin(*place)
            if unknown is not None:
                what = f"reads `{readout.from_[unknown]}`, which is no block"
                origin = self.spec.origin(*place, "from", unknown)
            notes = (f"the blocks are {', '.join(self.problems)}",)
            raise LpcError(Diagnostic("0418", f"the readout `{name}` {what}", span=origin, notes=notes))
        overlays: tuple[nn.Module, ...] = ()
        if readout.with_ is not None:
            options = signatures.OVERLAYS[readout.with_.name].bind(readout.with_)
            classes = int(options["classes"])
            overlays = (self.overlay([float(options["value"]) / classes] * classes, (*place, "with")),)
        features = self.features(readout.from_, own=not overlays)
        loss, head = self.objective(name, readout, features["eval"])
        heads = LocalModules({"": head} if head is not None else {})
        parameters = [f"heads.{name}.{n}" for n, _ in heads.named_parameters()]
        span = self.spec.origin(*place, "optimizer")
        optimizer = optimizer_of(
            self.spec, name, parameters, readout.optimizer, span, readout.schedule, readout.clip
        )
        problem = LocalProblem(name, dict.fromkeys(MODES, JOINED), (loss,), (), (), {}, optimizer, heads)
        join = Join(readout.normalize == "rms" or (readout.normalize == "auto" and bool(overlays)))
        return Probe(name, problem, join, features, overlays, self.image, self.halves)

    def by_label(self) -> Probe:
        place: Path = ("run", "predict")
        options = signatures.PREDICTORS["goodness"].bind(self.spec.run.predict)
        classes, value = int(options["classes"]), float(options["value"])
        blocks = list(self.problems)[int(options["skip"]) :]
        if not blocks:
            message = f"`goodness` skips all {len(self.problems)} blocks"
            raise LpcError(Diagnostic("0418", message, span=self.spec.origin(*place)))
        overlays = [self.overlay([value if i == c else 0.0 for i in range(classes)], place) for c in range(classes)]
        features, goodness = self.features(blocks, own=False), Goodness(options["reduction"] == "mean")
        kind, target = LOSSES["cross_entropy"], self.label()
        bound = signatures.LOSSES["cross_entropy"].bind(Term("cross_entropy"))
        setting = Setting((classes,), self.fields[target].shape[1:], (classes,), kind.width)
        loss = LocalLoss("loss", kind.make(bound, setting), dict.fromkeys(MODES, target), 1.0, bound, kind)
        problem = LocalProblem("goodness", dict.fromkeys(MODES, JOINED), (loss,), (), (), {}, None)
        return Probe("goodness", problem, goodness, features, tuple(overlays), self.image, self.halves, False)

    def features(self, blocks: Sequence[str], *, own: bool) -> dict[str, tuple[str, ...]]:
        """Node names by mode: a forward pass of its own is one of evaluation."""
        ways = {"train": "train" if own else "eval", "eval": "eval"}
        return {mode: tuple(self.problems[b].feature[way] for b in blocks) for mode, way in ways.items()}

    def overlay(self, ink: Sequence[float], place: Path) -> nn.Module:
        kind = self.fields[self.image]
        size = torch.Size([int(axis) for axis in kind.shape[1:] if isinstance(axis, int)]).numel()
        if size < len(ink) or not kind.dtype.startswith("float"):
            message = f"a label of {len(ink)} classes does not fit over the input `{self.image}`, {kind}"
            raise LpcError(Diagnostic("0418", message, span=self.spec.origin(*place)))
        return Overlay(ink)

    def label(self) -> str:
        """The only batch field of class indices."""
        known = [n for n, t in self.fields.items() if t.dtype == "int64" and len(t.shape) == 1 and n != "index"]
        if len(known) == 1:
            return known[0]
        message = f"prediction by goodness needs one field of labels, batches hold {', '.join(self.fields)}"
        raise LpcError(Diagnostic("0418", message, span=self.spec.origin("run", "predict")))

    def objective(
        self, name: str, readout: Readout, features: Sequence[str]
    ) -> tuple[LocalLoss, nn.Module | None]:
        kind, term = LOSSES[readout.loss.name], readout.loss
        span = self.spec.origin("readouts", name, "loss")
        if not kind.heads:
            raise LpcError(Diagnostic("0418", f"the readout `{name}` cannot learn from `{term.name}`", span=span))
        options = signatures.LOSSES[term.name].bind(term)
        weight, own = options.pop("weight"), options.pop("head", None)
        if own is not None or isinstance(weight, Term):
            what = "`head` stands beside `loss`" if own is not None else "the weight of the loss must be a number"
            raise LpcError(Diagnostic("0418", f"in the readout `{name}`, {what}", span=span))
        target = self.objectives.field(options["target"], f"the loss of the readout `{name}`", span)
        output = self.outputs(readout)
        try:
            index = len(self.problems) + list(self.spec.readouts).index(name)
            setting = Setting(self.joined(features), self.fields[target].shape[1:], output, kind.width)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of_modules(self.spec.run.seed, index))
                head = HEADS[readout.head.name](setting, signatures.HEADS[readout.head.name].bind(readout.head))
            function = kind.make(options, setting)
        except (ValueError, RuntimeError) as error:
            message = f"head `{readout.head.name}` does not fit the readout `{name}`: {error}"
            raise LpcError(Diagnostic("0404", message, span=self.spec.origin("readouts", name, "head"))) from error
        head = head.to(dtype_of(self.spec.run.dtype)) if head is not None else None
        key = "" if head is not None else None
        return LocalLoss("loss", function, dict.fromkeys(MODES, target), float(weight), options, kind, key), head

    def joined(self, features: Sequence[str]) -> tuple[int | str, ...]:
        """The shape of what `Join` makes of one sample's features."""
        shapes = [self.objectives.type(feature, "eval").shape[1:] for feature in features]
        return shapes[0] if len(shapes) == 1 else (sum(Setting(shape).units() for shape in shapes),)

    def outputs(self, readout: Readout) -> tuple[int | str, ...]:
        """The shape of the scores of one sample."""
        if readout.classes is not None:
            return (readout.classes,)
        if readout.with_ is not None:
            return (int(signatures.OVERLAYS[readout.with_.name].bind(readout.with_)["classes"]),)
        return self.objectives.type(output_node(self.traced.train).name).shape[1:]
