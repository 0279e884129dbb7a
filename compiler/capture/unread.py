"""What does torch write down of every traced node that no kernel is made of? Inside a trace, none of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch.fx import _lazy_graph_module
from torch.fx.experimental import proxy_tensor

# Strides that Inductor would ask for, and a second account of each tensor's type beside the fake tensor itself.
UNREAD: dict[str, Callable[..., Any]] = {
    "_extract_tensor_metadata": lambda *_, **__: None,
    "_should_save_eager_input_vals": lambda *_, **__: False,
}


@contextmanager
def unread() -> Iterator[None]:
    """Trace without notes on nodes that nothing reads, nor Python code of the graph; a torch without them, as it is."""
    with ExitStack() as stack:
        for name, instead in UNREAD.items():
            if hasattr(proxy_tensor, name):
                stack.enter_context(patch.object(proxy_tensor, name, instead))
        if hasattr(_lazy_graph_module, "_use_lazy_graph_module"):
            stack.enter_context(_lazy_graph_module._use_lazy_graph_module(True))
        yield
