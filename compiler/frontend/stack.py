"""How do layers written in a spec become a network? Each is built for the shape that reaches it."""

from __future__ import annotations

import keyword
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from lpc.compiler.frontend.fakes import BATCH, SymbolicShapes, shape_text
from lpc.compiler.frontend.layers import BUILDERS, MisfitError, plain_axis, same_shapes
from lpc.compiler.frontend.places import first_line
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean, one_of
from lpc.specs.layer_names import layer_names
from lpc.specs.model import Layer, Path, Spec
from lpc.specs.model import Tensor as TensorSpec
from lpc.specs.signatures import LAYERS, MERGES, STRUCTURES
from lpc.specs.term import Term


@dataclass(frozen=True)
class Value:
    """What a layer hands on: its graph node and a fake tensor of its shape."""

    node: fx.Node
    fake: Tensor


@dataclass
class Scope:
    """The names that `from` can use: those of one list of layers, then of the lists around it."""

    values: dict[str, Value]
    outer: Scope | None = None

    def find(self, name: str) -> Value | None:
        """Return the value of that name, innermost first."""
        if name in self.values:
            return self.values[name]
        return self.outer.find(name) if self.outer is not None else None

    def names(self) -> list[str]:
        """Return all names that can be read."""
        return [*self.values, *(self.outer.names() if self.outer is not None else [])]


@dataclass(frozen=True)
class Site:
    """Where a layer stands: its path in the network, its path in the spec, and the scope around it."""

    path: str
    spec: Path
    scope: Scope

    def inner(self, name: str, *spec: str | int) -> Site:
        """Return the place of a layer or a list of layers inside this one."""
        return Site(f"{self.path}.{name}" if self.path else name, (*self.spec, *spec), Scope({}, self.scope))


@dataclass
class StackBuilder:
    """Builds the modules and the graph of `network.layers` while fake tensors run through them."""

    spec: Spec
    shapes: SymbolicShapes
    dtype: torch.dtype
    root: nn.Module = field(default_factory=nn.Module)
    graph: fx.Graph = field(default_factory=fx.Graph)

    def build(self, inputs: Mapping[str, TensorSpec]) -> fx.GraphModule:
        """Return the network as a graph module whose nodes carry `path` and `call`."""
        fakes = {name: self.shapes.batch(tensor) for name, tensor in inputs.items()}
        given = {name: Value(placeholder(self.graph, name), fake) for name, fake in fakes.items()}
        layers = self.spec.network.layers or ()
        scope = Scope(dict(given))
        last = self.run(layers, next(iter(given.values())), Site("", ("network", "layers"), scope))
        self.graph.output(self.output(last, scope).node)
        return fx.GraphModule(self.root, self.graph, "Network")

    def output(self, last: Value, scope: Scope) -> Value:
        """Return the network's output: the last layer, or the one that `network.output` names."""
        wanted = self.spec.network.output
        if wanted is None:
            return last
        found = scope.find(str(wanted))
        if found is None:
            self.fail(
                "0213",
                f"`network.output` names no layer: `{wanted}`",
                ("network", "output"),
                str(wanted),
                scope,
            )
        return found

    def run(self, layers: Sequence[Layer], value: Value, at: Site) -> Value:
        """Run a list of layers, each on the one before."""
        names = layer_names([(layer.name, layer.op.name) for layer in layers])
        for index, layer in enumerate(layers):
            site = Site(f"{at.path}.{names[index]}" if at.path else names[index], (*at.spec, index), at.scope)
            self.check_name(names[index], site)
            value = self.layer(layer, value, site)
            at.scope.values[names[index]] = value
        return value

    def layer(self, layer: Layer, value: Value, site: Site) -> Value:
        """Run one layer."""
        inputs = self.read(layer.op, value, site)
        structure = RUNNERS.get(layer.op.name)
        if structure is None:
            return self.operator(layer.op, inputs, site)
        self.attach(site, nn.Module())
        return structure(self, layer, inputs[0], site)

    def read(self, op: Term, value: Value, site: Site) -> list[Value]:
        """Return what a layer reads: what `from` names, else the value before."""
        wanted = op.kwargs.get("from")
        if wanted is None:
            return [value]
        at: Path = (*site.spec, "op", "from")
        names = [str(name) for name in (wanted if isinstance(wanted, list) else [wanted])]
        found = [site.scope.find(name) for name in names]
        for index, (name, one) in enumerate(zip(names, found, strict=True)):
            if one is None:
                place = (*at, index) if isinstance(wanted, list) else at
                self.fail("0202", f"`from` names no layer before this one: `{name}`", place, name, site.scope)
        if len(names) != 1 and op.name not in MERGES:
            text = f"`{op.name}` reads one layer, `from` names {len(names)}"
            self.fail("0202", text, at, help=f"join them first, with {one_of(MERGES)}")
        return [one for one in found if one is not None]

    def operator(self, op: Term, inputs: Sequence[Value], site: Site) -> Value:
        """Build an operator's module and run it on fake tensors."""
        fakes = [value.fake for value in inputs]
        if op.name not in BUILDERS:
            self.fail("0200", f"there is no layer `{op.name}`", site.spec, op.name, None, list(BUILDERS))
        with self.fitting(op, fakes, site):
            arguments = LAYERS[op.name].bind(
                Term(op.name, op.args, {k: v for k, v in op.kwargs.items() if k != "from"})
            )
            module = BUILDERS[op.name](fakes, arguments).to(self.dtype)
            result = self.fake_run(module, fakes)
        self.attach(site, module)
        node = self.graph.call_module(site.path, tuple(value.node for value in inputs))
        node.meta.update(path=site.path, call=0, spec=site.spec)
        return Value(node, result)

    def fake_run(self, module: nn.Module, fakes: Sequence[Tensor]) -> Tensor:
        module.eval()
        with self.shapes.active(), torch.no_grad():
            result: Tensor = module(*fakes)
        module.train()
        if str(result.shape[0]) != str(fakes[0].shape[0]):
            raise MisfitError("it would change the batch axis")
        return result

    @contextmanager
    def fitting(self, op: Term, fakes: Sequence[Tensor], site: Site) -> Iterator[None]:
        """Turn any failure inside into a diagnostic that names the shapes found."""
        try:
            yield
        except LpcError:
            raise
        except Exception as error:
            cause = str(error) if isinstance(error, MisfitError) else first_line(error)
            self.misfit(f"`{op}` (layer `{site.path}`) cannot take its input", fakes, cause, site, error)

    def misfit(
        self, text: str, fakes: Sequence[Tensor], cause: str, site: Site, error: Exception | None = None
    ) -> NoReturn:
        found = " and ".join(shape_text(fake, self.shapes.symbols) for fake in fakes)
        notes = (cause, f"shapes begin with the batch, {BATCH}")
        span = self.spec.origin(*site.spec)
        raise LpcError(
            Diagnostic("0200", f"{text} of shape {found}", span, None if span else f"layer {site.path}", notes)
        ) from error

    def merge(self, kind: str, dim: int, values: Sequence[Value], site: Site) -> Value:
        """Join values inside a structure."""
        fakes = [value.fake for value in values]
        tracer, before = fx.proxy.GraphAppendingTracer(self.graph), len(self.graph.nodes)
        with self.fitting(Term(kind), fakes, site):
            same_shapes(fakes, plain_axis(fakes[0], dim) if kind == "concat" else None)
            with self.shapes.active():
                result = MERGE[kind](fakes, dim)
        joined = MERGE[kind]([fx.Proxy(value.node, tracer) for value in values], dim).node
        for node in list(self.graph.nodes)[before:]:
            node.meta.update(path=site.path, call=0, spec=site.spec)
        return Value(joined, result)

    def attach(self, site: Site, module: nn.Module) -> None:
        """Put a module into the network under its path."""
        parent, _, name = site.path.rpartition(".")
        self.root.get_submodule(parent).add_module(name, module)

    def check_name(self, name: str, site: Site) -> None:
        taken = name in site.scope.values
        parts = name.isidentifier() and not keyword.iskeyword(name) and not hasattr(fx.GraphModule, name)
        if taken or not (parts or name.isdigit()) or name in RESERVED:
            text = "is already the name of a layer or input" if taken else "cannot name a layer"
            self.fail("0201", f"`{name}` {text}", site.spec)

    def fail(
        self,
        code: str,
        text: str,
        at: Path,
        wanted: str = "",
        scope: Scope | None = None,
        known: Sequence[str] = (),
        help: str | None = None,
    ) -> NoReturn:
        hint = did_you_mean(wanted, [*known, *(scope.names() if scope else [])]) if wanted else None
        span = self.spec.origin(*at)
        place = None if span else "spec: " + ".".join(map(str, at))
        raise LpcError(Diagnostic(code, text, span, place, help=help or hint))


def residual(stack: StackBuilder, layer: Layer, value: Value, site: Site) -> Value:
    """Input plus the body's output."""
    result = stack.run(layer.body, value, Site(site.path, (*site.spec, "body"), Scope({}, site.scope)))
    if list(map(str, result.fake.shape)) != list(map(str, value.fake.shape)):
        cause = "a residual adds its input to its body's output; make the body keep the shape"
        stack.misfit(f"`{site.path}` cannot add its ends", [value.fake, result.fake], cause, site)
    return stack.merge("add", 0, [value, result], site)


def repeat(stack: StackBuilder, layer: Layer, value: Value, site: Site) -> Value:
    """The body n times over, each copy with its own parameters."""
    for number in range(STRUCTURES["repeat"].bind(layer.op)["n"]):
        inner = site.inner(str(number), "body")
        stack.attach(inner, nn.Module())
        value = stack.run(layer.body, value, inner)
    return value


def branch(stack: StackBuilder, layer: Layer, value: Value, site: Site) -> Value:
    """Several bodies on the same input, joined."""
    arguments = STRUCTURES["branch"].bind(layer.op)
    ends = []
    for name, body in layer.branches.items():
        inner = site.inner(name, "branches", name)
        stack.check_name(name, inner)
        stack.attach(inner, nn.Module())
        ends.append(stack.run(body, value, inner))
    return stack.merge(arguments["merge"], arguments["dim"], ends, site)


def placeholder(graph: fx.Graph, name: str) -> fx.Node:
    """Add an input whose node bears exactly its name: fx renames those that shadow a builtin (`input`)."""
    node = graph.placeholder(name)
    node.name = name
    return node


def _sum(values: Sequence[Any], dim: int) -> Any:
    total = values[0]
    for value in values[1:]:
        total = operator.add(total, value)
    return total


def _product(values: Sequence[Any], dim: int) -> Any:
    product = values[0]
    for value in values[1:]:
        product = operator.mul(product, value)
    return product


MERGE: dict[str, Callable[[Sequence[Any], int], Any]] = {
    "concat": lambda values, dim: torch.cat(tuple(values), dim),
    "add": _sum,
    "multiply": _product,
}

RUNNERS: dict[str, Callable[[StackBuilder, Layer, Value, Site], Value]] = {
    "residual": residual,
    "repeat": repeat,
    "branch": branch,
}

# Attributes that every graph module has; a layer of such a name could not be stored.
RESERVED = frozenset({"training", "meta", "graph", "code", "print_readable", "T_destination"})
