"""How many bytes of tensors are alive? A dispatch mode that follows every storage from its birth to its death."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages made inside the block; `peak` is the most that lived at once.

    Storages that existed before are not counted, other than those of `resident`, which are counted from the
    start, until they die. Memory that an operator uses for itself and gives back is not seen.
    """

    def __init__(self, resident: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self.known: set[int] = set()
        for tensor in resident:
            self._follow(tensor, counted=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            self._follow(leaf, counted=False)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            self._follow(leaf, counted=True)
        return result

    def _follow(self, value: Any, counted: bool) -> None:
        """Take note of a tensor's storage that was not seen before, until it dies: its address may come again."""
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size = storage.nbytes() if counted else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.live -= size
        self.known.discard(key)
