"""What should a readout's gradient be? Its loss on detached features, in eager mode.

Independent of the plan's sections: features come from the reference step, or from an eager pass of the network in
evaluation mode over the overlaid input.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, fx, nn

from lpc.compiler.build import Build
from lpc.compiler.local_loss import judge
from lpc.compiler.readouts import Probe
from lpc.compiler.reference import Reference
from lpc.compiler.state import named_state, run_with_state

Tensors = Mapping[str, Tensor]


def probed(build: Build, step: Reference, state: Tensors, batch: Tensors) -> dict[str, Tensor]:
    """Return the gradients of all readouts' heads."""
    return {
        name: gradient
        for probe in build.probes.values() if probe.learns
        for name, gradient in _gradients(build, probe, step, state, batch).items()
    }


def _gradients(build: Build, probe: Probe, step: Reference, state: Tensors, batch: Tensors) -> dict[str, Tensor]:
    rows = len(next(iter(batch.values()))) // 2 if probe.halves else None
    seen = {name: value[:rows] for name, value in batch.items()}
    values = _evaluated(build, probe, state, seen, probe.overlays[0]) if probe.overlays else step.values
    feature = probe.joining(*(values[name].detach()[:rows] for name in probe.features["train"]))
    prefix = f"heads.{probe.name}."
    names = [name for name, _ in probe.problem.heads.named_parameters()]
    own = {n: state[f"{prefix}{n}"].detach().clone() for n in probe.problem.heads.state()}
    leaves = [own[name].requires_grad_() for name in names]
    targets = {loss.name: seen[loss.target["train"]] for loss in probe.problem.losses if loss.target}
    probe.problem.heads.train(True)
    judged = judge(
        probe.name, probe.problem.losses, probe.problem.heads, own, feature, targets, lambda site: nullcontext()
    )
    total = torch.stack([one.value for one in judged.values()]).sum()
    found = torch.autograd.grad(total, leaves)
    return {f"{prefix}{name}": gradient for name, gradient in zip(names, found, strict=True)}


def predicted(build: Build, state: Tensors, batch: Tensors) -> Tensor | None:
    """Return what the spec's readout, or goodness by label, predicts; None where the network's output does."""
    term = build.spec.run.predict
    name = str(next(iter((*term.args, *term.kwargs.values())))) if term.name == "readout" else term.name
    if name not in build.probes:
        return None
    probe = build.probes[name]
    passes = [_evaluated(build, probe, state, batch, overlay) for overlay in probe.overlays or (nn.Identity(),)]
    joined = [probe.joining(*(values[n] for n in probe.features["eval"])) for values in passes]
    prefix, heads = f"heads.{name}.", probe.problem.heads
    if not heads:
        return torch.cat(joined, 1)
    heads.train(False)
    return heads.call("", {n: state[f"{prefix}{n}"] for n in heads.state()}, joined[0])


def _evaluated(
    build: Build, probe: Probe, state: Tensors, batch: Tensors, overlay: nn.Module
) -> Mapping[str, Tensor]:
    """Return every node's value in evaluation mode, on the overlaid input."""
    assert build.traced is not None
    network, tied = build.traced.eval, build.traced.tied
    inputs = {**batch, probe.image: overlay(batch[probe.image])}
    own = {n: state[tied.get(n, n)] for n in named_state(network) if tied.get(n, n) in state}
    run = _Keeping(network)
    with torch.no_grad():
        run_with_state(run, own, [inputs[n] for n in build.traced.inputs])
    return run.values


class _Keeping(fx.Interpreter):
    """Runs a graph and keeps every value."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        self.values[n.name] = result
        return result
