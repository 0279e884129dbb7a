"""What can a spec say? The pydantic models that are the single definition of the language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, Strict

from lpc.specs.source import Span
from lpc.specs.term import Term, print_value

Path = tuple[str | int, ...]

# Strict, so that `true` and `"5"` are no numbers.
Int = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
DEFAULT_BATCH = 128


class Model(BaseModel):
    """Base of all parts of a spec: frozen, no unknown keys. Validators are built for what is validated, when it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True)


class Tensor(Model):
    """A per-sample tensor: its shape without the batch axis (a name is a symbolic length) and its dtype."""

    shape: tuple[Int | str, ...]
    dtype: str = "float32"


class Layer(Model):
    """One entry of `network.layers`: an operator, or a structure around inner layers.

    `residual` and `repeat(n)` have a `body`; `branch(merge=concat|add, dim=1)` has named `branches`.
    Any operator takes `from=NAME` or `from=[A, B]` to read named layers instead of the previous one.
    """

    name: str | None = None
    op: Term
    body: tuple[Layer, ...] = ()
    branches: dict[str, tuple[Layer, ...]] = {}


class Network(Model):
    """The network: exactly one of `layers`, `module` and `zoo`."""

    inputs: dict[str, Tensor] = {}
    layers: tuple[Layer, ...] | None = None
    module: str | None = None
    config: dict[str, Any] = {}
    zoo: str | None = None
    args: dict[str, Any] = {}
    output: str | Int | None = None
    weights: str = "random"
    init: dict[str, Term] = {}


class Data(Model):
    """Where batches come from. `columns` maps batch fields to column or array names of the source."""

    source: Term = Term("digits")
    root: str | None = None
    batch: Int = Field(default=DEFAULT_BATCH, gt=0)
    transforms: tuple[Term, ...] = ()
    columns: dict[str, str] = {}
    views: Int = Field(default=1, ge=1, le=8)
    contrast: Term | None = None
    test: str | Number | None = None
    validation: str | Number | None = None


class Units(Model):
    """Local losses inside a block's output: one for every patch (position) and every group of channels."""

    patches: Literal["auto", "none"] = "auto"
    groups: Int = Field(default=1, gt=0)


class Decompose(Model):
    """How learning is decomposed: blocks in depth, and the link on each boundary.

    `blocks` maps a block's name to selectors over module paths, or is one term
    (`per_layer`, `each(pattern)`, `balanced(count, by)`). `links` maps `a->b` or `*` to a link term.
    """

    blocks: Term | dict[str, tuple[str | Term, ...]]
    at: Literal["activation", "preactivation"] = "activation"
    links: dict[str, Term] = {"*": Term("stop")}
    units: Units | None = None
    shared: Literal["forbid", "owner", "sum"] = "forbid"


class Schedule(Model):
    """Learning-rate factor over a run: linear warm-up from 0, then a law that ends with the run.

    `inner` is a further factor over the inner steps on one batch: a law that would end after the last of them.
    """

    warmup: Int = Field(default=0, ge=0)
    then: Term = Term("constant")
    unit: Literal["step", "epoch"] = "step"
    inner: Term = Term("constant")


class Rule(Model):
    """One entry of `learn`; the last entry that matches wins, key by key. None means: not said here.

    `loss: none` is the empty tuple, `clip: none` and `prox: none` are infinity, so that they override earlier entries.
    """

    blocks: tuple[str, ...] | None = None
    params: tuple[str, ...] | None = None
    head: Term | None = None
    loss: tuple[Term, ...] | None = None
    aggregate: Literal["mean", "replicated"] | None = None
    estimator: Term | None = None
    correct: Term | None = None
    optimizer: Term | None = None
    schedule: Schedule | None = None
    clip: Annotated[Number, Field(gt=0)] | None = None
    memory: Literal["immediate", "recompute"] | None = None
    reduction: Literal["mean", "sum", "batchmean"] | None = None
    solver: Term | None = None
    steps: Annotated[Int, Field(gt=0)] | None = None
    state: Literal["persistent", "reset"] | None = None
    prox: Annotated[Number, Field(gt=0)] | None = None
    outer: Term | None = None
    train: Annotated[bool, Strict()] | None = None
    weight_decay: Annotated[Number, Field(ge=0, allow_inf_nan=False)] | None = None
    lr_factor: Annotated[Number, Field(ge=0, allow_inf_nan=False)] | None = None


class Readout(Model):
    """What learns from detached features of several blocks, and changes none of them.

    `from` names blocks, whose outputs are flattened and joined (that of one block keeps its shape), each first divided
    by its root mean square with `normalize: rms`. `with` changes the network's input for a second forward pass, in
    evaluation mode; `auto` normalises then, as Forward-Forward does, and not otherwise. Without `classes` the head has
    as many outputs as `with` writes labels, else as the network has.
    """

    from_: Annotated[tuple[str, ...], Field(alias="from")]
    with_: Annotated[Term | None, Field(alias="with")] = None
    normalize: Literal["auto", "rms", "none"] = "auto"
    classes: Annotated[Int, Field(gt=0)] | None = None
    head: Term = Term("linear")
    loss: Term = Term("cross_entropy")
    optimizer: Term
    schedule: Schedule | None = None
    clip: Annotated[Number, Field(gt=0)] | None = None


class Phase(Model):
    """One stretch of a run: how long it is, and which blocks and readouts learn in it; all others are frozen.

    `train` holds patterns of names; the word `readouts` stands for all of them.
    """

    train: tuple[str, ...]
    epochs: Annotated[Int, Field(gt=0)] | None = None
    steps: Annotated[Int, Field(gt=0)] | None = None


class Run(Model):
    """How the plan is executed: for `epochs`, for `steps`, or in `phases`.

    `shard: true` is the pattern `*`, false none at all.
    """

    epochs: Annotated[Int, Field(ge=0)] | None = None
    steps: Annotated[Int, Field(ge=0)] | None = None
    phases: tuple[Phase, ...] = ()
    seed: Int = Field(default=0, ge=0)
    device: str = "auto"
    target: Literal["auto", "cpu", "cuda", "portable"] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    precision: Literal["none", "bf16"] = "none"
    accumulate: Int = Field(default=1, gt=0)
    microbatches: Annotated[Int, Field(gt=0, le=4096)] = 1
    replicas: Annotated[Int, Field(gt=0, le=4096)] = 1
    memory: Literal["summed"] | None = None
    clip: Annotated[Number, Field(gt=0)] | None = None
    log: Term = Term("every", (50,))
    checkpoint: Term = Term("every", ("epoch",))
    validate_: Annotated[Term, Field(alias="validate")] = Term("every", ("epoch",))
    early_stop: Term | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    predict: Term = Term("output")
    workers: Annotated[Int, Field(gt=0)] | None = None
    placement: dict[str, Annotated[Int, Field(ge=0, lt=4096)]] = {}
    shard: tuple[str, ...] = ()
    staleness: Annotated[Int, Field(ge=0, le=64)] = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """The keys by which a step's gradients are sums: over batches, or over pieces of one."""
        return tuple(key for key in ("accumulate", "microbatches", "replicas") if getattr(self, key) > 1)


def default_note(path: Path, value: Any) -> tuple[str, ...]:
    """Return the note that the value at `path` is a default; none for an empty one."""
    if isinstance(value, Mapping) and value.keys() == {"*"}:
        value = value["*"]
    if isinstance(value, Mapping | Model) or value in (None, (), ""):
        return ()
    items = value if isinstance(value, tuple) else (value,)
    shown = ", ".join(str(item) if isinstance(item, Term) else print_value(item) for item in items)
    return (f"`{'.'.join(map(str, path))}` is not written; by default it is `{shown}`",)


def _part(value: Any, key: str | int) -> Any:
    """Return what a model holds under a key, spelt as in the text; None for what is no model or has no such key."""
    fields = type(value).model_fields if isinstance(value, Model) else {}
    return next((getattr(value, name) for name, info in fields.items() if (info.alias or name) == key), None)


class Spec(Model):
    """A whole spec. `origin(path)` tells where a value was written."""

    lpc: Literal[1] = 1
    name: str = "unnamed"
    network: Network
    adapters: tuple[Term, ...] = ()
    data: Data | None = None
    fields: dict[str, Tensor] = {}
    decompose: Decompose
    learn: tuple[Rule, ...]
    loss: tuple[Term, ...] = ()
    readouts: dict[str, Readout] = {}
    run: Run = Run.model_construct()  # as `Run()`, without building its validator

    _spans: dict[Path, Span] = PrivateAttr(default_factory=dict)
    _keys: dict[Path, Span] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Compare what is said, not where it was written."""
        if not isinstance(other, Spec):
            return NotImplemented
        return dict(self) == dict(other)

    @property
    def batch_size(self) -> int:
        """Samples in one batch: of `data`, else 128."""
        return self.data.batch if self.data is not None else DEFAULT_BATCH

    def origin(self, *path: str | int) -> Span | None:
        """Return the span of the value at `path`; of the nearest value around a default, with a note that it is one."""
        for end in range(len(path), -1, -1):
            span = self._spans.get(path[:end])
            if span is not None:
                return replace(span, note=next(iter(self.by_default(*path)), span.note))
        return None

    def by_default(self, *path: str | int) -> tuple[str, ...]:
        """Return the note that nobody wrote the value at `path`, which is a default; none where that says nothing."""
        value: Any = self
        for end, key in enumerate(path, 1):
            value = _part(value, key)
            if value is None or not self._spans:
                break
            if path[:end] not in self._spans and not isinstance(value, Model):
                return default_note(path[:end], value)
        return ()

    def path_of(self, span: Span) -> Path | None:
        """Return the path of a value that was written at `span`, or None."""
        return next((path for path, found in (*self._spans.items(), *self._keys.items()) if found == span), None)

    def key_origin(self, *path: str | int) -> Span | None:
        """Return the span of the key under which the value at `path` stands, or of the value."""
        return self._keys.get(path) or self.origin(*path)
