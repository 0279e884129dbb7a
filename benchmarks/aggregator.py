"""What does a credit for each patch and group cost? lpc's, without copies, against the replicated aggregator.

    python benchmarks/aggregator.py

Both give the derivative of every unit's loss along one direction: [samples, patches, groups]. The naive one makes a
copy of the features for each unit, in which all else is held fixed, and takes the derivative of the linear head and the
cross entropy on every copy; lpc's multiplies the derivative of the block's own loss with the tangent and sums over each
unit. Times are medians; bytes are the peak of what tensors hold beyond what was there before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from lpc.compiler.units import UnitLayout

# samples, patches, groups, channels of a group, classes
SIZES = {"M/8/16": (8, 64, 16, 16, 10), "L/8/64": (8, 64, 64, 32, 10)}
REPEATS = 15

Way = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def naive(y: Tensor, moved: Tensor, weight: Tensor, bias: Tensor, label: Tensor) -> Tensor:
    """Copy for each group (a patch enters the mean alike), and differentiate every copy's loss by hand."""
    count, patches, groups, _ = y.shape
    mean = y.mean(1)
    own = torch.eye(groups, dtype=y.dtype)[:, :, None]
    copies = mean[:, None, None].expand(count, patches, groups, *mean.shape[1:]).flatten(4)
    tangents = (moved[:, :, None] * own / patches).contiguous()
    logits = copies.flatten(3) @ weight + bias
    directions = tangents.flatten(3) @ weight
    error = logits.softmax(-1) - F.one_hot(label, weight.shape[1])[:, None, None]
    return (error * directions).sum(-1)


def credit(y: Tensor, moved: Tensor, weight: Tensor, bias: Tensor, label: Tensor) -> Tensor:
    """What a block's step does (lpc/compiler/capture/forward.py)."""
    feature = y.detach().requires_grad_()
    loss = F.cross_entropy(feature.mean(1).flatten(1) @ weight + bias, label, reduction="sum")
    (derivative,) = torch.autograd.grad(loss, feature)
    return UnitLayout((y.shape[1],), 1, y.shape[2], True).credit(moved * derivative)


class Held(TorchDispatchMode):
    """Counts the bytes of storages made inside that are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = WeakIdKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in given:
                self.alive[made.untyped_storage()] = made.untyped_storage().nbytes()
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def seconds(way: Way, values: tuple[Tensor, ...]) -> float:
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        way(*values)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def peak(way: Way, values: tuple[Tensor, ...]) -> int:
    with Held() as held:
        way(*values)
    return held.peak


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| size | samples, patches, groups, channels, classes | way | peak bytes | ms |")
    print("|---|---|---|---|---|")
    for name, (count, patches, groups, channels, classes) in SIZES.items():
        shape = count, patches, groups, channels
        values = (torch.randn(shape), torch.randn(shape), torch.randn(groups * channels, classes),
                  torch.randn(classes), torch.randint(0, classes, (count,)))  # fmt: skip
        torch.testing.assert_close(credit(*values), naive(*values), rtol=1e-3, atol=1e-4)
        held = {way.__name__: peak(way, values) for way in (naive, credit)}
        took = {way.__name__: seconds(way, values) for way in (naive, credit)}
        for way in held:
            print(f"| {name} | {(*shape, classes)} | {way} | {held[way]:,} | {1000 * took[way]:.2f} |")
        ratios = [one["naive"] / one["credit"] for one in (held, took)]
        print(f"| {name} | | naive / credit | {ratios[0]:.1f} | {ratios[1]:.1f} |")


if __name__ == "__main__":
    main()
