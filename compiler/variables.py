"""Which auxiliary variables are there? One for each tensor that crosses a `variable` link, with all that solves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from lpc.compiler.companions import misplaced
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.learned import learned
from lpc.compiler.optimizer_class import ensure_steps, named
from lpc.compiler.rules import stated, stated_at
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import PERSISTENT, Law
from lpc.specs.source import Span
from lpc.specs.term import Term, Value

LINK = "variable"
CONSISTENCY = "consistency"
# What is said of one link and holds for the whole step.
SHARED = ("sweep", "sweeps", "init", "refresh", "weights_input", "buffers")
# Optimizers whose memory is a number for each element, zero at first, and whose counters change nothing, by the options
# with which that is not so. Adam, for one, counts steps to correct its means.
BY_SAMPLE: Mapping[str, frozenset[str]] = {
    "sgd": frozenset({"dampening"}),
    "rmsprop": frozenset(),
    "adagrad": frozenset({"lr_decay", "initial_accumulator_value"}),
    "adadelta": frozenset(),
}
# Why a link does not go with variables, which are solved for the sum of all terms, a function of them and of weights.
UNDEFINED = {
    "gradient": "with a limited reach what comes back is no derivative of that sum, and differs for each loss",
    "feedback": "what it sends back is the gradient of nothing that variables before it could be solved for",
    "target": "it makes targets of one gradient through all of the network, and that ends at variables",
    "split": "its formulas solve all layers of a network, or none",
}
SCALED, WEIGHED = "scale", "weight"
Factor = float | Term


@dataclass(frozen=True)
class Penalty:
    """What ties a variable to what its block computes; `delta` is that of `huber`."""

    name: str
    weight: Factor
    reduction: str
    delta: float = 1.0


@dataclass(frozen=True)
class Variable:
    """A variable: the node whose value it stands for, the blocks around it, and how it is solved.

    It is named after the first of the `boundaries` that it crosses. `scale` is a factor of its objective, which
    `divides` divides by the weight of its penalty.
    """

    name: str
    value: str
    producer: str
    consumers: tuple[str, ...]
    boundaries: tuple[str, ...]
    penalty: Penalty
    optimizer: str
    options: Mapping[str, Any]
    steps: int
    anchor: bool
    divides: bool
    scale: Factor
    l1: float
    state: str = "reset"

    @property
    def pulls(self) -> bool:
        """Has it terms of its own, beside those of the blocks that read it?"""
        return self.anchor or self.l1 > 0.0

    @property
    def laws(self) -> dict[str, Term]:
        """The laws that its factors follow, by what they are called in a plan."""
        factors = {WEIGHED: self.penalty.weight, SCALED: self.scale}
        return {law_name(self, kind): term for kind, term in factors.items() if isinstance(term, Term)}


@dataclass(frozen=True)
class Consistency:
    """How a block's weights fit its variables: a weight instead of the penalties' own, and a factor of |W|."""

    weight: float | None = None
    l1: float = 0.0


@dataclass(frozen=True)
class Variables:
    """All variables by value, in topological order of their blocks, and what holds for the step."""

    every: Mapping[str, Variable] = field(default_factory=dict)
    sweep: str = "backward"
    sweeps: int = 1
    cached: bool = False
    refresh: int = 1
    forward_input: bool = False
    moving: bool = False  # buffers move at every evaluation

    def __bool__(self) -> bool:
        return bool(self.every)

    def made_by(self, block: str) -> tuple[Variable, ...]:
        """Return the variables that stand for what a block computes."""
        return tuple(v for v in self.every.values() if v.producer == block)

    def read_by(self, block: str) -> tuple[Variable, ...]:
        """Return the variables that a block reads."""
        return tuple(v for v in self.every.values() if block in v.consumers)

    def laws(self, dtype: str) -> dict[str, Law]:
        """Return the laws of all factors as a plan holds them."""
        found = {name: term for v in self.every.values() for name, term in v.laws.items()}
        return {name: _law(term, dtype) for name, term in found.items()}


def law_name(variable: Variable, kind: str) -> str:
    """Return what a law of a variable's is called in a plan."""
    return f"{variable.name}.{kind}"


def variables(spec: Spec, traced: Traced, graph: nx.DiGraph[str]) -> Variables:
    """Return the variables of a partitioned network. Raises LpcError (0423) for what cannot be solved together."""
    edges = [(a, b, data) for a, b, data in graph.edges(data=True) if data["link"].name == LINK]
    if not edges:
        return Variables()
    return _Reader(spec, traced, graph).read(edges)


def consistency(spec: Spec, block: str) -> Consistency:
    """Return what `learn` says of a block that variables stand for. Raises LpcError (0423) where it leaves them out."""
    losses: tuple[Term, ...] = stated(spec, block, "loss") or ()
    found = [loss for loss in losses if loss.name == CONSISTENCY]
    if losses and len(found) != 1:
        message = f"block `{block}` is followed by a variable, and its losses do not fit it to that"
        help = "add `consistency` to its losses, once"
        raise LpcError(Diagnostic("0423", message, span=stated_at(spec, block, "loss"), help=help))
    options = signatures.LOSSES[CONSISTENCY].bind(found[0] if found else Term(CONSISTENCY))
    weight = options["weight"]
    return Consistency(None if weight is None else float(weight), float(options["l1"]))


def penalty_names(made: Sequence[Variable], losses: Sequence[object]) -> dict[str, str]:
    """Return what the penalties of a block's variables are called among its losses, by value."""
    if len(made) == 1:
        return {made[0].value: CONSISTENCY if losses else "loss"}
    return {v.value: f"{CONSISTENCY}{i}" for i, v in enumerate(made)}


@dataclass
class _Reader:
    spec: Spec
    traced: Traced
    graph: nx.DiGraph[str]

    def read(self, edges: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Variables:
        self.ensure_alone()
        crossing: dict[str, list[tuple[str, str, Term]]] = {}
        several: dict[tuple[str, str], int] = {}
        for producer, consumer, data in edges:
            names = self.values(producer, data)
            several[producer, consumer] = len(names)
            for name in names:
                crossing.setdefault(name, []).append((producer, consumer, data["link"]))
        order = list(self.graph.nodes)
        found = [self.variable(name, links, several) for name, links in crossing.items()]
        found.sort(key=lambda v: order.index(v.producer))
        shared = self.shared([links[0] for links in crossing.values()])
        self.ensure_alike(found, shared)
        return Variables(
            {v.value: v for v in found},
            shared["sweep"],
            shared["sweeps"],
            shared["init"] == "cache",
            shared["refresh"],
            shared["weights_input"] == "forward",
            shared["buffers"] == "every",
        )

    def values(self, producer: str, boundary: Mapping[str, Any]) -> list[str]:
        """Return the tensors that cross a boundary and that weights move; an integer cannot be solved for (0423)."""
        names = [t for tensor in boundary["tensors"] if (t := str(tensor["name"])) in learned(self.traced.train)]
        nodes = {n.name: n for n in self.traced.train.graph.nodes}
        for name in names:
            if not nodes[name].meta["val"].is_floating_point():
                self.refuse(f"`{name}`, which block `{producer}` sends, is no floating-point tensor", producer)
        return names

    def variable(
        self, value: str, links: list[tuple[str, str, Term]], several: Mapping[tuple[str, str], int]
    ) -> Variable:
        producer, _, link = links[0]
        if any(other != link for _, _, other in links):
            readers = " and ".join(f"`{consumer}`" for _, consumer, _ in links)
            self.refuse(f"{readers} read `{value}` of block `{producer}` by different links", producer)
        boundaries = tuple(f"{a}->{b}" + (f":{value}" if several[a, b] > 1 else "") for a, b, _ in links)
        given = signatures.LINKS[LINK].bind(link)
        span = self.span(producer)
        optimizer, options = named(_term(given["optimizer"]))
        ensure_steps(optimizer, options, producer, span)
        return Variable(
            name=boundaries[0],
            value=value,
            producer=producer,
            consumers=tuple(consumer for _, consumer, _ in links),
            boundaries=boundaries,
            penalty=_penalty(_term(given["penalty"])),
            optimizer=optimizer,
            options=options,
            steps=given["steps"],
            anchor=given["anchor"],
            divides=given["divide_by_weight"],
            scale=_factor(given["scale"]),
            l1=float(given["l1"]),
            state=given["state"],
        )

    def shared(self, links: list[tuple[str, str, Term]]) -> dict[str, Any]:
        """Return what all links say of the step as a whole."""
        bound = [(producer, signatures.LINKS[LINK].bind(link)) for producer, _, link in links]
        first = bound[0][1]
        for producer, given in bound:
            for key in SHARED:
                if given[key] != first[key]:
                    message = f"one `variable` link says `{key}={first[key]}`, and another `{key}={given[key]}`"
                    self.refuse(f"{message}: it holds for all of them", producer)
        return {key: first[key] for key in SHARED}

    # What cannot be

    def ensure_alone(self) -> None:
        """Only `stop` and whole `gradient`s stand beside variables, and nothing that would change what a step is."""
        spec = self.spec
        for a, b, data in self.graph.edges(data=True):
            link = data["link"]
            if link.name in (LINK, "stop") or _is_whole(link):
                continue
            reason = UNDEFINED[link.name]
            message = f"the link `{a}->{b}` is `{link}`, beside links with variables: {reason}"
            self.fail(message, self.origin(a, b), "let it be `gradient`, `variable` or `stop`")
        for key, path in misplaced(spec):
            self.fail(f"`{key}` does not go with links that have variables", spec.origin(*path), f"remove `{key}`")
        for block in self.graph.nodes:
            self.ensure_plain(block)

    def ensure_plain(self, block: str) -> None:
        given = stated(self.spec, block, "solver")
        if given is not None and given.name != "gradient" and self.is_shared(block):
            message = f"block `{block}` shares its parameters, and `solver: {given.name}` solves for one block's"
            self.fail(message, stated_at(self.spec, block, "solver"), "take `solver: gradient`")
        for key, plain in (("estimator", ("backprop",)), ("correct", ("none",)), ("memory", ("immediate",))):
            given = stated(self.spec, block, key)
            word = given.name if isinstance(given, Term) else given
            if given is not None and word not in plain:
                message = f"`{key}: {word}` of block `{block}` does not go with links that have variables"
                self.fail(message, stated_at(self.spec, block, key), f"remove `{key}`")

    def is_shared(self, block: str) -> bool:
        """Are parameters of a block those of another one too?"""
        nodes = self.graph.nodes
        lent = {name for other in nodes for name in nodes[other]["borrowed"]}
        return bool(nodes[block]["borrowed"]) or not lent.isdisjoint(nodes[block]["parameters"])

    def ensure_alike(self, found: list[Variable], shared: Mapping[str, Any]) -> None:
        """Variables that are solved together go together."""
        for block in self.graph.nodes:
            reductions = {v.penalty.reduction == "mean" for v in found if block in v.consumers}
            if len(reductions) > 1:
                self.refuse(f"block `{block}` reads variables whose penalties are means, and others", block)
        if shared["sweep"] == "jacobi" and len({v.steps for v in found}) > 1:
            self.refuse("variables that are solved all at once differ in `steps`", found[0].producer)
        if shared["refresh"] > 1 and shared["init"] != "cache":
            self.refuse("`refresh` is for `init=cache`", found[0].producer, "add `init=cache`, or remove `refresh`")
        if shared["init"] != "cache":
            return
        for variable in found:
            self.ensure_by_sample(variable)
        if shared["weights_input"] == "forward":
            self.refuse("with `init=cache` there is no forward pass for `weights_input=forward`", found[0].producer)
        if any(data["link"].name == "stop" for *_, data in self.graph.edges(data=True)):
            self.refuse("with `init=cache` every boundary needs a variable, or a gradient", found[0].producer)

    def ensure_by_sample(self, variable: Variable) -> None:
        """Samples come at times of their own: what an optimizer remembers must be theirs, and nothing at first."""
        if variable.state != PERSISTENT:
            return
        plain = BY_SAMPLE.get(variable.optimizer)
        told = {k for k, v in variable.options.items() if plain is not None and k in plain and v}
        if plain is not None and not told:
            return
        wrong = " and ".join(f"`{key}`" for key in sorted(told))
        message = f"`{variable.optimizer}`{f' with {wrong}' if wrong else ''} does not remember each sample by itself"
        help = f"take one of {', '.join(BY_SAMPLE)}, or `state=reset`"
        self.refuse(f"{message}, and `init=cache, state=persistent` needs that", variable.producer, help)

    def origin(self, a: str, b: str) -> Span | None:
        """Return where the link between two blocks is written."""
        links = self.spec.decompose.links
        exact = [key for key in links if [part.strip() for part in key.split("->")] == [a, b]]
        return self.spec.origin("decompose", "links", *(exact[:1] or (["*"] if "*" in links else [])))

    def span(self, producer: str) -> Span | None:
        """Return where the link after a block is written."""
        links = self.spec.decompose.links
        exact = [key for key in links if key.partition("->")[0].strip() == producer]
        return self.spec.origin("decompose", "links", *(exact[:1] or (["*"] if "*" in links else [])))

    def refuse(self, message: str, producer: str, help: str | None = None) -> None:
        self.fail(message, self.span(producer), help)

    def fail(self, message: str, span: Span | None, help: str | None = None) -> None:
        raise LpcError(Diagnostic("0423", message, span=span, help=help))


def _is_whole(link: Term) -> bool:
    """Does a link let all gradients through?"""
    if link.name != "gradient":
        return False
    given = signatures.LINKS["gradient"].bind(link)
    return given["reach"] is None and given["only"] == "all"


def _term(value: Value) -> Term:
    return value if isinstance(value, Term) else Term(str(value))


def _factor(value: Any) -> Factor:
    if isinstance(value, Term):
        given = signatures.PENALTY_WEIGHTS[value.name].bind(value)
        still = given["add"] == 0.0 and given["factor"] == 1.0
        return float(given["start"]) if still else value
    return float(value)


def _penalty(term: Term) -> Penalty:
    given = signatures.PENALTIES[term.name].bind(term)
    return Penalty(term.name, _factor(given["weight"]), given["reduction"], float(given.get("delta", 1.0)))


def _law(term: Term, dtype: str) -> Law:
    given = signatures.PENALTY_WEIGHTS[term.name].bind(term)
    until = None if given["until"] is None else float(given["until"])
    return Law(
        float(given["start"]), float(given["add"]), float(given["factor"]), until, given["unit"], TensorType(dtype, ())
    )


