"""How does the traced network run eagerly? Node by node, with random draws replayed, and each boundary read by a rule.

What every reference of gradients is made of; independent of capture, schedule and runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from lpc.compiler.capture.randomness import attention_dropout, draws_of, kept_scale
from lpc.compiler.capture.tracing import site_name
from lpc.compiler.credit import horizon, passages
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.local_loss import judge
from lpc.compiler.localize import LocalProblem
from lpc.compiler.state import named_state, run_with_state

aten = torch.ops.aten

Boundary = tuple[str, str]
Crossing = Callable[[str, Tensor], Tensor]  # what a consumer reads for a value, by the value's name
Touch = Callable[[str, Any], Any]  # what all readers get of a node's result, by the node's name
Around = Callable[[str], AbstractContextManager[Any]]  # what a block's operators run in


def stopped(name: str, value: Tensor) -> Tensor:
    """Read a value without its gradient."""
    return value.detach()


def untouched(name: str, result: Any) -> Any:
    """Hand a node's result on as it is."""
    return result


def plain(block: str) -> AbstractContextManager[Any]:
    """Run operators as they are."""
    return nullcontext()


@dataclass
class Walk:
    """Runs a network on leaves of its state; `noise` fixes every random site by name.

    `constants` are, for each block, the parameters that its gradients do not reach; `readers` say how values are read
    across boundaries that no stop closes. `measures` are the metrics that go into `metrics` where losses are.
    """

    traced: Traced
    graph: nx.DiGraph[str]
    problems: Mapping[str, LocalProblem]
    leaves: Mapping[str, Tensor]
    noise: Mapping[str, Tensor]
    constants: Mapping[str, set[str]] = field(default_factory=dict)
    readers: Mapping[Boundary, Crossing] = field(default_factory=dict)
    around: Around = plain
    measures: Sequence[str] = ()
    replay: Replay = field(init=False)
    metrics: dict[str, Tensor] = field(default_factory=dict)  # of the losses, as `block.name`
    watched: frozenset[str] = frozenset()  # nodes whose results are kept as they were made
    kept: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.replay = Replay(self.noise)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return every node's value by name, and the network's output as `output`.

        Where links limit how far a gradient reaches, the network runs once for every age: a block of the pass of age
        `a` reads its inputs from the pass of age `a + 1`.
        """
        values: dict[str, Any] = {}
        for age in range(horizon(self.graph), -1, -1):
            values = self.once(batch, self.crossings(age, values), moves=age == 0)
        return values

    def once(
        self, batch: Mapping[str, Tensor], crossings: Mapping[Boundary, Crossing], touch: Touch = untouched,
        moves: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Run the network once; only with `moves` are its buffers written."""
        network = self.traced.train
        owner = {n: b for b, a in self.graph.nodes(data=True) for n in a["nodes"]["train"]}
        canonical = {name: self.traced.tied.get(name, name) for name in named_state(network)}
        state = {name: self.leaves[first] for name, first in canonical.items() if first in self.leaves}
        watching = self.keeping(touch)
        run = _Run(network, owner, crossings, self.constants, self.traced.tied, self.replay, watching, self.around)
        own = {n: t if t.requires_grad or moves else t.clone() for n, t in state.items()}
        self.replay.counts.clear()
        with self.replay:
            output = run_with_state(run, own, [batch[n] for n in self.traced.inputs])
        return {**run.values, "output": output}

    def keeping(self, touch: Touch) -> Touch:
        """Keep the results of watched nodes from operators in place; others are what `touch` makes of them."""

        def kept(name: str, result: Any) -> Any:
            if name not in self.watched:
                return touch(name, result)
            self.kept[name] = touch(name, result)
            return self.kept[name].clone()

        return kept

    def crossings(self, age: int, older: Mapping[str, Any]) -> dict[Boundary, Crossing]:
        """Return how the boundaries are read whose values are not this pass's own."""
        found: dict[Boundary, Crossing] = {}
        for boundary, link in passages(self.graph).items():
            if not link.passes(age):
                found[boundary] = stopped
            elif boundary in self.readers:
                found[boundary] = self.readers[boundary]
            elif older:
                found[boundary] = lambda name, value: older[name]
        return found

    def losses(
        self, problem: LocalProblem, feature: Tensor, values: Mapping[str, Any], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return a block's losses by name, on its feature; what is drawn is drawn as for the first time."""
        if not problem.losses:
            return {}
        problem.heads.train(True)
        prefix = f"heads.{problem.block}."
        state = {n.removeprefix(prefix): t for n, t in self.leaves.items() if n.startswith(prefix)}
        for name, there in problem.heads.sources.items():
            state[name] = self.leaves[self.traced.tied.get(there, there)].detach().clone()
        known = {**values, **batch}
        targets = {loss.name: known[loss.target["train"]] for loss in problem.losses if loss.target}
        self.replay.counts.clear()
        with self.replay, self.around(problem.block):
            judged = judge(
                problem.block, problem.losses, problem.heads, state, feature, targets, self.replay.at
            )
            measured = problem.measured(judged, self.measures)
        self.metrics |= {f"{problem.block}.{name}": value for name, value in measured.items()}
        return {name: one.value for name, one in judged.items()}


def evaluate(
    traced: Traced, graph: nx.DiGraph[str], state: Mapping[str, Tensor], batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
) -> tuple[dict[str, Any], Replay]:  # fmt: skip
    """Run the network as in evaluation; return every node's value by name, and what draws by `noise` after it."""
    network, replay = traced.eval, Replay(noise)
    owner = {n: b for b, a in graph.nodes(data=True) for n in a["nodes"]["eval"]}
    names = {name: traced.tied.get(name, name) for name in named_state(network)}
    own = {name: state[first] for name, first in names.items() if first in state}
    run = _Run(network, owner, {}, {}, traced.tied, replay, untouched, plain)
    with replay:
        run_with_state(run, own, [batch[n] for n in traced.inputs])
    return run.values, replay


class _Run(fx.Interpreter):
    """Runs the network eagerly; a value read across a boundary may be another one than was made."""

    def __init__(
        self,
        network: fx.GraphModule,
        owner: Mapping[str, str],
        crossings: Mapping[Boundary, Crossing],
        constants: Mapping[str, set[str]],
        tied: Mapping[str, str],
        replay: Replay,
        touch: Touch,
        around: Around,
    ) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.owner, self.crossings, self.constants, self.tied = owner, crossings, constants, tied
        self.replay, self.touch, self.around = replay, touch, around
        self.values: dict[str, Any] = {}
        self.reader: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        self.reader = n
        if n.op not in ("placeholder", "output"):
            self.replay.site(site_name(n.meta.get("path", ""), n.meta.get("call", 0)))
        with self.around(self.owner.get(n.name, "")):
            result = self.touch(n.name, super().run_node(n))
        self.values[n.name] = result
        return result

    def map_nodes_to_values(self, args: Any, n: fx.Node) -> Any:
        """Read a node's arguments; a float32 that the traced code names is the dtype of the step."""
        dtype = torch.get_default_dtype()
        named = fx.node.map_aggregate(args, lambda a: dtype if a is torch.float32 else a)
        return fx.node.map_arg(named, lambda source: self.read(source, n))

    def read(self, source: fx.Node, reader: fx.Node) -> Any:
        value = self.env[source]
        edge = (self.owner.get(source.name, ""), self.owner.get(reader.name, ""))
        if edge not in self.crossings or not isinstance(value, Tensor):
            return value
        return self.crossings[edge](source.name, value)

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        return value.detach() if self.is_constant(target) else value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        named = module.named_parameters(remove_duplicate=False)
        constants = {n: p.detach() for n, p in named if self.is_constant(f"{target}.{n}")}
        return functional_call(module, constants, args, kwargs) if constants else module(*args, **kwargs)

    def is_constant(self, name: str) -> bool:
        """Is this parameter one that the gradients of the block that reads it do not reach?"""
        block = self.owner.get(self.reader.name, "") if self.reader is not None else ""
        return self.tied.get(name, name) in self.constants.get(block, ())


class Replay(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives random operators the draws they are told, by site, in the order of the calls."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.noise = noise
        self.counts: dict[str, int] = {}
        self.laws: dict[str, tuple[str, tuple[float, ...]]] = {}  # of the draws whose law an operator tells
        self.current = ""

    def site(self, name: str) -> None:
        self.current = name

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Draw what is named after a site."""
        self.site(name)
        yield

    def draw(self, kept: float | None = None) -> Tensor:
        """Return the next draw of the site; of a mask, `kept` is the probability of a one."""
        count = self.counts.get(self.current, 0)
        self.counts[self.current] = count + 1
        site = draws_of(self.current) if draws_of(self.current) in self.noise else self.current
        name = f"{site}:{count}" if count else site
        if kept is not None:
            self.laws[name] = ("bernoulli", (kept,))
        return self.noise[name]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is aten.bernoulli_.float:
            return args[0].copy_(self.draw(float(args[1]) if len(args) > 1 else None))
        if func is aten.native_dropout.default:
            mask = self.draw(1.0 - args[1])
            return args[0] * mask * kept_scale(args[1]), mask.bool()
        if torch.Tag.nondeterministic_seeded in func.tags and attention_dropout(func, args, options) != 0.0:
            return self.draw().to(args[0].dtype if args and isinstance(args[0], Tensor) else torch.get_default_dtype())
        return func(*args, **options)


def parameters_of(graph: nx.DiGraph[str], block: str) -> set[str]:
    """Return the names of all parameters that a block reads, borrowed ones among them."""
    attributes = graph.nodes[block]
    return {*attributes["parameters"], *attributes.get("borrowed", ())}


def head_parameters(problem: LocalProblem) -> tuple[str, ...]:
    """Return the names of what a block's heads and losses train."""
    return tuple(f"heads.{problem.block}.{n}" for n, _ in problem.heads.named_parameters())


def total(losses: Sequence[Tensor]) -> Tensor:
    """Return the sum of losses, 0 of none."""
    return sum(losses, torch.zeros(()))
