"""How does a kernel read as a Python function? A line for each operator, under the module that it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lpc.ejecting.imports import imports
from lpc.ejecting.names import Names, identifier
from lpc.ejecting.operators import argument, expression
from lpc.ejecting.refusal import refuse
from lpc.ejecting.writing import document, indented, listed
from lpc.specs.plan.kernel import Bundle, Kernel, Node, TensorType
from lpc.specs.plan.readers import reads

CONSTANT = ("state", "seed")  # roles that a call does not pass
NAMED = ("gradients", "buffers")  # roles whose tensors go by name
RESERVED = ("torch", "weights", "DEVICE")
LONGEST = 95  # of what a `return` has on its line


def block_module(block: str, kernels: Sequence[Kernel]) -> str:
    """Return the module with a block's kernels."""
    functions = [line for kernel in kernels for line in ("", "", *function(kernel))]
    text = f"What does block `{block}` compute? Its kernels, differentiated when the plan was built: no autograd here."
    return document(text, [*imports(functions, ".."), *functions])


def function_name(kernel: Kernel) -> str:
    """Return what a kernel's function is called in its block's module: `local` of `b1.local`."""
    name = kernel.name.removeprefix(f"{kernel.block}.")
    return "evaluate" if name == "eval" else identifier(name)


def form(bundle: Bundle) -> str:
    """Tell how a bundle is passed: tensors by `name`, `one` tensor, or a tuple of `many`."""
    if bundle.role in NAMED:
        return "name"
    return "one" if len(bundle.ports) == 1 else "many"


def function(kernel: Kernel) -> Iterator[str]:
    """Yield the lines of a kernel's function: its state first, then what a call passes, then its results."""
    names = Names(RESERVED)
    passed = [b for b in kernel.arguments if b.role not in CONSTANT]
    parameters = [names.of(b.ports[0].value, b.name) if form(b) == "one" else names.fresh(b.name) for b in passed]
    yield from listed(f"def {function_name(kernel)}(", ["weights", *parameters], "):")
    yield from indented([f'"""Return {", ".join(b.name for b in kernel.results) or "nothing"}."""'])
    yield from indented(_bound(kernel, names, dict(zip([b.name for b in passed], parameters, strict=True))))
    results = {port.value: _wanted(bundle, port.source) for bundle in reversed(kernel.results) for port in bundle.ports}
    read = {value for node in kernel.nodes for value in reads(node)} | set(results)
    place = ""
    for node in kernel.nodes:
        if node.name not in read:
            continue
        if node.origin and node.origin != place:
            yield from indented([f"# {node.origin}"])
        place = node.origin or place
        yield from indented(_line(node, names, results.get(node.name)))
    yield from indented(_returned(kernel, names))


def _bound(kernel: Kernel, names: Names, parameters: dict[str, str]) -> Iterator[str]:
    """Yield the lines that give arguments' tensors their names."""
    for bundle in kernel.arguments:
        if bundle.role == "state":
            for port in bundle.ports:
                yield f'{names.of(port.value, port.source)} = weights["{port.source}"]'
        elif bundle.role == "seed":
            for port in bundle.ports:
                yield f"{names.of(port.value, f'seed_{port.source}')} = {_ones(port.type)}"
        elif form(bundle) != "one" and bundle.ports:
            if bundle.role in NAMED:
                refuse(f"the kernel takes {bundle.role}", f"kernel {kernel.name}")
            unpacked = [names.of(port.value, port.source) for port in bundle.ports]
            yield from listed("(", unpacked, f") = {parameters[bundle.name]}", 1)


def _ones(kind: TensorType) -> str:
    return f"torch.ones({list(kind.shape)}, dtype=torch.{kind.dtype}, device=DEVICE)"


def _wanted(bundle: Bundle, source: str) -> str:
    """Return what a result is called inside the kernel."""
    if bundle.role == "gradients":
        return f"d_{source}"
    return f"new_{source}" if bundle.role == "buffers" else source


def _line(node: Node, names: Names, wanted: str | None) -> list[str]:
    given = [argument(value, names.of) for value in node.args]
    keywords = {name: argument(value, names.of) for name, value in node.kwargs.items()}
    written = expression(node.op, given, keywords)
    target = names.of(node.name, wanted or _short(node.op))
    shape = f"  # [{', '.join(map(str, node.types[0].shape))}]" if len(node.types) == 1 else ""
    if isinstance(written, str):
        return [f"{target} = {written}{shape}"]
    called, arguments = written
    return listed(f"{target} = {called}(", arguments, f"){shape}", 1)


def _short(op: str) -> str:
    """Return what an operator's result is called: `mm` of `aten.mm.default`."""
    return (op.split(".")[1] if "." in op else op).strip("_")


def _returned(kernel: Kernel, names: Names) -> Iterator[str]:
    """Yield the lines that hand the results over."""
    found = []
    for bundle in kernel.results:
        values = [names.of(port.value) for port in bundle.ports]
        if bundle.role in NAMED:
            pairs = [f'"{port.source}": {value}' for port, value in zip(bundle.ports, values, strict=True)]
            found.append(names.fresh(bundle.name))
            yield from listed(f"{found[-1]} = {{", pairs, "}", 1)
        else:
            found.append(values[0] if form(bundle) == "one" else f"({', '.join(values)})")
    yield from listed("return ", found, "") if len(", ".join(found)) < LONGEST else listed("return (", found, ")", 1)
