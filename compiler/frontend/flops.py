"""How many floating-point operations does a computation take? Counted while fake tensors run through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lpc.compiler.frontend.fakes import hinted


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations of matrix products, convolutions and attention, as torch's own counter does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def take(self) -> int:
        """Return what was counted since the last call."""
        total, self.total = self.total, 0
        return total

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += hinted(formula(*args, **(kwargs or {}), out_val=result))
        return result
