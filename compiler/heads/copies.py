"""Which head is made of copies of what follows the block? AugLocal's auxiliary network (Ma et al. 2024).

A copy has fresh weights and reads what the copy before it gives, so that layers are as wide at their input as needed.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from lpc.compiler.heads.shaping import MeanOverPositions
from lpc.compiler.setting import Setting

T = TypeVar("T")

BATCH = 2  # of the tensors without data on which copies are sized
POOLS = (nn.MaxPool2d, nn.AvgPool2d)  # what makes maps smaller instead of a stride


def aug(setting: Setting, options: Mapping[str, Any]) -> nn.Module:
    """Copies of blocks further on, the mean over positions, a linear map (Ma et al. 2024, arXiv 2402.17318)."""
    ahead = setting.ahead
    if ahead is None:
        raise ValueError("it copies the blocks after this one, and a readout is in no row of blocks")
    depth = depth_at(int(options["depth"]), float(options["pyramid"]), ahead.place, ahead.count)
    x = torch.empty(BATCH, *setting.sizes(), device="meta")
    modules: list[nn.Module] = []
    for layer in chosen(ahead.later(), ahead.place, depth):
        modules.append(_Copying(layer, x).module)
        x = _run(modules[-1], x)
    width = x.shape[-1] if x.dim() == 3 else x.shape[1]
    norm = [nn.BatchNorm1d(width)] if depth == 1 else []
    return nn.Sequential(*modules, MeanOverPositions(), *norm, nn.Linear(width, setting.outputs()))


def depth_at(depth: int, pyramid: float, place: int, count: int) -> int:
    """Return the depth for block number `place` of `count`: it falls by `pyramid` of the way to 1."""
    share = pyramid * place / max(count - 1, 1)
    return max(1, round(depth * (1 - share) + share))


def chosen(later: Sequence[T], place: int, depth: int) -> list[T]:
    """Return `depth` of the blocks after number `place`, at equal distances, with the last; all if fewer are left."""
    if len(later) <= depth:
        return list(later)
    return [later[round(place + len(later) * i / depth) - place - 1] for i in range(1, depth + 1)]


class _Copying:
    """Builds the copy of a block that reads one tensor like `x`; `module` is a module of its own."""

    def __init__(self, layer: fx.GraphModule, x: Tensor) -> None:
        self.layer, self.x = layer, x
        self.own: dict[str, nn.Module] = {}
        self.graph = fx.Graph()
        self.nodes: dict[fx.Node, fx.Node] = {}
        self.values: dict[fx.Node, Any] = {}
        inputs = [node for node in layer.graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise ValueError("a block after this one reads several tensors, so that no copy of it can stand alone")
        self.input = inputs[0]
        self.strided = x.dim() == 4 and not any(isinstance(self.target(n), POOLS) for n in layer.graph.nodes)
        for node in layer.graph.nodes:
            self.copy(node)
        self.module: nn.Module = fx.GraphModule(self.own, self.graph)

    def target(self, node: fx.Node) -> nn.Module | None:
        return self.layer.get_submodule(str(node.target)) if node.op == "call_module" else None

    def copy(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.values[node] = self.x
            self.nodes[node] = self.graph.placeholder("x")
        elif node.op == "output":
            self.graph.output(self.nodes[node.all_input_nodes[0]])
        elif node.op == "get_attr":
            raise ValueError("a block after this one has parameters that belong to no layer")
        elif node.op == "call_module":
            self.copy_layer(node)
        else:
            args, kwargs = self.aligned(node), fx.node.map_arg(node.kwargs, lambda n: self.nodes[n])
            self.nodes[node] = self.graph.create_node(node.op, node.target, args, kwargs)
            self.values[node] = self.computed(self.nodes[node])

    def copy_layer(self, node: fx.Node) -> None:
        source, reads = self.target(node), self.values[node.all_input_nodes[0]]
        assert source is not None
        module = fresh(source, reads)
        if self.strided and node.all_input_nodes[0] is self.input and isinstance(module, nn.Conv2d):
            module.stride = (2, 2) if self.wider() else (1, 1)
        self.nodes[node] = self.call(module, *(self.nodes[n] for n in node.all_input_nodes))
        self.values[node] = _run(module, *(self.values[n] for n in node.all_input_nodes))

    def wider(self) -> bool:
        """Has the block more channels at its end than it reads here? Then its maps are half as large."""
        (output,) = (node for node in self.layer.graph.nodes if node.op == "output")
        return bool(output.all_input_nodes[0].meta["val"].shape[1] > self.x.shape[1])

    def call(self, module: nn.Module, *arguments: fx.Node) -> fx.Node:
        name = f"layer{len(self.own)}"
        self.own[name] = module
        return self.graph.call_module(name, arguments)

    def aligned(self, node: fx.Node) -> tuple[Any, ...]:
        """Return a call's arguments; where maps of two shapes are added, what skips passes a 1 x 1 convolution."""
        args: tuple[Any, ...] = fx.node.map_arg(node.args, lambda n: self.nodes[n])
        sources = sorted(node.all_input_nodes, key=lambda n: n is not self.input)
        if node.target not in (operator.add, torch.add) or len(sources) != 2:
            return args
        skip, other = (self.values[n].shape for n in sources)
        if skip == other:
            return args
        if len(skip) != 4 or len(other) != 4:
            raise ValueError(f"a block after this one adds what is then {list(skip[1:])} and {list(other[1:])}")
        stride = max(-(-skip[2] // other[2]), 1)
        convolved = self.call(nn.Conv2d(skip[1], other[1], 1, stride, bias=False), self.nodes[sources[0]])
        projected = self.call(nn.BatchNorm2d(other[1]), convolved)
        return tuple(projected if argument is self.nodes[sources[0]] else argument for argument in args)

    def computed(self, node: fx.Node) -> Any:
        """Run what the graph computes up to a node, without data."""
        graph = copy.deepcopy(self.graph)
        graph.output(next(n for n in graph.nodes if n.name == node.name))
        return _run(fx.GraphModule(self.own, graph), self.x)


def fresh(module: nn.Module, reads: Tensor) -> nn.Module:
    """Return a module like another with weights of its own, for an input like `reads`."""
    make = next((make for kind, make in MAKERS.items() if isinstance(module, kind)), None)
    if make is not None:
        return make(module, reads)
    copied = copy.deepcopy(module)
    for part in copied.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
    return copied


def _conv(old: Any, reads: Tensor) -> nn.Module:
    wide = reads.shape[1]
    groups = wide if old.groups == old.in_channels == old.out_channels else old.groups
    out = wide if groups == wide != 1 else old.out_channels
    bias, mode = old.bias is not None, old.padding_mode
    return nn.Conv2d(wide, out, old.kernel_size, old.stride, old.padding, old.dilation, groups, bias, mode)


def _linear(old: Any, reads: Tensor) -> nn.Module:
    return nn.Linear(reads.shape[-1], old.out_features, bias=old.bias is not None)


def _batch_norm(old: Any, reads: Tensor) -> nn.Module:
    kind = type(old)
    return kind(reads.shape[1], old.eps, old.momentum, old.affine, old.track_running_stats)  # type: ignore[no-any-return]


MAKERS: dict[type[nn.Module], Callable[[Any, Tensor], nn.Module]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}


def _run(module: nn.Module, *inputs: Tensor) -> Any:
    """Return what a module gives on tensors without data."""
    return copy.deepcopy(module).to("meta").train()(*inputs)
