"""Which graph does a network compute? The first rung that holds: layers, symbolic tracing, export."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from lpc.compiler.frontend.adapters import ensure_called
from lpc.compiler.frontend.annotate import annotate, annotate_alike
from lpc.compiler.frontend.exported import ExportError, trace_exported
from lpc.compiler.frontend.indifferent import same_graphs
from lpc.compiler.frontend.modes import in_mode, set_mode
from lpc.compiler.frontend.network import BuiltNetwork, hint_batch
from lpc.compiler.frontend.outputs import NoOutputError
from lpc.compiler.frontend.places import defined_at, first_line, raised_at
from lpc.compiler.frontend.quiet import quiet
from lpc.compiler.frontend.symbolic import Obstacle, obstacle, trace_symbolic
from lpc.compiler.frontend.tidy import remove_dead, split_fetches
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec


@dataclass(frozen=True)
class Traced:
    """A network as fx graphs for training and evaluation, each a module that is in its mode.

    Both share all tensors with the network, under its own names. `rung` is `layers`, `fx` or `export`;
    `obstacles` tells what could not be traced, where, why, and what was done about it; `inputs` are the
    graphs' placeholders in order; `tied` maps further names of a parameter to its first one.
    """

    train: fx.GraphModule
    eval: fx.GraphModule
    rung: str
    obstacles: tuple[str, ...]
    inputs: tuple[str, ...]
    tied: dict[str, str]


@dataclass
class Modes:
    """The graphs of both modes, not yet described, and the constants that they fetch besides the state."""

    graphs: dict[bool, fx.Graph]
    obstacles: dict[str, Obstacle] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)


def trace(network: BuiltNetwork, spec: Spec) -> Traced:
    """Trace a network in train and in eval mode and describe every node (see `annotate`).

    Raises LpcError if no rung holds, or the network fails on its inputs or fixes its batch size.
    """
    rung, modes = _climb(network, spec)
    made = {}
    for training, graph in modes.graphs.items():
        _close_layers(graph, network.adapted)
        made[training] = assemble(network.module, graph, training, modes.constants)
        if not training and same_graphs(made[True], made[False]):
            annotate_alike(made[False], made[True])
        else:
            annotate(made[training], network, spec, hint_batch(spec))
        made[training].meta["adapted"] = frozenset(network.adapted)
    ensure_called(spec, network.module, made[True], network.adapted)
    return Traced(
        train=made[True],
        eval=made[False],
        rung=rung,
        obstacles=tuple(map(str, modes.obstacles.values())),
        inputs=tuple(network.inputs),
        tied=tied_names(network.module),
    )


def _close_layers(graph: fx.Graph, adapted: Collection[str]) -> None:
    """Give every node inside an adapted layer the layer's own path, so that it is selected and cut as one layer."""
    for node in graph.nodes if adapted else ():
        parts = str(node.meta.get("path", "")).split(".")
        above = (".".join(parts[:depth]) for depth in range(1, len(parts)))
        node.meta["path"] = next((path for path in above if path in adapted), node.meta.get("path", ""))


def tied_names(module: nn.Module) -> dict[str, str]:
    """Map every further name of a parameter to its first one."""
    first = {id(p): name for name, p in module.named_parameters()}
    named = module.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in named if first[id(p)] != name}


def assemble(module: nn.Module, graph: fx.Graph, training: bool, constants: Mapping[str, Tensor]) -> fx.GraphModule:
    """Return a graph module in the given mode that shares the network's tensors, tidied."""
    view = in_mode(module, training)
    view.__dict__.update(constants)
    split_fetches(graph)
    remove_dead(graph, view)
    made = fx.GraphModule(view, graph, type(module).__name__)
    _forget(made, set(module.state_dict()))
    made.training = training
    return made


def _climb(network: BuiltNetwork, spec: Spec) -> tuple[str, Modes]:
    """Return the first rung that holds with its graphs.

    Symbolic tracing that leaves most of the network in one opaque leaf could not be cut: export comes first
    then, and the leaf is kept only if export fails.
    """
    if network.native:
        return "layers", by_layers(network)
    symbolic, stopped = _attempt(by_symbols, network, spec)
    opaque = symbolic.obstacles if symbolic is not None else {}
    coarse = [o for path, o in opaque.items() if _is_bulk(network.module, path)]
    if symbolic is not None and not coarse:
        return "fx", symbolic
    exported, refused = _attempt(by_export, network, spec)
    if exported is not None:
        whole = "exported whole by torch.export"
        exported.obstacles = {o.path: replace(o, remedy=whole) for o in coarse}
        if stopped is not None:
            exported.obstacles[""] = obstacle(network.module, "", stopped, whole)
        return "export", exported
    assert refused is not None
    if symbolic is None:
        raise _untraceable(spec, network, stopped, refused) from refused
    symbolic.obstacles[""] = obstacle(network.module, "", refused, "not exported")
    return "fx", symbolic


def _attempt(
    rung: Callable[[BuiltNetwork], Modes], network: BuiltNetwork, spec: Spec
) -> tuple[Modes | None, Exception | None]:
    """Try a rung; return its graphs or what stopped it."""
    try:
        return rung(network), None
    except NoOutputError as error:
        raise _no_output(spec, network, error) from error
    except Exception as error:
        return None, error


def by_layers(network: BuiltNetwork) -> Modes:
    """Take the graph that the layers were built with; modes differ in the modules only."""
    assert isinstance(network.module, fx.GraphModule)
    return Modes({training: _copy(network.module.graph) for training in (True, False)})


def by_symbols(network: BuiltNetwork) -> Modes:
    """Trace symbolically in both modes."""
    modes = Modes({})
    for training in (True, False):
        with set_mode(network.module, training), quiet():
            found = trace_symbolic(network)
        modes.graphs[training] = found.graph
        modes.obstacles |= found.obstacles
        made = {name: network.module.__dict__.pop(name) for name in found.constants}
        _rename(found.graph, {n: t for n, t in made.items() if isinstance(t, Tensor)}, modes.constants)
    return modes


def by_export(network: BuiltNetwork) -> Modes:
    """Export in both modes."""
    modes = Modes({})
    for training in (True, False):
        with set_mode(network.module, training):
            found = trace_exported(network)
        modes.graphs[training] = found.graph
        _rename(found.graph, found.constants, modes.constants)
    return modes


def _rename(graph: fx.Graph, made: Mapping[str, Tensor], constants: dict[str, Tensor]) -> None:
    """Name constants alike in both modes: one name for one value."""
    names = {}
    for name, tensor in made.items():
        same = [n for n, t in constants.items() if t.dtype == tensor.dtype and torch.equal(t, tensor)]
        names[name] = same[0] if same else f"constant_{len(constants)}"
        constants.setdefault(names[name], tensor)
    for node in graph.nodes:
        if node.op == "get_attr" and node.target in names:
            node.target = names[str(node.target)]


def _is_bulk(module: nn.Module, path: str) -> bool:
    """Does an opaque leaf hold most of the parameters, in more than one module that could be told apart?"""
    leaf = module.get_submodule(path)
    parts = [part for part in leaf.modules() if any(True for _ in part.parameters(recurse=False))]
    return len(parts) > 1 and 2 * _size(leaf) > _size(module)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _copy(graph: fx.Graph) -> fx.Graph:
    copy = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    result = copy.graph_copy(graph, copies)
    copy.output(result)
    for old, new in copies.items():
        new.name = old.name
    return copy


def _forget(module: fx.GraphModule, persistent: set[str]) -> None:
    """Leave out of the state dict what the network leaves out of its own."""
    for name, _ in list(module.named_buffers(remove_duplicate=False)):
        owner, _, last = name.rpartition(".")
        if name not in persistent:
            module.get_submodule(owner)._non_persistent_buffers_set.add(last)


REFUSALS = {
    "0209": "can be traced neither symbolically nor by torch.export",
    "0211": "fixes a length that must stay free",
    "0212": "has a custom autograd function and a forward that cannot be traced symbolically",
    "0214": "draws random numbers outside the graph",
}


def _untraceable(spec: Spec, network: BuiltNetwork, symbolic: Exception | None, error: Exception) -> LpcError:
    notes = [f"torch.export: {_cause(error)}"]
    if symbolic is not None:
        notes.insert(0, f"torch.fx: {first_line(symbolic)} ({raised_at(symbolic) or 'no line known'})")
    code = error.code if isinstance(error, ExportError) else "0211" if _fixes_length(error) else "0209"
    place = raised_at(error) or defined_at(network.module)
    return _problem(spec, code, f"`{type(network.module).__name__}` {REFUSALS[code]}", place, notes)


def _cause(error: Exception) -> str:
    """Return what torch.export says in words: its messages begin with a list of constraints."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "specializ" in line or "inferred to be a constant" in line]
    return (telling[0] if telling else first_line(error))[:400]


def _fixes_length(error: Exception) -> bool:
    return "inferred to be a constant" in str(error) or "specialized" in str(error)


def _no_output(spec: Spec, network: BuiltNetwork, error: NoOutputError) -> LpcError:
    text = f"the output of `{type(network.module).__name__}` is not found: {error}"
    return _problem(spec, "0213", text, None, [], "output")


def _problem(spec: Spec, code: str, text: str, place: str | None, notes: list[str], key: str | None = None) -> LpcError:
    path = key or ("zoo" if spec.network.zoo else "module")
    span = spec.origin("network", path)
    if span is not None and place is not None:
        notes = [*notes, f"at {place}"]
    place = None if span is not None else place or f"spec: network.{path}"
    return LpcError(Diagnostic(code, text, span, place, tuple(notes)))
