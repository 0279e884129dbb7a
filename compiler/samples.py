"""What does a block read, before anything is captured? Small random batches, under masks that leave numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.tracing import length_hints
from lpc.compiler.state import run_with_state

Types = Mapping[str, tuple[torch.dtype, tuple[int | str, ...]]]
SAMPLES = 3
TRIES = 16  # of masks


def example(kind: tuple[torch.dtype, tuple[int | str, ...]], samples: int = SAMPLES) -> Tensor:
    """Return a small random tensor of a type; of integers zeros, of truth values ones.

    What autocast makes narrower is as wide as the parameters that it meets here.
    """
    dtype, shape = kind
    hints = length_hints({s for s in shape if isinstance(s, str)} | {"B"}, B=samples)
    sizes = [hints[s] if isinstance(s, str) else s for s in shape]
    if dtype.is_floating_point:
        return torch.randn(sizes, dtype=torch.float32 if dtype.itemsize < 4 else dtype)
    return torch.full(sizes, dtype == torch.bool, dtype=dtype)


def examples(
    block: BlockModule, types: Types, state: Mapping[str, Tensor], samples: int = SAMPLES
) -> list[Tensor]:
    """Return examples of all that a block reads: of masks the first, of ones and zeros, under which it makes numbers.

    A mask that hides every position leaves a softmax nothing, and what is computed of that is no number.
    """
    first = [example(types[name], samples) for name in block.inputs]
    return next((found for found in _alternatives(first) if _makes_numbers(block, state, found)), first)


def _alternatives(first: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    masks = [i for i, tensor in enumerate(first) if not tensor.is_floating_point()]
    for flips in itertools.islice(itertools.product((False, True), repeat=len(masks)), TRIES if masks else 0):
        flipped = {i for i, flip in zip(masks, flips, strict=True) if flip}
        yield [(t == 0).to(t.dtype) if i in flipped else t for i, t in enumerate(first)]


def _makes_numbers(block: BlockModule, state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> bool:
    own = {name: tensor.detach().clone() for name, tensor in state.items()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = run_with_state(fx.Interpreter(block.module), own, [t.clone() for t in inputs])
    except (RuntimeError, IndexError):  # an index that is none of a table's rows
        return False
    return not any(bool(output.isnan().any()) for output in outputs)
