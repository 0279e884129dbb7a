"""What does a spec not get that it seems to ask for? Parts of a module that no output needs, and second views."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from torch import nn

from lpc.specs.model import Spec

PAIRING = "nt_xent"
ITSELF = "the network itself"


def left_out(module: nn.Module, state: Collection[str], tied: Mapping[str, str]) -> Iterator[str]:
    """Tell of parameters that the network's output does not depend on, by the modules that hold them."""
    unread = [name for name, _ in module.named_parameters() if name not in state and name not in tied.values()]
    owners = dict.fromkeys(name.rpartition(".")[0] or ITSELF for name in unread)
    if owners:
        names = ", ".join(f"`{owner}`" for owner in owners)
        yield f"the output does not need the parameters of {names}, which the plan leaves out"


def single_views(spec: Spec) -> Iterator[str]:
    """Warn of a loss that compares two views of each sample, where data have one."""
    losses = [*spec.loss, *(loss for rule in spec.learn for loss in rule.loss or ())]
    if spec.data is not None and spec.data.views == 1 and any(loss.name == PAIRING for loss in losses):
        yield (
            f"`{PAIRING}` compares the samples of a batch's first half with those of the second as views of the same"
            " ones; with `data.views: 1` they are others"
        )
