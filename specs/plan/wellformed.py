"""Is a kernel sound in itself? Names defined once and before use, operators and arguments of known forms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from lpc.specs.diagnostics import Diagnostic, did_you_mean
from lpc.specs.plan.kernel import Json, Kernel, Node
from lpc.specs.plan.operators import BUILTINS, is_allowed, limits, table

# What a one-key object in a node's arguments may be; `ref` is handled apart.
FORMS = frozenset({"dtype", "device", "layout", "memory_format", "float"})


def check_kernel(kernel: Kernel) -> list[Diagnostic]:
    """Return everything that is wrong inside a kernel, in order (0530 to 0534)."""
    problems: list[Diagnostic] = []
    known: set[str] = set()
    for port in chain.from_iterable(bundle.ports for bundle in kernel.arguments):
        problems += _define(kernel, port.value, known)
    for node in kernel.nodes:
        place = _place(kernel, node)
        problems += _check_operator(node, place)
        for name in references([*node.args, *node.kwargs.values()]):
            if name not in known:
                message = (
                    f"node `{node.name}` of kernel `{kernel.name}` reads `{name}`, not defined before it"
                )
                problems.append(Diagnostic("0532", message, place=place))
        problems += _define(kernel, node.name, known)
    for bundle in kernel.results:
        for port in bundle.ports:
            if port.value not in known:
                message = (
                    f"result `{bundle.name}` of kernel `{kernel.name}` is `{port.value}`: no node computes it"
                )
                problems.append(Diagnostic("0534", message, place=f"kernel {kernel.name}"))
    return problems


def references(value: Json) -> Iterator[str]:
    """Yield the names of the values that an argument reads, in order."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict) and isinstance(name := value.get("ref"), str):
        yield name


def _place(kernel: Kernel, node: Node) -> str:
    origin = f" ({node.origin})" if node.origin else ""
    return f"kernel {kernel.name}, node {node.name}{origin}"


def _define(kernel: Kernel, name: str, known: set[str]) -> list[Diagnostic]:
    if name not in known:
        known.add(name)
        return []
    message = f"`{name}` is defined twice in kernel `{kernel.name}`"
    return [Diagnostic("0533", message, place=f"kernel {kernel.name}")]


def _check_operator(node: Node, place: str) -> list[Diagnostic]:
    if not is_allowed(node.op):
        message = (
            f"node `{node.name}` uses the operator `{node.op}`, which is not on the list of allowed ones"
        )
        near = did_you_mean(node.op, BUILTINS | table().keys())
        return [Diagnostic("0530", message, place=place, notes=(near,) if near else ())]
    problems = [
        _forbidden(node, problem, place) for value in _values(node) for problem in _malformed(value, node)
    ]
    for name, (position, value) in limits(node.op).pinned.items():
        given = node.args[position] if position < len(node.args) else node.kwargs.get(name, value)
        if type(given) not in (int, float) or given != value:
            problems.append(_forbidden(node, f"`{name}` must be {value}, found {given!r:.40}", place))
    return problems


def _forbidden(node: Node, message: str, place: str) -> Diagnostic:
    return Diagnostic("0531", f"an argument of `{node.op}` in node `{node.name}`: {message}", place=place)


def _values(node: Node) -> Iterator[Json]:
    yield from node.args
    yield from node.kwargs.values()


def _malformed(value: Json, node: Node) -> Iterator[str]:
    """Yield what is wrong with one argument: a string from no closed set, or an object of unknown form."""
    if isinstance(value, list):
        for item in value:
            yield from _malformed(item, node)
    elif isinstance(value, str):
        if value not in limits(node.op).strings:
            yield f"the string {value!r:.40} is not one that the operator takes"
    elif isinstance(value, dict) and not _is_form(value):
        yield f"{value!r:.60} has no meaning"


def _is_form(value: dict[str, Json]) -> bool:
    if len(value) != 1:
        return False
    ((kind, name),) = value.items()
    return isinstance(name, str) and (kind == "ref" or kind in FORMS)
