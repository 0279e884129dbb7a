"""What is a local step whose errors go back by other weights? Feedback alignment, for every linear operator.

An operator with a trained weight is taken twice: with its own weights, on inputs off the tape, for its value and the
gradient of its weights; and with backward weights, for the derivative by its inputs alone. This holds for whatever is
linear in its input: linear maps, convolutions, products with a weight. Sources: Lillicrap et al. 2016 (random);
Liao, Leibo and Poggio 2016 (signs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from lpc.compiler.capture.joint import Slot, Step, state_slot
from lpc.compiler.capture.tracing import LabelledRun
from lpc.compiler.capture.types import dtype_name
from lpc.compiler.feedback import backward_size, backward_weight
from lpc.compiler.frontend.modules import MaskedLinear
from lpc.compiler.local_loss import Judged
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Noise

aten = torch.ops.aten

LINEAR = frozenset(
    {F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
    | {torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum}
    | {Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm}
    | {aten.linear.default, aten.matmul.default, aten.mm.default, aten.bmm.default, aten.addmm.default}
    | {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default, aten.einsum.default}
)

Back = Callable[[Tensor], Tensor]


@dataclass
class AlignedStep(Step):
    """A block's step in which backward weights replace the weights on the way back."""

    widths: Mapping[str, float] = field(default_factory=dict)

    def collect(self, mode: str) -> None:
        super().collect(mode)
        self.ensure_linear()
        self.widths = {name: backward_size(weight, self.scale) for name, weight in self.weights().items()}
        for name, weight in self.weights().items():
            if self.kind in ("random", "frsf"):
                self.keep(f"feedback.{name}", backward_weight(weight, name, self.seed, self.scale))
            if self.kind == "brsf":
                noise = self.noise(name, weight)
                self.arguments.add(_noise_slot(noise), weight.dtype, tuple(weight.shape))
                self.drawn[noise.site] = noise

    def ensure_linear(self) -> None:
        """Raise LpcError (0420) for a layer whose way back is its own."""
        called = {str(n.target) for n in self.block.module.graph.nodes if n.op == "call_module"}
        masked = next((p for p in sorted(called) if isinstance(self.block.module.get_submodule(p), MaskedLinear)), None)
        if masked is not None:
            text = f"`{masked}` has a way back of its own, which `feedback_alignment` would replace"
            help = "take `linear`, or another estimator"
            raise LpcError(Diagnostic("0420", text, help=help))

    @property
    def kind(self) -> str:
        return str(self.problem.estimator.options["kind"])

    @property
    def scale(self) -> float:
        return float(self.problem.estimator.options["scale"])

    @property
    def seed(self) -> int:
        return self.problem.estimator.seed

    def weights(self) -> dict[str, Tensor]:
        """Return all weights of the block and its heads, by their names outside."""
        found = {self.aliases.get(n, n): t for n, t in self.block.module.named_parameters(remove_duplicate=False)}
        found |= {self.head_state(n).source: t for n, t in self.problem.heads.named_parameters()}
        return {name: t for name, t in found.items() if t.dim() > 1}

    @staticmethod
    def noise(name: str, weight: Tensor) -> Noise:
        kind = TensorType(dtype_name(weight.dtype), tuple(weight.shape))
        return Noise(f"feedback.{name}", "normal", (0.0, 1.0), kind)

    def interpreter(self, bound: Mapping[Slot, Tensor]) -> LabelledRun:
        return _AlignedRun(self.block.module, self.mode(bound))

    def judge(self, feature: Tensor, bound: dict[Slot, Tensor], mode: str) -> dict[str, Judged]:
        with self.mode(bound):
            return super().judge(feature, bound, mode)

    def mode(self, bound: Mapping[Slot, Tensor]) -> Aligned:
        """Return what replaces operators on the weights of this run."""
        backs = {id(bound[state_slot(n)]): self.back(n, t, bound) for n, t in self.weights().items()}
        return Aligned(backs, {id(t) for slot, t in bound.items() if slot.role == "state"})

    def back(self, name: str, weight: Tensor, bound: Mapping[Slot, Tensor]) -> Back:
        """Return the function from a weight to the one that its errors go back by."""
        if self.kind == "random":
            fixed = bound[state_slot(f"feedback.{name}")]
            return lambda w: fixed
        if self.kind == "frsf":
            size = bound[state_slot(f"feedback.{name}")].abs()
            return lambda w: size * torch.sign(w.detach())
        width = self.widths[name]
        if self.kind == "usf":
            return lambda w: width * torch.sign(w.detach())
        drawn = bound[_noise_slot(self.noise(name, weight))].abs()
        return lambda w: width * drawn * torch.sign(w.detach())


def _noise_slot(noise: Noise) -> Slot:
    return Slot("random", f"noise_{noise.site}", noise.site)


class _AlignedRun(LabelledRun):
    """Runs a block's graph with its linear operators replaced; exported graphs call operators that no mode sees."""

    def __init__(self, module: fx.GraphModule, mode: Aligned) -> None:
        super().__init__(module)
        self.mode = mode

    def run_node(self, n: fx.Node) -> Any:
        with self.mode:
            return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, torch._ops.OpOverload):
            return self.mode.apply(target, args, kwargs)
        return super().call_function(target, args, kwargs)


class Aligned(TorchFunctionMode):
    """Replaces linear operators on weights: `backs` by the weight's identity; `state` are all tensors of the state."""

    def __init__(self, backs: Mapping[int, Back], state: set[int]) -> None:
        super().__init__()
        self.backs, self.state = backs, state

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.apply(func, args, kwargs or {})

    def apply(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a function, a linear one on a weight with other weights on its way back."""
        weights: list[Tensor] = []
        inputs: list[Tensor] = []

        def sort(value: Any) -> Any:
            if isinstance(value, Tensor):
                (weights if id(value) in self.backs else inputs).append(value)
            return value

        if func in LINEAR:
            tree_map(sort, (args, kwargs))
        moving = [x for x in inputs if x.requires_grad and id(x) not in self.state]
        if not weights or not moving:
            return func(*args, **kwargs)
        join: Callable[[Tensor, Tensor], Tensor] = _Joined.apply
        return join(self.forwards(func, args, kwargs), self.backwards(func, args, kwargs))

    def forwards(self, func: Any, args: Any, kwargs: Any) -> Any:
        def fixed(value: Any) -> Any:
            return value.detach() if isinstance(value, Tensor) and id(value) not in self.state else value

        own_args, own_kwargs = tree_map(fixed, (args, kwargs))
        return func(*own_args, **own_kwargs)

    def backwards(self, func: Any, args: Any, kwargs: Any) -> Any:
        def swapped(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            back = self.backs.get(id(value))
            if back is not None:
                return back(value)
            return value.detach() if id(value) in self.state else value

        own_args, own_kwargs = tree_map(swapped, (args, kwargs))
        return func(*own_args, **own_kwargs)


class _Joined(torch.autograd.Function):
    """The value of the first tensor, with the derivatives of both."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, way_back: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        return cotangent, cotangent
