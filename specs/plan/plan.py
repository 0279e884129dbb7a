"""What is a plan? Manifest, partition, program, kernels and weights: everything a run needs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.image import Image
from lpc.specs.plan.instructions import Instruction
from lpc.specs.plan.kernel import Kernel, TensorType

SPARSE = {"sparse": True}  # a table that is left out of the JSON where it is empty
PERSISTENT = "persistent"  # the state of an optimizer that remembers from one batch to the next


@dataclass(frozen=True)
class Noise:
    """The law of one random site: what a `random` instruction draws.

    `law` is `bernoulli` (args: probability of a one), `uniform` (low, high), `normal` (mean, std)
    or `rademacher` (a fair sign).
    The shape's symbols are the batch's own lengths (`B`, named lengths).
    """

    site: str
    law: str
    args: tuple[float, ...]
    type: TensorType


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of one block that share optimizer options (`weight_decay`, a factor on `lr`)."""

    parameters: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    lr_factor: float = 1.0


@dataclass(frozen=True)
class Factored:
    """A layer of which an optimizer gets the Kronecker factors: its parameters, and the factors' sizes.

    The factors are the second moments of the layer's inputs, [inputs, inputs] (with a one for the bias), and of the
    derivatives by its outputs, [outputs, outputs].
    """

    weight: str
    bias: str  # empty: none that is trained
    inputs: int
    outputs: int

    @property
    def sources(self) -> tuple[str, str]:
        """The outside names of the two factors."""
        return f"{self.weight}@inputs", f"{self.weight}@errors"


def factored_parameter(source: str) -> str:
    """Return the parameter that a factor is of, by the factor's outside name; any other name is returned as it is."""
    return source.partition("@")[0]


@dataclass(frozen=True)
class Optimizer:
    """A block's optimizer: torch.optim name in lower case or `package:Class`, options, groups, schedule, clip.

    A step of the plan updates it `steps` times, over which the schedule's `inner` law runs. W0 are the weights before
    the first of them: `prox` adds (W - W0) / prox to each gradient, and after the last one the `outer` optimizer, where
    there is one, steps from W0 with the gradient W0 - W. `state: reset` begins each batch without memory. Beside
    gradients it gets the factors of the layers in `factors`.
    """

    block: str
    name: str
    options: dict[str, Any]
    groups: tuple[ParameterGroup, ...]
    schedule: dict[str, Any] = field(default_factory=dict)  # a `Schedule` of the spec, dumped
    clip: float | None = None
    steps: int = 1
    state: str = PERSISTENT
    prox: float | None = None
    outer: str = ""  # named as the optimizer itself; empty: none
    outer_options: dict[str, Any] = field(default_factory=dict)
    factors: tuple[Factored, ...] = ()


@dataclass(frozen=True)
class Correction:
    """How a block's local gradient g is corrected by an offset D: alpha * g + scale * decay^age * D.

    D is (true - alpha * local) gradient of the last refresh, at steps `phase`, `phase + period`, ...; its age counts
    steps. `alpha` and `scale` are a number, `auto`, or a schedule's law as text. `where`: into the `gradient`, or
    after the optimizer's `update`. Heads are not corrected: `parameters` are the network's own.
    """

    block: str
    parameters: tuple[str, ...]
    period: int
    phase: int
    alpha: float | str
    scale: float | str
    decay: float
    where: str


@dataclass(frozen=True)
class Law:
    """How a factor of the step changes: `start`, and w <- (w + add) * factor after every step or epoch, while
    w < until (None: always)."""

    start: float
    add: float
    factor: float
    until: float | None
    unit: str
    type: TensorType

    @property
    def constant(self) -> bool:
        """Is it the same at every step?"""
        return self.add == 0.0 and self.factor == 1.0


@dataclass(frozen=True)
class Variable:
    """An auxiliary variable: the value that it stands for, its block, its optimizer, and its type, batch axis first.

    `boundaries` are those that it crosses; it is named after the first. One that formulas solve has no optimizer ("").
    With `state: reset` the optimizer begins without memory whenever the variable is solved. With `persistent` it has
    that of each place in the batch from the batches before, or, in a `due`, that of each sample from its visits.
    """

    name: str
    value: str
    block: str
    boundaries: tuple[str, ...]
    optimizer: str
    options: dict[str, Any]
    type: TensorType
    state: str = "reset"

    @property
    def persists(self) -> bool:
        """Does its optimizer remember from one solution to the next?"""
        return self.state == PERSISTENT

    @property
    def reader(self) -> str:
        """The block behind its first boundary; where that is the only one, it is solved there."""
        return self.boundaries[0].rpartition("->")[2].removesuffix(f":{self.value}")


@dataclass(frozen=True)
class StateEntry:
    """One tensor of the network or of a head: `kind` is `parameter` or `buffer`; aliases are tied names."""

    name: str
    kind: str
    block: str
    type: TensorType
    trainable: bool = True
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """Which part of a parameter a rank holds: all numbers in order, cut at `bounds`, of which the part is `index`.

    `bounds` begin with 0 and end with the number of numbers.
    """

    bounds: tuple[int, ...]
    index: int

    @property
    def first(self) -> int:
        """Its first number."""
        return self.bounds[self.index]

    @property
    def last(self) -> int:
        """The number after its last one."""
        return self.bounds[self.index + 1]


@dataclass(frozen=True)
class Phase:
    """One stretch of a run: the blocks and readouts that learn in it, and its step."""

    trains: tuple[str, ...]
    step: tuple[Instruction, ...]


@dataclass(frozen=True)
class Program:
    """The sections of instructions and the tables they name.

    A run in `phases` has a step in each of them, and `step` is empty; `steps` holds either.

    `fields` gives every batch field's type with the batch axis first (`B`); `metrics` maps a metric's
    name to how it is accumulated (`mean` over samples, or `sum`). The order of these tables is part of
    the program: it is kept in files, so that a loaded plan runs as the built one does. `shards` says of which
    parameters a rank holds a part; `state` has their whole types.
    """

    step: tuple[Instruction, ...]
    evaluate: tuple[Instruction, ...]
    predict: tuple[Instruction, ...]
    fields: dict[str, TensorType]
    noise: dict[str, Noise]
    optimizers: dict[str, Optimizer]
    state: dict[str, StateEntry]
    metrics: dict[str, str]
    corrections: dict[str, Correction] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()
    variables: dict[str, Variable] = field(default_factory=dict)
    laws: dict[str, Law] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict, metadata=SPARSE)

    @property
    def steps(self) -> tuple[tuple[Instruction, ...], ...]:
        """The step of each phase in order, or the only one."""
        return tuple(phase.step for phase in self.phases) or (self.step,)


@dataclass(frozen=True)
class Plan:
    """A built training program. Equal content has equal bytes; `hash` is over all of it.

    `kernels[target][name]`: target `native` always exists; `portable` holds those kernels that must differ
    elsewhere. `weights` is a safetensors image, in memory or in a file. `partition` is networkx node-link data.
    """

    spec: str                                  # canonical YAML
    target: str                                # `cpu`, `cuda` or `portable`: what `native` was captured for
    program: Program
    partition: Mapping[str, Any]
    kernels: Mapping[str, Mapping[str, Kernel]]
    weights: Image = field(repr=False)
    torch: str                                 # version of torch that captured it
    report: Mapping[str, Any] = field(default_factory=dict)  # rung, obstacles, notes, warnings, libraries


def links(partition: Mapping[str, Any], place: str = "partition") -> dict[tuple[str, str], str]:
    """Return the link on each boundary, as text, by (source block, target block), from node-link data.

    Raises LpcError (0503) where the edges are no list of objects with a source, a target and a link.
    """
    edges = partition.get("edges", [])
    if not isinstance(edges, list):
        raise LpcError(Diagnostic("0503", "the edges must be a list", place=f"{place}: $.edges"))
    for index, edge in enumerate(edges):
        keys = ("source", "target", "link")
        if not isinstance(edge, dict) or not all(isinstance(edge.get(key), str) for key in keys):
            message = "an edge needs a `source`, a `target` and a `link`, each a string"
            raise LpcError(Diagnostic("0503", message, place=f"{place}: $.edges[{index}]"))
    return {(edge["source"], edge["target"]): edge["link"] for edge in edges}
