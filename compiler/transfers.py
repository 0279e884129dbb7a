"""Which transfer does a network apply after a layer? Read off the node that follows, or off the loss on the output."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from lpc.compiler.losses.matching import TRANSFERS, Transfer
from lpc.compiler.partition.layers import node_op_name
from lpc.specs import signatures
from lpc.specs.term import Term


class UnmatchedError(ValueError):
    """There is no transfer: the text says why."""


# Operators by name, lower case and without underscores: their transfer.
NAMES: dict[str, str] = {
    "relu": "relu", "leakyrelu": "leaky_relu", "tanh": "tanh", "sigmoid": "sigmoid", "softmax": "softmax",
    "softplus": "softplus", "atan": "arctan", "arctan": "arctan", "elu": "elu", "hardtanh": "hardtanh",
    "softsign": "softsign", "relu6": "hardtanh", "identity": "linear",
}  # fmt: skip
# What each operator's transfer takes of a module's own options, or of a function's arguments by position or name.
OPTIONS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "leaky_relu": (("slope", "negative_slope", 1),),
    "elu": (("alpha", "alpha", 1),),
    "hardtanh": (("low", "min_val", 1), ("high", "max_val", 2)),
}
FALLING = frozenset({
    "gelu", "geluactivation", "newgeluactivation", "quickgeluactivation", "silu", "siluactivation", "swish", "mish",
    "hardswish", "sin", "cos",
})  # fmt: skip
# What only passes a pre-activation on: the transfer before it is the identity.
PASSING = re.compile(
    r"pool|flatten|view|reshape|permute|transpose|contiguous|dropout|add|sub|mean|cat|stack|getitem|select|slice|squeeze"
    r"|expand|pad|clone|detach|to$|type|patch|upsample|interpolate|chunk|split|output",
    re.IGNORECASE,
)


def transfer_after(node: fx.Node, source: fx.Node) -> Transfer:
    """Return the transfer that `node` applies to `source`, a pre-activation. Raises UnmatchedError if there is none."""
    name = _plain(node_op_name(node))
    if name in FALLING:
        raise UnmatchedError(f"`{name}` falls somewhere, so that it is the gradient of no convex function")
    if name == "softplus" and _options(node, (("beta", "beta", 1),)).get("beta", 1) != 1:
        raise UnmatchedError("a softplus with a `beta` other than 1")
    if name == "softmax":
        return TRANSFERS["softmax"](_softmax_axis(node, source))
    if name == "relu" and any(_squares(user) for user in node.users):
        return TRANSFERS["squared_relu"]()
    if name == "relu6":
        return TRANSFERS["hardtanh"](0.0, 6.0)
    if name in NAMES:
        try:
            return TRANSFERS[NAMES[name]](**_options(node, OPTIONS.get(NAMES[name], ())))
        except ValueError as error:
            raise UnmatchedError(str(error)) from error
    if PASSING.search(name):
        return TRANSFERS["linear"]()
    raise UnmatchedError(f"`{name}` is not known as the gradient of a convex function")


def _plain(name: str) -> str:
    """`LeakyReLU`, `leaky_relu_` and `leaky_relu.default` are one operator."""
    return name.partition(".")[0].replace("_", "").lower()


def _options(node: fx.Node, wanted: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
    if node.op == "call_module":
        owner = node.graph.owning_module
        assert owner is not None, "a graph that a module owns"
        module = owner.get_submodule(str(node.target))
        return {own: getattr(module, name) for own, name, _ in wanted}
    found = {}
    for own, name, place in wanted:
        if name in node.kwargs:
            found[own] = node.kwargs[name]
        elif len(node.args) > place:
            found[own] = node.args[place]
    return found


def _squares(node: fx.Node) -> bool:
    """Does a node take the square of what it reads?"""
    name = _plain(node_op_name(node))
    return name == "square" or (name == "pow" and node.args[1:] == (2,)) or (name == "mul" and len(set(node.args)) == 1)


def _softmax_axis(node: fx.Node, source: fx.Node) -> int:
    axis = _options(node, (("axis", "dim", 1),)).get("axis")
    if axis is None:
        raise UnmatchedError("a softmax that does not say its axis")
    return int(axis)


def transfer_of_loss(losses: Sequence[Term], rank: int) -> Transfer:
    """Return the transfer in a loss on a linear output, with classes on axis 1 of maps. Raises UnmatchedError."""
    if len(losses) != 1 or losses[0].name not in OF_LOSS:
        raise UnmatchedError("the loss on the output has no transfer of its own")
    term = losses[0]
    options = signatures.LOSSES[term.name].bind(term)
    if float(options.get("scale", 1.0)) != 1.0:
        raise UnmatchedError(f"`{term}` scales the output first")
    return OF_LOSS[term.name](options, rank)


def _of_bce(options: dict[str, Any], rank: int) -> Transfer:
    if not options["logits"]:
        raise UnmatchedError("a cross-entropy of probabilities; make the sigmoid a layer, or write `logits=true`")
    return TRANSFERS["sigmoid"]()


OF_LOSS: dict[str, Callable[[dict[str, Any], int], Transfer]] = {
    "binary_cross_entropy": _of_bce,
    "cross_entropy": lambda options, rank: TRANSFERS["softmax"](1 if rank == 4 else -1),
    "mse": lambda options, rank: TRANSFERS["linear"](),
}
