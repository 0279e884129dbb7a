"""How are shapes known without computing? Fake tensors whose batch and named lengths are symbols.

The one module of the front end that touches torch's private fake-tensor and symbolic-shape interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._pytree import tree_leaves, tree_map_only

from lpc.compiler.environments import is_unmarked, unassuming
from lpc.compiler.frontend.places import is_foreign
from lpc.specs.model import Tensor as TensorSpec

BATCH = "B"

# Sizes that a network must accept besides the one it is traced with.
_OTHER_SIZES = (2, 3, 5, 7, 16, 4096)
_HINTS = (11, 13, 17, 19, 23, 29, 31, 37)
_MOST_KNOWN = 16  # environments


class SymbolicShapes:
    """Symbols for the batch and for every named length, and fake tensors of such shapes.

    `symbols` gives the sympy symbol of every length: `{"s13": "B"}`.
    """

    def __init__(self, inputs: Mapping[str, TensorSpec], hint_batch: int) -> None:
        names = dict.fromkeys(d for t in inputs.values() for d in t.shape if isinstance(d, str) and d != BATCH)
        free = [hint for hint in _HINTS if hint != hint_batch]
        self.hints = {BATCH: hint_batch, **dict(zip(names, free, strict=False))}
        environment, self.sizes = _symbols_of(tuple(self.hints.items()))
        self.mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
        # A symbol that a computation holds fast is replaced by its value wherever it is asked for.
        self.symbols = {str(size.node.expr): name for name, size in self.sizes.items()}
        self._seen = len(self._env.guards)

    @property
    def _env(self) -> ShapeEnv:
        env = self.mode.shape_env
        assert env is not None
        return env

    @contextmanager
    def active(self) -> Iterator[None]:
        """Compute with fake tensors inside the block; real tensors are taken for fakes of their shape.

        The Python dispatcher keeps operators symbolic whose C++ kernels would hold sizes fast: padding.
        """
        with self.mode, enable_python_dispatcher(), unassuming():
            yield

    def batch(self, tensor: TensorSpec) -> Tensor:
        """Return a fake batch of `tensor`."""
        shape = [self.sizes[d] if isinstance(d, str) else d for d in (BATCH, *tensor.shape)]
        with self.mode:
            return torch.empty(shape, dtype=getattr(torch, tensor.dtype))

    def like(self, tensor: Tensor) -> Tensor:
        """Return the fake of a parameter or buffer, with its own static shape."""
        return self.mode.from_tensor(tensor, static_shapes=True)

    def plain(self, value: Any) -> Any:
        """Return a value with every tensor in it cut from autograd."""
        with self.mode:
            return tree_map_only(Tensor, lambda t: t.detach() if t.requires_grad else t, value)

    def fixed_lengths(self) -> list[tuple[str, str]]:
        """Return the lengths that computations since the last call held fast, each with the condition."""
        guards = {guard.expr: guard for guard in self._env.guards[self._seen :]}
        self._seen = len(self._env.guards)
        return [(name, str(e)) for e, guard in guards.items() for name in self.hints if self._fixes(guard, name)]

    def _fixes(self, guard: Any, name: str) -> bool:
        """Does a condition that holds at the hint exclude other sizes?

        Torch compares sizes to choose an algorithm, which excludes nothing; equations and comparisons in the
        network's own code do. Of a named length only a single admitted value is a fault, a bound is none.
        """
        if name not in {self.symbols.get(str(s)) for s in guard.expr.free_symbols}:
            return False
        if not isinstance(guard.expr, sympy.Eq) and not is_foreign(
            str(getattr(guard.sloc.framework_loc, "filename", "<"))
        ):
            return False
        refused = [self._is_false(guard.expr, name, size) for size in _OTHER_SIZES if size != self.hints[name]]
        return any(refused) if name == BATCH else all(refused)

    def _is_false(self, condition: Any, name: str, size: int) -> bool:
        values = {**self.hints, name: size}
        known = {s: values[self.symbols[str(s)]] for s in condition.free_symbols if str(s) in self.symbols}
        return bool(condition.subs(known) == sympy.false)


_known: dict[tuple[tuple[str, int], ...], tuple[ShapeEnv, dict[str, torch.SymInt]]] = {}


def _symbols_of(hints: tuple[tuple[str, int], ...]) -> tuple[ShapeEnv, dict[str, torch.SymInt]]:
    """Return an environment that nothing is assumed of, and its symbol for every length; the last one if it may be."""
    if hints not in _known or not is_unmarked(_known[hints][0]):
        environment = ShapeEnv()
        _known[hints] = environment, {name: _symbol(environment, name, hint) for name, hint in hints}
    _known[hints] = _known.pop(hints)
    while len(_known) > _MOST_KNOWN:
        _known.pop(next(iter(_known)))
    return _known[hints]


def _symbol(environment: ShapeEnv, name: str, hint: int) -> torch.SymInt:
    source = ConstantSource(name)
    symbol = environment.create_symbol(hint, source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
    size = environment.create_symintnode(symbol, hint=hint, source=source)
    assert isinstance(size, torch.SymInt)
    return size


def hinted(size: int | torch.SymInt) -> int:
    """Return the value of a size at the hint batch, without holding the size fast."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def nbytes(value: Any) -> int:
    """Return the bytes of all tensors in a value at the hint batch."""
    return sum(hinted(t.numel()) * t.element_size() for t in tree_leaves(value) if isinstance(t, Tensor))


def shape_text(tensor: Tensor, symbols: Mapping[str, str]) -> str:
    """Return a tensor's shape with the batch as `B`: `[B, 3, 32, 32]`."""
    return f"[{', '.join(size_text(size, symbols) for size in tensor.shape)}]"


def size_text(size: int | torch.SymInt, symbols: Mapping[str, str]) -> str:
    """Return a size as text, named lengths by their names."""
    if not isinstance(size, torch.SymInt):
        return str(size)
    expression = size.node.expr
    return str(expression.subs({s: sympy.Symbol(symbols.get(str(s), str(s))) for s in expression.free_symbols}))


def each_tensor(values: Iterable[tuple[str, Tensor]], make: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return `make(tensor)` by name, the same result for the same tensor, so that tied tensors stay tied."""
    made: dict[int, Tensor] = {}
    return {name: made.setdefault(id(t), make(t)) if id(t) not in made else made[id(t)] for name, t in values}
