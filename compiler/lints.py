"""Which parts of a network do an estimator no good? Told when it is built, by name, before anything is trained.

Noise on a parameter that no loss can see is variance and nothing else, and backward weights find nothing in it. All is
found by running the network: no rule knows an operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functional_call

from lpc.compiler.capture.duals import DualRun, Tangents
from lpc.compiler.capture.sites import NoiseSite, noise_sites, norm_calls
from lpc.compiler.capture.types import tensor_types
from lpc.compiler.estimator import ALIGNMENT, BACKPROP
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.localize import LocalProblem
from lpc.compiler.objective import output_node
from lpc.compiler.rehearsal import Rehearsal, sampled
from lpc.compiler.state import named_state, run_with_state

NEGLIGIBLE = 1e-10


def of_block(rehearsed: Rehearsal) -> list[str]:
    """Warn of norms whose result is constant, or else of biases that a norm takes away; inside `rehearsing`."""
    found = list(_constant_norms(rehearsed)) or list(_dead_biases(rehearsed))
    return [f"block {rehearsed.problem.block}: {text}" for text in found]


# Norms of single numbers


def _constant_norms(rehearsed: Rehearsal) -> Iterator[str]:
    """Norms that give the same for any two inputs, whatever their scale is."""
    single = [first for first, last in norm_calls(rehearsed.block.module.graph) if first is last]
    for node in single:
        read = node.args[0] if node.args else None
        if not isinstance(read, fx.Node) or not _stands_alone(node):
            continue
        one, other = (_normed(rehearsed, node, sampled(rehearsed.types, read.name)) for _ in range(2))
        if torch.allclose(one, other, rtol=0.0, atol=NEGLIGIBLE):
            name = node.meta.get("path") or node.name
            yield f"`{name}` normalises single numbers: whatever it reads, it gives the same"


def _stands_alone(node: fx.Node) -> bool:
    """Does a node read one value, and else only parameters, buffers and constants?"""
    return node.op in ("call_module", "call_function") and all(n.op == "get_attr" for n in node.all_input_nodes[1:])


def _normed(rehearsed: Rehearsal, node: fx.Node, x: Tensor) -> Tensor:
    """Run a norm on other numbers, with ones for all that it holds."""
    state = {name: torch.ones_like(t) for name, t in rehearsed.state.items()}
    if node.op == "call_module":
        own = {n.removeprefix(f"{node.target}."): t for n, t in state.items() if n.startswith(f"{node.target}.")}
        module = rehearsed.block.module.get_submodule(str(node.target))
        return functional_call(module, own, (x,))  # type: ignore[no-any-return]
    target: Any = node.target
    args, kwargs = fx.node.map_arg((node.args[1:], dict(node.kwargs)), lambda n: state[str(n.target)])
    return target(x, *args, **kwargs)  # type: ignore[no-any-return]


# Biases before a norm


def _dead_biases(rehearsed: Rehearsal) -> Iterator[str]:
    """Biases of layers that change nothing of what the norm behind them gives."""
    options = rehearsed.problem.estimator.options
    sites = noise_sites(rehearsed.block.module.graph, rehearsed.parameters(), "after_norm")
    biases = {site.name: _biases(rehearsed, site) for site in sites if site.layer is not site.end}
    seen = _cut(rehearsed, sites, biases) if any(biases.values()) else {}
    noisy = options.get("perturb") == "weight" or options.get("norm_gradient") == "ignored"
    earned = "its estimate is noise" if noisy else "it learns nothing"
    for site, names in biases.items():
        leaves = [rehearsed.state[name] for name in names]
        found = torch.autograd.grad(seen[site], leaves, torch.randn_like(seen[site])) if names else ()
        for name, slope in zip(names, found, strict=True):
            if float(slope.abs().max()) < NEGLIGIBLE:
                yield f"the norm behind `{site}` takes `{name}` away, and {earned}; leave it out"


def _biases(rehearsed: Rehearsal, site: NoiseSite) -> list[str]:
    """The vectors among the parameters of a site's layer; those of the norm behind it are none."""
    norm = site.end.meta.get("path")
    nodes = [n for n in site.end.graph.nodes if n is site.end or (norm and n.meta.get("path") == norm)]
    of_norm = {name for n in nodes for name in n.meta.get("parameters", ())}
    return [n for n in site.parameters if n not in of_norm and rehearsed.state[n].dim() == 1]


def _cut(rehearsed: Rehearsal, sites: Sequence[NoiseSite], biases: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Run the block with every layer and its norm on a tape of its own; return what stands at the sites."""
    for name in {n for names in biases.values() for n in names}:
        rehearsed.state[name].requires_grad_()
    run = DualRun(rehearsed.block.module, sites, {}, Tangents(), norms=True)
    with torch.enable_grad():
        rehearsed.run(run)
    return run.seen


# Weights that begin at 0


def of_start(traced: Traced, problems: Mapping[str, LocalProblem]) -> list[str]:
    """Warn where weights at 0 keep every derivative from blocks that learn by the output's loss alone.

    Random backward weights do not mind: those of weights at 0 have Kaiming's size. Inside `rehearsing`.
    """
    tensors = named_state(traced.train)
    zero = [n for n, t in tensors.items() if isinstance(t, torch.nn.Parameter) and t.dim() > 1 and not t.any()]
    learning = {b: p.trainable for b, p in problems.items() if not p.losses and _stopped_by_zeros(p)}
    slopes = _slopes(traced) if zero and learning else {}
    still = [b for b, names in learning.items() if not any(slopes[n].any() for n in names if n in slopes)]
    first = [n for n in zero if n in slopes and slopes[n].any()]
    if not still or not first:
        return []
    named = ", ".join(f"`{block}`" for block in still[:3]) + (", ..." if len(still) > 3 else "")
    return [f"`{first[0]}` begins at 0: until it has learned, the gradient of {named} is exactly 0"]


def _stopped_by_zeros(problem: LocalProblem) -> bool:
    estimator = problem.estimator
    signs = estimator.name == ALIGNMENT and estimator.options["kind"] != "random"
    return signs or estimator.name not in (BACKPROP, ALIGNMENT)


def _slopes(traced: Traced) -> dict[str, Tensor]:
    """Return the derivatives of the network's output, in some direction, by its parameters as they are at the start."""
    network, types = traced.train, tensor_types(traced.train)
    state = {n: t.detach().cpu().clone() for n, t in named_state(network).items()}
    state = {n: t.double() if t.is_floating_point() else t for n, t in state.items()}
    leaves = {n: state[n].requires_grad_() for n, _ in network.named_parameters()}
    run = fx.Interpreter(network, garbage_collect_values=False)
    with torch.enable_grad():
        run_with_state(run, state, [sampled(types, name) for name in traced.inputs])
        output = run.env[output_node(network)]
        found = torch.autograd.grad(output, list(leaves.values()), torch.randn_like(output), allow_unused=True)
    return {n: g for n, g in zip(leaves, found, strict=True) if g is not None}
