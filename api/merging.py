"""What are an adapted network's weights without its adapters? Theirs are added, under the network's own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lpc.compiler.frontend.adapters import merge
from lpc.compiler.frontend.network import build_network
from lpc.plan import Plan


def merge_adapters(plan: Plan, state: Mapping[str, Tensor], *, allow: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the network's parameters and buffers with every adapter added to the weight that it adapts.

    `state` is what a trainer of the plan has, `Trainer.state_dict()`; its heads are left out. The names are those of
    the network without adapters, so that a safetensors file of the result can be its `weights`. `allow` is as in
    `build`.
    Raises LpcError where the network cannot be built again, or peft cannot merge (LoRA on grouped convolutions).
    """
    built = build_network(plan.spec, allow)
    own = built.module.state_dict()
    built.module.load_state_dict({name: tensor for name, tensor in state.items() if name in own}, strict=False)
    merge(plan.spec, built.module, built.adapted)
    return {name: tensor.detach().clone() for name, tensor in built.module.state_dict().items()}
