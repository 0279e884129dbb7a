"""Which dtypes cross the boundaries under autocast? One forward pass on fake tensors tells, before any capture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from lpc.compiler.capture.joint import CaptureTarget
from lpc.compiler.capture.tracing import length_hints
from lpc.compiler.state import named_state, run_with_state

Type = tuple[torch.dtype, tuple[int | str, ...]]


def autocast_types(network: fx.GraphModule, types: Mapping[str, Type], target: CaptureTarget) -> dict[str, Type]:
    """Return `types` with the dtypes that the network's values have under the target's autocast."""
    if target.precision == "none":
        return dict(types)
    hints = length_hints({d for _, shape in types.values() for d in shape if isinstance(d, str)})
    recorder = _Recorder(network)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), target.autocast():
        state = {
            name: torch.empty(t.shape, dtype=t.dtype, device=target.device) for name, t in named_state(network).items()
        }
        inputs = [
            _empty(types[node.name], hints, target.device) for node in network.graph.nodes if node.op == "placeholder"
        ]
        run_with_state(recorder, state, inputs)
    return {name: (recorder.dtypes.get(name, dtype), shape) for name, (dtype, shape) in types.items()}


def _empty(kind: Type, hints: Mapping[str, int], device: torch.device) -> Tensor:
    dtype, shape = kind
    return torch.zeros([hints[d] if isinstance(d, str) else d for d in shape], dtype=dtype, device=device)


class _Recorder(fx.Interpreter):
    """Runs a graph and notes the dtype of every tensor by node name."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.dtypes: dict[str, torch.dtype] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.dtypes[n.name] = result.dtype
        return result
