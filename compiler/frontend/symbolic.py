"""How is a network traced at module level? torch.fx symbolic tracing; what resists stays one opaque leaf.

Leaves are the modules of torch.nn, the layers that it lacks and we have, and any submodule whose forward cannot be
traced: it becomes one node, so that only its border can be cut. What fx would record wrongly without a word counts as
untraceable: computations under `no_grad` or autocast, and random numbers drawn while tracing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.autograd import Function
from torch.utils._pytree import tree_leaves

from lpc.compiler.frontend.chance import every_state
from lpc.compiler.frontend.customs import Apply, CustomFunction, custom_functions
from lpc.compiler.frontend.network import BuiltNetwork, call
from lpc.compiler.frontend.outputs import NoOutputError, select
from lpc.compiler.frontend.places import defined_at, first_line, raised_at, running_at
from lpc.compiler.frontend.stack import placeholder

# Whose modules are leaves: those of torch.nn, and the layers that it lacks.
LEAVES = ("torch.nn.", "lpc.compiler.frontend.modules")

# Composites of torch.nn that are worth a look inside; the rest of torch.nn are leaves.
COMPOSITES = (nn.Sequential, nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder)


class UntraceableError(Exception):
    """Symbolic tracing would record something else than what the module computes."""


@dataclass(frozen=True)
class Obstacle:
    """Why a module could not be traced: its path, `file:line`, the cause, and what was done about it."""

    path: str
    place: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path or 'the network itself'} ({self.place}): {self.cause}; {self.remedy}"


def obstacle(module: nn.Module, path: str, error: BaseException, remedy: str) -> Obstacle:
    """Describe what stopped a trace of the submodule at `path`."""
    return Obstacle(path, raised_at(error) or defined_at(module.get_submodule(path)), first_line(error), remedy)


@dataclass
class Scope:
    """A module whose forward is running: its path and which call of it this is."""

    path: str
    call: int


@dataclass
class Symbolic:
    """A symbolically traced graph with `path`, `call` and `place` on every node, and what became opaque."""

    graph: fx.Graph
    obstacles: dict[str, Obstacle]
    constants: list[str]


def trace_symbolic(network: BuiltNetwork) -> Symbolic:
    """Trace the network in its present mode. Raises whatever its root's forward raises when traced.

    Constants that the trace makes are left as attributes of the module under the names in `constants`.
    """
    tracer = SiteTracer(network)
    before = set(network.module.__dict__)
    with torch.enable_grad(), custom_functions(tracer.custom_function):
        graph = tracer.trace(network.module)
    made = [name for name in network.module.__dict__ if name not in before]
    return Symbolic(graph, tracer.obstacles, made)


@dataclass
class _Mark:
    """A point of the trace to fall back to."""

    node: fx.Node
    calls: int
    obstacles: dict[str, Obstacle] = field(default_factory=dict)


class SiteTracer(fx.Tracer):
    """An fx tracer that knows which call of which module it is in, and turns failures into leaves."""

    def __init__(self, network: BuiltNetwork) -> None:
        super().__init__()
        self.network = network
        self.scopes = [Scope("", 0)]
        self.called: list[str] = []
        self.counts: Counter[str] = Counter()
        self.obstacles: dict[str, Obstacle] = {}

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Give the root exactly the network's inputs; every other argument keeps its default."""
        nodes = [placeholder(self.graph, name) for name in self.network.inputs]
        proxies = {name: self.proxy(node) for name, node in zip(self.network.inputs, nodes, strict=True)}

        def forward(root: nn.Module) -> Any:
            with self.drawing_nothing():
                result = call(root, proxies)
            return select(result, self.network.output)

        return forward, [self.root]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """An adapted layer, or a module of `LEAVES`, unless it is a container worth opening."""
        if module_qualified_name in self.network.adapted:
            return True
        return type(m).__module__.startswith(LEAVES) and not isinstance(m, COMPOSITES)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Trace through a submodule; if that fails, undo and record one opaque leaf."""
        path = self.path_of_module(m)
        with self.inside(path):
            if self.is_leaf_module(m, path):
                return self.create_proxy("call_module", path, args, kwargs)
            mark = self.mark()
            try:
                with self.drawing_nothing():
                    return forward(*args, **kwargs)
            except NoOutputError:
                raise
            except Exception as error:
                self.fall_back(mark)
                self.obstacles[path] = obstacle(self.root, path, error, "kept as one opaque leaf")
                with torch.enable_grad():
                    return self.create_proxy("call_module", path, args, kwargs)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Record a node with its site, unless what it means outside the graph would be lost."""
        if not torch.is_grad_enabled():
            raise UntraceableError("it computes without gradients (no_grad), which symbolic tracing does not record")
        if torch.is_autocast_enabled("cpu"):
            raise UntraceableError("it computes under autocast, which symbolic tracing does not record")
        node = super().create_node(*args, **kwargs)
        scope = self.scopes[-1]
        scopes = tuple((s.path, s.call) for s in self.scopes[1:])
        node.meta.update(path=scope.path, call=scope.call, scopes=scopes, place=running_at())
        return node

    def custom_function(
        self, function: type[Function], apply: Apply, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a custom autograd function as one node, which keeps its backward."""
        if not any(isinstance(leaf, fx.Proxy) for leaf in tree_leaves((args, kwargs))):
            return apply(function, *args, **kwargs)
        return self.create_proxy("call_function", CustomFunction(function), args, kwargs)

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """Be inside the next call of a module."""
        self.scopes.append(Scope(path, self.counts[path]))
        self.counts[path] += 1
        self.called.append(path)
        try:
            yield
        finally:
            self.scopes.pop()

    @contextmanager
    def drawing_nothing(self) -> Iterator[None]:
        """Refuse a forward that draws random numbers while it is traced: they would be frozen."""
        before = every_state()
        yield
        if every_state() != before:
            raise UntraceableError(
                "it draws random numbers that do not depend on its inputs; tracing would freeze them"
            )

    def mark(self) -> _Mark:
        last = next(iter(reversed(self.graph.nodes)))
        return _Mark(last, len(self.called), dict(self.obstacles))

    def fall_back(self, mark: _Mark) -> None:
        """Forget what was traced since the mark."""
        for node in reversed(list(self.graph.nodes)):
            if node is mark.node:
                break
            # fx remembers fetched parameters and would hand out an erased node again.
            if node.op != "get_attr":
                self.graph.erase_node(node)
        for path in self.called[mark.calls :]:
            self.counts[path] -= 1
        del self.called[mark.calls :]
        self.obstacles = mark.obstacles
