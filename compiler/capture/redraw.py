"""How do several runs of a block in one step see the same random draws? The first run's are kept for the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from lpc.compiler.capture.randomness import attention_dropout, kept_scale


class Redraw(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what random operators drew in the first run inside, and gives it to each later run, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: list[tuple[Any, Any]] = []
        self.first = True
        self.count = 0

    @contextmanager
    def run(self) -> Iterator[None]:
        """Count a run."""
        self.count = 0
        with self:
            yield
        self.first = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or attention_dropout(func, args, options) == 0.0:
            return func(*args, **options)
        if self.first:
            result = func(*args, **options)
            self.drawn.append((func, tree_map_only(torch.Tensor, torch.clone, result)))
            return result
        drawer: Any
        index, self.count = self.count, self.count + 1
        drawer, kept = self.drawn[index] if index < len(self.drawn) else (None, None)
        if drawer is not func:  # a fused operator and its rewriting: such a trace is made again without fusing
            return func(*args, **options)
        return args[0].copy_(kept) if drawer._schema.is_mutable else self.again(func, kept, args)

    def again(self, func: Any, kept: Any, args: tuple[Any, ...]) -> Any:
        """Return what an operator gives in a later run, of the same arguments."""
        return kept


class Redrop(Redraw):  # type: ignore[no-untyped-call]
    """The same for runs on different inputs: dropout drops the same elements of another argument."""

    def again(self, func: Any, kept: Any, args: tuple[Any, ...]) -> Any:
        if func is not torch.ops.aten.native_dropout.default:
            return kept
        return args[0] * (kept[1].to(args[0].dtype) * kept_scale(args[1])), kept[1]
