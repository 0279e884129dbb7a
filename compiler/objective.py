"""What does a block minimise? Its loss terms from the spec, with their heads, targets and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx, nn

from lpc.compiler.blocks import extract, outside_readers, outside_tensors
from lpc.compiler.capture.tracing import length_hints, origin
from lpc.compiler.capture.types import dtype_of, tensor_type
from lpc.compiler.frontend.places import first_line
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.heads import HEADS
from lpc.compiler.local_loss import LocalLoss, LocalModules, judge
from lpc.compiler.losses import LOSSES, METRICS, LossKind
from lpc.compiler.rules import stated, stated_at, stated_path
from lpc.compiler.setting import Ahead, Setting
from lpc.compiler.targets import carries, differs, targeted
from lpc.compiler.variables import CONSISTENCY
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError, one_of
from lpc.specs.model import Path, Spec
from lpc.specs.plan.kernel import TensorType
from lpc.specs.signatures.targets import INVERSE
from lpc.specs.source import Span
from lpc.specs.term import Term, Value

MODES = ("train", "eval")
POSITIVE = "positive"  # which samples are positive ones, in a contrast
RESERVED = frozenset({"index", POSITIVE})  # no loss compares with them unless it says so


@dataclass(frozen=True)
class Objective:
    """A block's losses, and the modules that belong to them."""

    losses: tuple[LocalLoss, ...]
    heads: LocalModules


@dataclass(frozen=True)
class Objectives:
    """Writes objectives for the blocks of a network; `fields` are the batch fields with the batch axis first."""

    spec: Spec
    traced: Traced
    graph: nx.DiGraph[str]
    fields: Mapping[str, TensorType]

    @cached_property
    def aims(self) -> Mapping[str, Term]:
        """The links of the blocks that learn by a target."""
        return targeted(self.spec, self.graph)

    def of(self, block: str, feature: Mapping[str, str], fits: bool = False) -> Objective:
        """Return the objective of a block with this feature, by mode; what `fits` it to variables is left to these.

        Raises LpcError for what does not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of_modules(self.spec.run.seed, list(self.graph.nodes).index(block)))
            return _Writer(self, block, feature, fits).objective()

    def is_output(self, block: str) -> bool:
        """Does the block own the network's output?"""
        return bool(block == self.graph.graph["output_block"])

    def terms(self, block: str) -> tuple[tuple[Term, ...], Path]:
        """Return a block's loss terms and where they are written."""
        if self.is_output(block) and self.spec.loss:
            return self.spec.loss, ("loss",)
        if self.graph.nodes[block].get("frozen") and not self.is_output(block):
            return (), ()
        value = stated(self.spec, block, "loss")
        link = self.aims.get(block)
        own = value if link is None or differs(link) else ()  # a target's problem is no loss of a prediction
        return (own if isinstance(own, tuple) else ()), stated_path(self.spec, block, "loss")

    def weight(self, block: str, written: Value) -> float:
        """Return a term's weight: a number, or that of the block in a law over the blocks before the output's."""
        if not isinstance(written, Term):
            return float(written)  # type: ignore[arg-type]
        ends = signatures.WEIGHTS[written.name].bind(written)
        first, last = float(ends["first"]), float(ends["last"])
        inner = [b for b in self.graph.nodes if not self.is_output(b)]
        place = inner.index(block) / max(len(inner) - 1, 1) if block in inner else 1.0
        return first + (last - first) * place

    def ahead(self, block: str) -> Ahead | None:
        """Return what a head may know of the blocks after this one; nothing of the output's own."""
        inner = [b for b in self.graph.nodes if not self.is_output(b)]
        if block not in inner:
            return None
        place = inner.index(block)
        later = inner[place + 1 :]
        return Ahead(place, len(inner), lambda: [self.module(b) for b in later], self.output_module)

    def module(self, block: str, mode: str = "train") -> fx.GraphModule:
        """Return a block as a module of its own, from what it reads to the last tensor that leaves it."""
        network, nodes = self.graph_of(mode), self.graph.nodes[block]["nodes"][mode]
        return extract(network, nodes, outside_readers(network, nodes)[-1:]).module

    def output_module(self) -> fx.GraphModule:
        """Return the output's block; its graph must be that of both modes."""
        training, evaluating = (self.module(self.graph.graph["output_block"], mode) for mode in MODES)
        if training.code != evaluating.code:
            raise ValueError("the output's block computes differently in evaluation")
        return training

    def type(self, value: str, mode: str = "train") -> TensorType:
        """Return the type of a batch field or of a node of the network."""
        if value in self.fields:
            return self.fields[value]
        network = self.graph_of(mode)
        node = next(n for n in network.graph.nodes if n.name == value)
        return tensor_type(node.meta["val"], network.meta.get("symbols", {}))

    def field(self, named: Any, loss: str, span: Span | None) -> str:
        """Return the batch field that `loss` (as in a message) compares with: the named one, else the only one."""
        if named is not None:
            if str(named) in self.fields:
                return str(named)
            message = f"{loss} wants the field `{named}`, which batches do not hold"
            notes = (f"batches hold {one_of(list(self.fields))}",)
            raise LpcError(Diagnostic("0402", message, span=span, notes=notes))
        candidates = [f for f in self.fields if f not in self.traced.inputs and f not in RESERVED]
        if len(candidates) == 1:
            return candidates[0]
        held = one_of(candidates) if candidates else "no field besides the inputs"
        raise LpcError(Diagnostic("0403", f"{loss} does not say its target, and batches hold {held}", span=span))

    def graph_of(self, mode: str) -> fx.GraphModule:
        return self.traced.train if mode == "train" else self.traced.eval


class _Writer:
    """Writes one block's objective."""

    def __init__(self, around: Objectives, block: str, feature: Mapping[str, str], fits: bool) -> None:
        self.around, self.block, self.feature = around, block, feature
        self.spec = around.spec
        written, self.path = around.terms(block)
        left = self.left_to_targets(written) | ({CONSISTENCY} if fits else set())
        self.places = [i for i, term in enumerate(written) if term.name not in left]
        self.terms, self.alone = tuple(written[i] for i in self.places), len(written) == 1
        self.modules: dict[str, nn.Module] = {}

    def left_to_targets(self, written: Sequence[Term]) -> set[str]:
        """Return the words that are no losses here: those of the target of what the block hands on.

        Raises LpcError (0434) for losses that compare with a target which no link makes.
        """
        words = {*signatures.TARGET_LOSSES, INVERSE}
        link = None if self.around.is_output(self.block) else self.around.aims.get(self.block)
        if link is not None and differs(link):
            return words - ({INVERSE} if carries(self.around.graph, self.block) else set())
        named = [(i, term.name) for i, term in enumerate(written) if term.name in words]
        if named:
            place, name = named[0]
            rule = "(rule=difference)" if name == INVERSE else ""
            message = f"`{name}` is for targets, and no link `target{rule}` leaves block `{self.block}`"
            help = f"write `links: target{rule or '(...)'}`, or another loss for this block, such as `mse`"
            span = self.spec.origin(*self.path, place) or self.spec.origin(*self.path)
            raise LpcError(Diagnostic("0434", message, span=span, help=help))
        return set()

    def objective(self) -> Objective:
        shared = self.shared_head()
        losses = tuple(self.loss(index, shared) for index in range(len(self.terms)))
        heads = LocalModules({k: m.to(dtype_of(self.spec.run.dtype)) for k, m in self.modules.items()})
        objective = Objective(losses, heads)
        self.rehearse(objective)
        return objective

    # Heads

    def shared_head(self) -> str | None:
        """Make the block's head for the terms that it serves; return its key, None for the identity."""
        term = stated(self.spec, self.block, "head", by_name=self.around.is_output(self.block))
        served = [i for i in range(len(self.terms)) if self.kind(i).heads and self.options(i).get("head") is None]
        if term is None and not self.around.is_output(self.block):
            self.ensure_scores(served)
        if term is None or not self.terms:
            return None
        span = stated_at(self.spec, self.block, "head")
        if served:
            return self.head("", term, self.setting(served[0]), span)
        if term.name != "identity":
            names = one_of([t.name for t in self.terms])
            message = f"the head `{term.name}` of block `{self.block}` serves no loss: {names} does not read it"
            raise LpcError(Diagnostic("0417", message, span=span))
        return None

    def ensure_scores(self, served: Sequence[int]) -> None:
        """0404: without a head, what a loss reads as class scores are as many as there are classes."""
        for index in served:
            setting = self.setting(index)
            if self.kind(index).metrics is not METRICS or setting.class_axis == setting.outputs():
                continue
            message = (
                f"block `{self.block}` has the loss `{self.terms[index].name}` and no head, so its output"
                f" {list(setting.feature)} would be read as class scores; there are {setting.outputs()} classes"
            )
            help = "add `head: linear` to this entry, or `head: identity` where that is meant"
            raise LpcError(Diagnostic("0404", message, span=self.span(index), help=help))

    def head(self, key: str, term: Term, setting: Setting, span: Span | None) -> str | None:
        try:
            module = HEADS[term.name](setting, signatures.HEADS[term.name].bind(term))
        except (ValueError, RuntimeError) as error:
            message = f"head `{term.name}` does not fit block `{self.block}`, whose output is"
            text = f"{message} {list(setting.feature)}: {error}"
            raise LpcError(Diagnostic("0404", text, span=span)) from error
        if module is None:
            return None
        self.modules[key] = module
        return key

    # Losses

    def kind(self, index: int) -> LossKind:
        return LOSSES[self.terms[index].name]

    def options(self, index: int) -> dict[str, Any]:
        return signatures.LOSSES[self.terms[index].name].bind(self.terms[index])

    def span(self, index: int) -> Span | None:
        return self.spec.origin(*self.path, self.places[index])

    def name(self, index: int) -> str:
        return "loss" if self.alone else f"{self.terms[index].name}{self.places[index]}"

    def loss(self, index: int, shared: str | None) -> LocalLoss:
        kind, options, name = self.kind(index), self.options(index), self.name(index)
        setting = self.setting(index)
        own = options.pop("head", None)
        if own is None:
            head = shared if kind.heads else None
        else:
            head = self.head(name, own if isinstance(own, Term) else Term(own), setting, self.span(index))
        try:
            function = kind.make(options, setting)
        except ValueError as error:
            raise LpcError(self.misfit(index, error)) from error
        if isinstance(function, nn.Module):
            assert head is None, "a loss with state of its own reads the block's output"
            self.modules[name] = function
        return LocalLoss(
            name,
            function,
            self.target(index),
            self.around.weight(self.block, options.pop("weight")),
            options,
            kind,
            head,
            name if isinstance(function, nn.Module) else None,
        )

    def setting(self, index: int) -> Setting:
        output = output_node(self.around.traced.train).name
        target = self.target(index)
        return Setting(
            self.around.type(self.feature["train"]).shape[1:],
            self.around.type(target["train"]).shape[1:] if target else (),
            self.around.type(output).shape[1:],
            self.kind(index).width,
            self.around.ahead(self.block),
        )

    # Targets

    def target(self, index: int) -> dict[str, str]:
        """Return the value that a loss compares with, by mode."""
        kind = self.kind(index)
        if kind.reads in ("none", "variable"):
            return {}
        if kind.reads == "input":
            return {mode: self.block_input(mode) for mode in MODES}
        named = self.options(index)["target"]
        if named is None and kind.reads == "image":
            named = self.around.traced.inputs[0]
        term = self.terms[index].name
        name = self.around.field(named, f"the loss `{term}` of block `{self.block}`", self.span(index))
        return dict.fromkeys(MODES, name)

    def block_input(self, mode: str) -> str:
        """Return the block's first floating-point input."""
        network = self.around.graph_of(mode)
        read = outside_tensors(network, self.around.graph.nodes[self.block]["nodes"][mode])
        floating = [n.name for n in read if n.meta["val"].is_floating_point()]
        if not floating:
            message = f"a loss of block `{self.block}` compares with its input, but it reads no floating-point tensor"
            raise LpcError(Diagnostic("0416", message, span=self.spec.origin(*self.path)))
        return floating[0]

    # Rehearsal

    def rehearse(self, objective: Objective) -> None:
        """Run each loss once without data, so that one whose shapes do not fit is refused where it is written."""
        state = {name: t.to("meta") for name, t in objective.heads.state().items()}
        names = [self.feature["train"], *(loss.target["train"] for loss in objective.losses if loss.target)]
        seen = self.without_data(names)
        feature = seen[self.feature["train"]]
        for index, loss in enumerate(objective.losses):
            targets = {loss.name: seen[loss.target["train"]]} if loss.target else {}
            try:
                judge(self.block, [loss], objective.heads, state, feature, targets, origin)
            except (ValueError, RuntimeError, IndexError) as error:
                raise LpcError(self.misfit(index, error)) from error

    def without_data(self, values: Sequence[str]) -> dict[str, Tensor]:
        """Return tensors of the values' types, with example lengths for the symbolic ones, and without memory."""
        types = {value: self.around.type(value) for value in values}
        hints = length_hints(size for kind in types.values() for size in kind.shape if isinstance(size, str))
        own = dtype_of(self.spec.run.dtype)
        return {
            value: torch.empty(
                [hints[s] if isinstance(s, str) else s for s in kind.shape],
                dtype=own if dtype_of(kind.dtype).is_floating_point else dtype_of(kind.dtype),
                device="meta",
            )
            for value, kind in types.items()
        }

    def misfit(self, index: int, error: Exception) -> Diagnostic:
        shape = list(self.around.type(self.feature["train"]).shape[1:])
        message = f"the loss `{self.terms[index].name}` does not fit block `{self.block}`, whose output is {shape}"
        note = str(error) if isinstance(error, ValueError) else first_line(error)
        return Diagnostic("0416", message, span=self.span(index), notes=(*self.compared(index), note))

    def compared(self, index: int) -> Iterator[str]:
        """Tell what a loss compares with."""
        for name in {self.target(index).get("train")} - {None}:
            kind = self.around.type(str(name))
            yield f"it compares with `{name}`, which is {kind.dtype} of shape {list(kind.shape[1:])} for each sample"


def output_node(network: fx.GraphModule) -> fx.Node:
    """Return the node that computes the network's output."""
    output = next(n for n in reversed(network.graph.nodes) if n.op == "output")
    node: fx.Node = output.all_input_nodes[0]
    return node


def seed_of_modules(seed: int, index: int) -> int:
    """Return the seed of the modules that belong to the block or readout number `index`."""
    return (seed * 1_000_003 + index + 1) % 2**63
