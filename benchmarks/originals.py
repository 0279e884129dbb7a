"""Does a plan compute what the original module computes? Both outputs, in training and in evaluation, same noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import lpc
from lpc.runtime.link import link
from lpc.runtime.noise import Source
from lpc.specs.plan.instructions import Call
from lpc.specs.plan.kernel import Bundle, Kernel, Port

aten = torch.ops.aten


def original(plan: lpc.Plan) -> nn.Module:
    """Make the module that the plan's spec names straight from its package, and give it the plan's weights."""
    package, _, name = str(plan.spec.network.module).partition(":")
    found, options = getattr(import_module(package), name), plan.spec.network.config
    config_class = getattr(found, "config_class", None)  # of transformers: a model takes its options in one object
    module: nn.Module = found(**options) if config_class is None else found(config_class(**options))
    entries = plan.data.program.state.values()
    weights = safetensors.torch.load(bytes(plan.data.weights))
    named = {name: weights[e.name] for e in entries for name in (e.name, *e.aliases)}
    module.load_state_dict({name: named[name] for name in module.state_dict()})
    return module


def draw(plan: lpc.Plan, symbols: Mapping[str, int], step: int = 0) -> dict[str, Tensor]:
    """Return the noise that a trainer of the plan draws in a step; `symbols` are the batch's lengths."""
    cpu, seed = torch.device("cpu"), plan.spec.run.seed
    sites = plan.data.program.noise.items()
    return {
        site: Source(noise, cpu, torch.Generator()).draw(seed, step, 0, symbols) for site, noise in sites
    }


@torch.no_grad()
def original_output(
    module: nn.Module, inputs: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return the module's logits in evaluation, or, with a noise for every random site, in training."""
    module.train(noise is not None)
    with replaying(module, noise or {}):
        result = module(**inputs)
    return getattr(result, "logits", result)


def training_output(plan: lpc.Plan, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
    """Run the plan's training kernels block by block and return what the last one gives its loss."""
    state, values = safetensors.torch.load(bytes(plan.data.weights)), {**batch}
    kernels = plan.data.kernels["native"]
    calls = [i.kernel for i in plan.data.program.step if isinstance(i, Call)]
    forwards = [kernels[name] for name in calls if name.endswith((".local", ".forward"))]
    for kernel in [*forwards[:-1], with_output(forwards[-1])]:
        known = {"state": state, "random": noise, "input": values}
        arguments = [
            torch.ones(()) if bundle.role == "seed" else known[bundle.role][port.source]
            for bundle in kernel.arguments
            for port in bundle.ports
        ]
        results = iter(link(kernel, "cpu")(arguments))
        found = [(bundle.role, port.source, next(results)) for bundle in kernel.results for port in bundle.ports]
        values |= {source: tensor for role, source, tensor in found if role == "output"}
    return values["prediction"]


def with_output(kernel: Kernel) -> Kernel:
    """Return a kernel that also yields the prediction: the value that its loss begins with."""
    loss, *_ = [p for b in kernel.results if b.role == "loss" for p in b.ports]
    label = f"{kernel.block}.{loss.source}"
    first = next(n for n in kernel.nodes if n.origin == label and n.op.startswith("aten.") and "sym_size" not in n.op)
    port = Port(first.args[0]["ref"], loss.type, "prediction")  # type: ignore[index, call-overload, arg-type]
    return replace(kernel, results=(*kernel.results, Bundle("prediction", "output", (port,))))


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference over the largest value; infinite where the shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max())


@contextmanager
def replaying(module: nn.Module, noise: Mapping[str, Tensor]) -> Iterator[None]:
    """Let every random operator inside the block take its draw from `noise`, by the path of the module it is in."""
    replay = _Replay(noise)
    hooks = []
    for path, part in module.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda *_, path=path: replay.enter(path)))
        hooks.append(part.register_forward_hook(lambda *_: replay.leave()))
    try:
        with replay:
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Replay(TorchDispatchMode):
    """Draws by site: `path`, `path#n` for its n-th further call, `:k` for the k-th further draw in one call."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise
        self.stack: list[str] = []
        self.calls: Counter[str] = Counter()
        self.draws: Counter[str] = Counter()

    def enter(self, path: str) -> None:
        count = self.calls[path]
        self.calls[path] += 1
        self.stack.append(f"{path}#{count}" if count else path)

    def leave(self) -> None:
        self.stack.pop()

    def draw(self) -> Tensor:
        site = self.stack[-1]
        count = self.draws[site]
        self.draws[site] += 1
        return self.noise[f"{site}:{count}" if count else site]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.bernoulli_.float:
            return args[0].copy_(self.draw())
        drops = any(a.name == "dropout_p" for a in func._schema.arguments)
        if torch.Tag.nondeterministic_seeded in func.tags and not drops:
            raise ValueError(f"{func} draws in a way that cannot be replayed")
        return func(*args, **(kwargs or {}))
