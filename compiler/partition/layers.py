"""Where does one layer end and the next begin? `per_layer`: a block for each layer and what follows it.

A layer is a node with parameters that is neither a norm nor element-wise arithmetic with a parameter (a
scale, a position embedding): those follow a layer. `at: preactivation` moves the boundary from after the
activation to right after the op and its norm, so that what a block sends is a pre-activation.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from torch import fx

from lpc.compiler.partition.assignment import Assignment
from lpc.compiler.partition.view import Site, View, is_adapted
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec

NORM = re.compile("norm", re.IGNORECASE)
SPATIAL = re.compile(r"conv|pool|2d|interpolate|upsample|pixel", re.IGNORECASE)
# Parameters that act element by element, or are only moved around: no layer of their own.
FOLLOWER = re.compile(
    r"norm|prelu|(^|\W)(add|sub|mul|div|cat|stack|expand|view|reshape|clone|repeat|to|where|getitem|select"
    r"|slice|unsqueeze|t|transpose|permute|neg|exp|sigmoid|softplus|type_as|masked_fill)_?(\W|$)",
    re.IGNORECASE,
)


def per_layer(view: View, spec: Spec) -> Assignment:
    """Assign each layer to a block named by its module path, `path#2` for the second. Raises LpcError."""
    layers = [site for site in view.roots if is_layer(view, site)]
    if not layers:
        raise LpcError(_no_layers(spec))
    fixed = _whole_layers(view, layers)
    names = list(dict.fromkeys(fixed.values()))
    if spec.decompose.at == "activation":
        return Assignment(tuple(names), fixed)
    _keep_norms(view, fixed)
    return Assignment(tuple(names), fixed, toward="consumer")


def is_layer(view: View, site: Site) -> bool:
    """Return whether a site is a parametrised op such as linear, conv or embedding."""
    return bool(site.parameters) and not FOLLOWER.search(op_name(view, site))


def op_name(view: View, site: Site) -> str:
    """Return the operator's name: a module's class, or a function's or method's name."""
    return node_op_name(site.node)


def node_op_name(node: fx.Node) -> str:
    """Return the name of a node's operator: a module's class, or a function's or method's name."""
    target: Any = node.target
    if node.op == "call_module":
        owner = node.graph.owning_module
        assert owner is not None, "a graph that a module owns"
        return type(owner.get_submodule(str(target))).__name__
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def is_spatial(node: fx.Node) -> bool:
    """Return whether a node works on maps [C, H, W]: convolution, pooling, resizing, norms of maps."""
    return node.op in ("call_module", "call_function") and bool(SPATIAL.search(node_op_name(node)))


def _keep_norms(view: View, fixed: dict[int, str]) -> None:
    for site in view.roots:
        if site.index in fixed or not NORM.search(op_name(view, site)):
            continue
        makers = [fixed[p] for p in view.sources[site.index] if p in fixed]
        if makers:
            fixed[site.index] = makers[-1]


def _whole_layers(view: View, layers: list[Site]) -> dict[int, str]:
    """Give each layer's site its block's name; the sites of an adapted layer are one layer."""
    first = {_layer(view, site): site for site in reversed(layers)}
    heads = [site for site in layers if first[_layer(view, site)] is site]
    names = {_layer(view, site): name for site, name in zip(heads, _block_names(heads), strict=True)}
    return {site.index: names[_layer(view, site)] for site in view.roots if _layer(view, site) in names}


def _layer(view: View, site: Site) -> object:
    """Return what tells a site's layer from others: for an adapted layer its path and call, else the site itself."""
    return (site.path, site.node.meta.get("call", 0)) if is_adapted(view, site) else site.index


def _block_names(layers: list[Site]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for site in layers:
        base = site.path or site.node.name
        seen[base] += 1
        names.append(base if seen[base] == 1 else f"{base}#{seen[base]}")
    return names


def _no_layers(spec: Spec) -> Diagnostic:
    return Diagnostic(
        "0308",
        "`per_layer` finds no parametrised layer in the network",
        span=spec.origin("decompose", "blocks"),
    )
