"""How does a graph run on other weights than its own? A module's tensors by name, and a run with some swapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.func import functional_call


def named_state(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, tied ones under each of their names."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(module.named_buffers(remove_duplicate=False))}


def run_with_state(run: fx.Interpreter, state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Any:
    """Run an interpreter's graph on `inputs` with the tensors of `state` in place of the module's own."""
    return functional_call(_Holder(run), {f"network.{name}": t for name, t in state.items()}, tuple(inputs))


class _Holder(nn.Module):
    """`functional_call` swaps tensors inside a module and calls it; this one calls the interpreter."""

    def __init__(self, run: fx.Interpreter) -> None:
        super().__init__()
        self.run = run
        self.network = run.module

    def forward(self, *inputs: Tensor) -> Any:
        return self.run.run(*inputs)
