"""How is a Python function turned into a pure ATen graph? With `lengths`, all that touches torch's tracing APIs.

`make_fx` runs the function on fake tensors under functionalization. Batch and other named lengths are
symbolic, everything else is static: weights with symbolic shapes would make tracing ten times slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel

from lpc.compiler.blocks import expression_of
from lpc.compiler.capture.functional import Functional
from lpc.compiler.capture.lengths import Lengths, symbols_of
from lpc.compiler.capture.unread import unread
from lpc.compiler.environments import unassuming

# Every symbolic length gets a hint of its own; equal hints mean the same symbol ("duck shaping").
HINTS = (13, 17, 19, 23, 29, 31, 37, 41)


class HeldLengthError(Exception):
    """A step holds only for the length of that name that it was traced with."""

    def __init__(self, length: str) -> None:
        super().__init__(f"the length `{length}` is held fast")
        self.length = length


@dataclass(frozen=True)
class Argument:
    """A placeholder to trace with: dtype and shape, where a name stands for a symbolic length."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class TracedFunction:
    """The graph, its placeholders by argument name, and the names of its symbols (`s13` -> `B`)."""

    graph: fx.Graph
    symbols: dict[str, str]


def trace_function(
    function: Callable[..., list[Tensor]],
    arguments: Sequence[Argument],
    *,
    device: torch.device,
    portable: bool = False,
) -> TracedFunction:
    """Trace `function(*tensors) -> list of tensors` to a functional ATen graph.

    With `portable`, scaled-dot-product attention is traced as plain mathematics instead of the device's
    own fused operator. Raises HeldLengthError where a length would not stay free.
    """
    hints = length_hints({d for a in arguments for d in a.shape if isinstance(d, str)})
    attention = sdpa_kernel(SDPBackend.MATH) if portable else nullcontext()
    with symbols_of(_lengths(arguments, hints)) as environment:
        mode = FakeTensorMode(shape_env=environment, static_shapes=False)
        fakes = [_fake(mode, a, hints, device, i) for i, a in enumerate(arguments)]
        symbols = _symbols(fakes, arguments)
        # The Python dispatcher keeps operators symbolic whose C++ kernels would hold a length fast, such as padding.
        with mode, attention, enable_python_dispatcher(), _plain_recurrence(), unassuming(), unread():
            graph_module = make_fx(_functional(function), tracing_mode="real")(*fakes)
        _check_lengths(mode, symbols)
    return TracedFunction(graph_module.graph, symbols)


@contextmanager
def _plain_recurrence() -> Iterator[None]:
    """Trace recurrent layers as mathematics, one time step after the other, and not as oneDNN's one operator."""
    backends: Any = torch._C
    before = backends._get_mkldnn_enabled()
    backends._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        backends._set_mkldnn_enabled(before)


@contextmanager
def origin(label: str) -> Iterator[None]:
    """Mark every node traced inside the block with `meta["origin"] = label`, where it has none yet."""
    mode = get_proxy_mode()
    if mode is None:
        yield
        return
    graph = mode.tracer.graph
    last = graph._root.prev
    yield
    node = last.next
    while node is not graph._root:
        node.meta.setdefault("origin", label)
        node = node.next


class LabelledRun(fx.Interpreter):
    """Runs a block's graph and labels what each node traces to with the node's module path and call."""

    def run_node(self, n: fx.Node) -> Any:
        if n.op in ("placeholder", "output"):
            return super().run_node(n)
        with origin(site_name(n.meta.get("path", ""), n.meta.get("call", 0))):
            return super().run_node(n)


def site_name(path: str, call: int) -> str:
    """Return `path`, or `path#n` for its n-th further call."""
    return f"{path}#{call}" if call else path


def length_hints(lengths: Iterable[str], **known: int) -> dict[str, int]:
    """Give every named length a number to trace with; an expression (`B*49`) gets its value under the others'.

    `known` are names whose number is settled.
    """
    expressions = {text: _expression(text) for text in lengths}
    names = sorted({s.name for e in expressions.values() for s in e.free_symbols}, key=lambda n: (n != "B", n))
    values = dict(zip(names, HINTS, strict=False)) | known
    # By symbol: under `subs({"S": 13})` sympy would read the name again, as its own constant.
    return {t: int(e.subs({s: values[s.name] for s in e.free_symbols})) for t, e in expressions.items()}


@cache
def _expression(text: str) -> sympy.Expr:
    """Read a length; the same few come in every block."""
    return sympy.sympify(text, locals=_Symbols())


class _Symbols(dict[str, sympy.Symbol]):
    """Reads every name as a symbol of its own: sympy would take `S`, `N` or `E` for its constants."""

    def __missing__(self, name: str) -> sympy.Symbol:
        if name in ("Integer", "Float", "floor", "Mod", "Symbol", "Function"):
            raise KeyError(name)
        return sympy.Symbol(name, integer=True)


def _lengths(arguments: Sequence[Argument], hints: Mapping[str, int]) -> Lengths:
    """Return every length with the first argument that has it, after which torch names its symbol."""
    first: dict[int, int] = {}
    for index, argument in enumerate(arguments):
        for name in argument.shape:
            if isinstance(name, str):
                first.setdefault(hints[name], index)
    return tuple(first.items())


def _fake(
    mode: FakeTensorMode, argument: Argument, hints: Mapping[str, int], device: torch.device, index: int
) -> Tensor:
    sizes = [hints[d] if isinstance(d, str) else d for d in argument.shape]
    dynamic = [DimDynamic.DUCK if isinstance(d, str) else DimDynamic.STATIC for d in argument.shape]
    context: Any = StatelessSymbolicContext(dynamic_sizes=dynamic, constraint_sizes=[None] * len(dynamic))
    storage = torch.empty(sizes, dtype=argument.dtype, device=device)  # never written: costs address space only
    source = ConstantSource(f"argument{index}")
    return mode.from_tensor(storage, symbolic_context=context, source=source)


def _functional(function: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
    def run(*tensors: Tensor) -> list[Tensor]:
        with Functional():
            results = function(*[FunctionalTensor.to_functional(t) for t in tensors])
            return [_unwrap(r) for r in results]

    return run


def _unwrap(result: Tensor) -> Tensor:
    if not isinstance(result, FunctionalTensor):
        return result
    functional: Any = torch
    functional._sync(result)
    plain: Tensor = functional._from_functional_tensor(result.elem)
    return plain


def _check_lengths(mode: FakeTensorMode, symbols: Mapping[str, str]) -> None:
    """Refuse a step that only holds for the lengths it was traced with."""
    assert mode.shape_env is not None
    fixed = [symbols[str(s)] for s in mode.shape_env.replacements if str(s) in symbols]
    if fixed:
        raise HeldLengthError(fixed[0])


def _symbols(fakes: Sequence[Tensor], arguments: Sequence[Argument]) -> dict[str, str]:
    found: dict[str, str] = {}
    for fake, argument in zip(fakes, arguments, strict=True):
        for size, name in zip(fake.shape, argument.shape, strict=True):
            if isinstance(name, str) and not name.isdigit() and (expression := expression_of(size)) is not None:
                found[str(expression)] = name
    return found
