"""What should the gradients be? Plain autograd over the traced network, with `detach` at every stop boundary.

Independent of capture, schedule and runtime: an eager forward pass, the sum of all losses, one call of
`torch.autograd.grad`. A stop-gradient makes the sum of local losses equal to local learning. Where links limit how
far a gradient reaches, the network runs once more for every boundary that may be crossed: a block of the pass of
age `a` reads its inputs from the pass of age `a + 1`, or detached where the link lets nothing of that age pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from lpc.compiler.capture.randomness import attention_dropout, kept_scale
from lpc.compiler.capture.tracing import site_name
from lpc.compiler.credit import horizon, passages
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.local_loss import judge
from lpc.compiler.localize import LocalProblem
from lpc.compiler.state import named_state, run_with_state

aten = torch.ops.aten

Crossings = Mapping[tuple[str, str], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Reference:
    """What one training step's forward and backward should give, by the plan's names."""

    gradients: dict[str, Tensor]
    losses: dict[str, Tensor]
    buffers: dict[str, Tensor]
    output: Tensor
    values: Mapping[str, Any]  # of all nodes, by name


def reference_step(
    traced: Traced,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    shared: str,
    state: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
) -> Reference:
    """Run one step of the decomposed objective in eager mode.

    `state` and `batch` have torch's default dtype; `noise` fixes every random site by name. Raises KeyError for a site
    that `noise` lacks.
    """
    wanted = _wanted(problems)
    leaves = {n: t.detach().clone().requires_grad_(n in wanted) for n, t in state.items()}
    walk = _Walk(traced, graph, problems, shared, leaves, noise)
    values = walk.forward(batch)
    losses = {
        f"{b}.{name}": value
        for b, problem in problems.items()
        for name, value in walk.losses(problem, values, batch).items()
    }
    reached = [n for n in wanted if n in leaves]
    gradients: dict[str, Tensor] = {}
    for names, total in _objectives(graph, problems, reached, losses):
        found = torch.autograd.grad(total, [leaves[n] for n in names], allow_unused=True, retain_graph=True)
        gradients |= {n: g for n, g in zip(names, found, strict=True) if g is not None}
    buffers = {n: t.detach() for n, t in leaves.items() if n not in wanted}
    return Reference(gradients, {n: v.detach() for n, v in losses.items()}, buffers, values["output"].detach(), values)


def _objectives(
    graph: nx.DiGraph[str], problems: Mapping[str, LocalProblem], names: Sequence[str], losses: Mapping[str, Tensor]
) -> list[tuple[list[str], Tensor]]:
    """Return which parameters descend which sum of losses: all of them, or (`only=furthest`) each block its own."""
    if not any(problem.furthest for problem in problems.values()):
        return [(list(names), sum(losses.values(), torch.zeros(())))] if names else []
    chain, reach = list(graph.nodes), horizon(graph)
    objectives = []
    for index, (block, problem) in enumerate(problems.items()):
        ahead = [b for b in chain[index : index + reach + 1] if problems[b].losses]
        for owned, source in ((problem.trainable, ahead[-1:]), (_head_names(problem), [block])):
            terms = [losses[f"{b}.{loss.name}"] for b in source for loss in problems[b].losses]
            if owned and terms:
                objectives.append(([n for n in owned if n in names], sum(terms, torch.zeros(()))))
    return objectives


def _head_names(problem: LocalProblem) -> tuple[str, ...]:
    return tuple(f"heads.{problem.block}.{n}" for n, _ in problem.heads.named_parameters())


def _wanted(problems: Mapping[str, LocalProblem]) -> list[str]:
    names: dict[str, None] = {}
    for problem in problems.values():
        names.update(dict.fromkeys((*problem.trainable, *_head_names(problem))))
    return list(names)


@dataclass
class _Walk:
    traced: Traced
    graph: nx.DiGraph[str]
    problems: Mapping[str, LocalProblem]
    shared: str
    leaves: Mapping[str, Tensor]
    noise: Mapping[str, Tensor]
    replay: _Replay = field(init=False)

    def __post_init__(self) -> None:
        self.replay = _Replay(self.noise)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return every node's value by name, and the network's output as `output`."""
        network = self.traced.train
        owner = {n: b for b, a in self.graph.nodes(data=True) for n in a["nodes"]["train"]}
        canonical = {name: self.traced.tied.get(name, name) for name in named_state(network)}
        state = {name: self.leaves[first] for name, first in canonical.items() if first in self.leaves}
        passes: list[dict[str, Any]] = []  # the oldest first
        for age in range(horizon(self.graph), -1, -1):
            crossings = self.crossings(age, passes)
            run = _Detaching(network, owner, crossings, self.borrowed(), self.traced.tied, self.replay)
            own = {n: t if t.requires_grad or age == 0 else t.clone() for n, t in state.items()}  # buffers move once
            with self.replay:
                output = run_with_state(run, own, [batch[n] for n in self.traced.inputs])
            passes.append(run.values)
            self.replay.counts.clear()
        return {**passes[-1], "output": output}

    def crossings(self, age: int, older: Sequence[Mapping[str, Any]]) -> Crossings:
        """Return for each boundary whose values are not this pass's own: those to read, None for detached ones."""
        found: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        for boundary, link in passages(self.graph).items():
            if not link.passes(age):
                found[boundary] = None
            elif older:
                found[boundary] = older[-1]
        return found

    def borrowed(self) -> dict[str, set[str]]:
        """Under `shared: owner`, a block that borrows a parameter sees it as a constant."""
        if self.shared != "owner":
            return {}
        return {b: set(a.get("borrowed", ())) for b, a in self.graph.nodes(data=True)}

    def losses(
        self, problem: LocalProblem, values: Mapping[str, Any], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        if not problem.losses:
            return {}
        problem.heads.train(True)
        prefix = f"heads.{problem.block}."
        state = {n.removeprefix(prefix): t for n, t in self.leaves.items() if n.startswith(prefix)}
        for name, there in problem.heads.sources.items():
            state[name] = self.leaves[self.traced.tied.get(there, there)].detach().clone()
        known = {**values, **batch}
        targets = {loss.name: known[loss.target["train"]] for loss in problem.losses if loss.target}
        feature = values[problem.feature["train"]]
        with self.replay:
            judged = judge(
                problem.block, problem.losses, problem.heads, state, feature, targets, self.replay.at
            )
        return {name: one.value for name, one in judged.items()}


class _Detaching(fx.Interpreter):
    """Runs the network eagerly; a value read across a boundary may be detached, or another pass's."""

    def __init__(
        self,
        network: fx.GraphModule,
        owner: Mapping[str, str],
        crossings: Crossings,
        borrowed: Mapping[str, set[str]],
        tied: Mapping[str, str],
        replay: _Replay,
    ) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.owner, self.crossings, self.borrowed, self.tied = owner, crossings, borrowed, tied
        self.replay = replay
        self.values: dict[str, Any] = {}
        self.reader: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        self.reader = n
        if n.op not in ("placeholder", "output"):
            self.replay.site(site_name(n.meta.get("path", ""), n.meta.get("call", 0)))
        result = super().run_node(n)
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
        older = self.crossings[edge]
        return value.detach() if older is None else older[source.name]

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        return value.detach() if self.is_constant(target) else value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        named = module.named_parameters(remove_duplicate=False)
        constants = {n: p.detach() for n, p in named if self.is_constant(f"{target}.{n}")}
        return functional_call(module, constants, args, kwargs) if constants else module(*args, **kwargs)

    def is_constant(self, name: str) -> bool:
        """Does the block that reads this parameter only borrow it?"""
        block = self.owner.get(self.reader.name, "") if self.reader is not None else ""
        return self.tied.get(name, name) in self.borrowed.get(block, ())


class _Replay(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives random operators the draws they are told, by site, in the order of the calls."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.noise = noise
        self.counts: dict[str, int] = {}
        self.current = ""

    def site(self, name: str) -> None:
        self.current = name

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Draw what is named after a site."""
        self.site(name)
        yield

    def draw(self) -> Tensor:
        count = self.counts.get(self.current, 0)
        self.counts[self.current] = count + 1
        return self.noise[f"{self.current}:{count}" if count else self.current]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is aten.bernoulli_.float:
            return args[0].copy_(self.draw())
        if func is aten.native_dropout.default:
            mask = self.draw()
            return args[0] * mask * kept_scale(args[1]), mask.bool()
        if torch.Tag.nondeterministic_seeded in func.tags and attention_dropout(func, args, options) != 0.0:
            return self.draw().to(args[0].dtype if args and isinstance(args[0], Tensor) else torch.get_default_dtype())
        return func(*args, **options)
