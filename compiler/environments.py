"""When may an environment of symbols serve another computation? As long as nothing that it was used for marked it.

An environment of torch keeps what fake tensors of its symbols gave for an operator, which is most of the work of the
next computation. It also keeps what a computation has assumed (`B < 16`), and that would decide in the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv

MOST_SYMBOLS = 200  # of one environment: counters of batch norm have one each
MOST_KEPT = 20_000  # results of operators in one environment, about a kilobyte each


def is_unmarked(environment: ShapeEnv) -> bool:
    """Has nothing been assumed of the symbols, and is there room for more?"""
    assumed = (environment.guards, environment.axioms, environment.replacements, environment.deferred_runtime_asserts)
    if any(assumed) or environment.divisible or environment.unbacked_symint_counter:
        return False
    return len(environment.var_to_range) < MOST_SYMBOLS and len(environment.fake_tensor_cache) < MOST_KEPT


@contextmanager
def unassuming() -> Iterator[None]:
    """Let torch look at lengths, inside the block, to choose how it would convolve, and assume nothing of them.

    It is a matter of speed and of the layout in memory, and would mark the environment of every convolution.
    """
    torch_: Any = torch._C
    plain = torch_._select_conv_backend

    def select(*args: Any, **kwargs: Any) -> Any:
        shape = (args[0] if args else kwargs["input"]).shape
        environment = next((size.node.shape_env for size in shape if isinstance(size, torch.SymInt)), None)
        with environment.suppress_guards() if environment is not None else nullcontext():
            return plain(*args, **kwargs)

    torch_._select_conv_backend = select
    try:
        yield
    finally:
        torch_._select_conv_backend = plain
