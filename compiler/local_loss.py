"""What is a block's local objective made of? Weighted losses, each on the output of a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from lpc.compiler.heads.shared import Shared
from lpc.compiler.losses import METRICS, LossFunction, LossKind, Sight
from lpc.compiler.losses.kind import Metric
from lpc.compiler.state import named_state

# Marks what is computed inside with the name of a site.
Place = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class LocalLoss:
    """One term of a block's objective: `weight * function(its head's output, the feature, its target)`.

    `head` is the key of its head in the block's modules (the block's own head is "", None the identity), `state` that
    of its own parameters and buffers. `target` is the value it compares with, by mode: a batch field, or a tensor that
    the block reads; empty where it compares with nothing.
    """

    name: str
    function: LossFunction
    target: Mapping[str, str]
    weight: float
    options: Mapping[str, Any]
    kind: LossKind
    head: str | None = None
    state: str | None = None

    @property
    def classifies(self) -> bool:
        """Does it have metrics, such as accuracy?"""
        return bool(self.kind.metrics)

    @property
    def has_perplexity(self) -> bool:
        """Is it the negative logarithm of a class's probability?"""
        return self.kind.metrics is METRICS

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Its metrics by name."""
        return self.kind.metrics


@dataclass(frozen=True)
class LocalModules:
    """What a block's losses train and keep besides the network: its head, heads of single losses, losses with state.

    A tensor is named as in `nn.Module`, after its key: `weight` in the block's head (key ""), `sim1.weight` in the head
    of the loss `sim1`; in the plan both follow `heads.BLOCK.`.
    """

    modules: Mapping[str, nn.Module] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.modules)

    @property
    def sources(self) -> dict[str, str]:
        """The tensors that are the network's own: their names here, and there."""
        shared = {key: module for key, module in self.modules.items() if isinstance(module, Shared)}
        return {_named(key, n): there for key, module in shared.items() for n, there in module.sources.items()}

    def source(self, block: str, name: str) -> str:
        """Return a tensor's name in the plan."""
        return self.sources.get(name, f"heads.{block}.{name}")

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all parameters that are trained, by name."""
        for key, module in self.modules.items():
            yield from ((_named(key, name), p) for name, p in module.named_parameters() if p.requires_grad)

    def parameters_by_key(self) -> dict[str, list[str]]:
        """Return the names of all parameters that are trained, by the key of their module."""
        return {
            key: [_named(key, n) for n, p in module.named_parameters() if p.requires_grad]
            for key, module in self.modules.items()
        }

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all buffers of its own by name."""
        shared = self.sources
        for key, module in self.modules.items():
            named = ((_named(key, name), b) for name, b in module.named_buffers())
            yield from ((name, buffer) for name, buffer in named if name not in shared)

    def own(self) -> dict[str, Tensor]:
        """Return all parameters and buffers by name, but for the network's."""
        shared = self.sources
        return {name: tensor for name, tensor in self.state().items() if name not in shared}

    def state(self) -> dict[str, Tensor]:
        """Return all parameters and buffers by name."""
        return {_named(key, name): t for key, module in self.modules.items() for name, t in named_state(module).items()}

    def train(self, mode: bool) -> None:
        """Set all modules to training or evaluation."""
        for module in self.modules.values():
            module.train(mode)

    def call(self, key: str, state: Mapping[str, Tensor], argument: Any) -> Tensor:
        """Run a module on the tensors of `state` (by their names here) in place of its own."""
        module = self.modules[key]
        own = {name: state[_named(key, name)] for name in named_state(module)}
        return functional_call(module, own, (argument,))  # type: ignore[no-any-return]


def _named(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


@dataclass(frozen=True)
class Judged:
    """A loss's value, weighted, and what it saw."""

    value: Tensor
    sight: Sight


def judge(
    block: str,
    losses: Sequence[LocalLoss],
    modules: LocalModules,
    state: Mapping[str, Tensor],
    feature: Tensor,
    targets: Mapping[str, Tensor],
    place: Place,
) -> dict[str, Judged]:
    """Evaluate a block's losses by name. A head that serves several runs once.

    `state` are the modules' tensors by name, `targets` what losses compare with, by loss. Heads run at the place
    `heads.BLOCK` or `heads.BLOCK.LOSS`, losses at `BLOCK.LOSS`: random draws inside are named after these.
    """
    predictions: dict[str | None, Tensor] = {None: feature}
    judged: dict[str, Judged] = {}
    for loss in losses:
        if loss.head not in predictions:
            assert loss.head is not None
            with place(_named(f"heads.{block}", loss.head) if loss.head else f"heads.{block}"):
                predictions[loss.head] = modules.call(loss.head, state, feature)
        sight = Sight(predictions[loss.head], feature, targets.get(loss.name))
        with place(f"{block}.{loss.name}"):
            value = loss.function(sight) if loss.state is None else modules.call(loss.state, state, sight)
            judged[loss.name] = Judged(value if loss.weight == 1.0 else loss.weight * value, sight)
    return judged
