"""Which parameters are trained? Those that the network leaves trainable, as `train` entries of `learn` change it."""

from __future__ import annotations

from fnmatch import fnmatchcase

import networkx as nx
from torch import nn

from lpc.compiler.rules import matches
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.model import Spec


def choose_trained(spec: Spec, module: nn.Module, graph: nx.DiGraph[str]) -> None:
    """Set `requires_grad` of the network's parameters, in place, as the `train` entries say; the last match wins.

    Raises LpcError where a pattern matches no parameter, or nothing is left to train.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    for index, rule in enumerate(spec.learn):
        if rule.train is None:
            continue
        owned = {n for b, a in graph.nodes(data=True) if matches(rule, b) for n in a["parameters"]}
        candidates = [name for name in named if rule.blocks is None or name in owned]
        for position, pattern in enumerate(rule.params or ()):
            found = [name for name in candidates if fnmatchcase(name, pattern)]
            if not found:
                raise LpcError(_unmatched(spec, index, position, candidates))
            for name in found:
                named[name].requires_grad_(rule.train)
    if named and not any(parameter.requires_grad for parameter in named.values()):
        raise LpcError(_nothing(spec))


def _unmatched(spec: Spec, index: int, position: int, known: list[str]) -> Diagnostic:
    pattern = (spec.learn[index].params or ())[position]
    span = spec.origin("learn", index, "params", position)
    place = None if span else f"spec: learn[{index}].params"
    help = did_you_mean(pattern, known)
    return Diagnostic("0430", f"`{pattern}` matches no parameter of the network", span, place, help=help)


def _nothing(spec: Spec) -> Diagnostic:
    index = max((i for i, rule in enumerate(spec.learn) if rule.train is False), default=None)
    span = spec.origin("learn") if index is None else spec.key_origin("learn", index, "train")
    place = None if span else "spec: learn"
    return Diagnostic("0430", "no parameter of the network is trained", span, place)
