"""Where does a graph draw random numbers? Every random operator becomes an argument drawn by the plan."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.nn.functional import scaled_dot_product_attention

from lpc.compiler.capture.types import tensor_type
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.plan import Noise

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default


@dataclass(frozen=True)
class Lifted:
    """One random argument: the new placeholder and the law it is drawn from."""

    placeholder: fx.Node
    noise: Noise


Law = tuple[str, tuple[float, ...]]

# operator -> law and its arguments, read from the node's own arguments
LAWS: dict[object, Callable[[fx.Node], Law]] = {
    aten.bernoulli.p: lambda n: ("bernoulli", (_number(n, 1),)),
    aten.rand_like.default: lambda n: ("uniform", (0.0, 1.0)),
    aten.rand.default: lambda n: ("uniform", (0.0, 1.0)),
    aten.randn_like.default: lambda n: ("normal", (0.0, 1.0)),
    aten.randn.default: lambda n: ("normal", (0.0, 1.0)),
    aten.uniform.default: lambda n: ("uniform", (_number(n, 1, 0.0), _number(n, 2, 1.0))),
    aten.normal_functional.default: lambda n: ("normal", (_number(n, 1, 0.0), _number(n, 2, 1.0))),
}


def lift_randomness(
    graph: fx.Graph, symbols: Mapping[str, str], prefix: str, perturbed: Collection[str] = ()
) -> list[Lifted]:
    """Replace every random operator of `graph` by a placeholder, in place; return them in graph order.

    Sites are named by the module that draws (`fc1.drop`), a second draw of one module by `fc1.drop:1`.
    A module whose output is perturbed (`perturbed`) has given its name to that noise: what it draws is `NAME.draws`.
    Raises LpcError for a random operator that has no law here.
    """
    taken: dict[str, int] = {}
    lifted = []
    for node in list(graph.nodes):
        if node.target is aten.native_dropout.default:
            _expand_native_dropout(graph, node)
    for node in list(graph.nodes):
        if node.op != "call_function" or not _is_random(node):
            continue
        label = node.meta.get("origin") or prefix
        site = _site_name(draws_of(label) if label in perturbed else label, taken)
        lifted.append(_lift(graph, node, symbols, site))
    return lifted


def _is_random(node: fx.Node) -> bool:
    if node.target in LAWS:
        return True
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded not in tags:
        return False
    return attention_dropout(node.target, node.args, node.kwargs) != 0.0


def attention_dropout(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float | None:
    """Return the dropout probability of a call of an attention operator, None for any other operator."""
    schema = getattr(ATTENTION if target is scaled_dot_product_attention else target, "_schema", None)
    if schema is None or "scaled_dot_product" not in schema.name:
        return None
    for index, argument in enumerate(schema.arguments):
        if argument.name == "dropout_p":
            given = kwargs.get("dropout_p", args[index] if index < len(args) else argument.default_value)
            return float(given) if isinstance(given, int | float) else None
    return None


def hides_its_mask(graph: fx.Graph) -> bool:
    """Does an attention operator drop weights by a mask that it draws itself?"""
    calls = (node for node in graph.nodes if node.op == "call_function")
    return any(attention_dropout(node.target, node.args, node.kwargs) for node in calls)


def draws_of(site: str) -> str:
    """Return the name of what a module draws whose output is perturbed."""
    return f"{site}.draws"


def _site_name(label: str, taken: dict[str, int]) -> str:
    count = taken.get(label, 0)
    taken[label] = count + 1
    return f"{label}:{count}" if count else label


def _lift(graph: fx.Graph, node: fx.Node, symbols: Mapping[str, str], site: str) -> Lifted:
    law = LAWS.get(node.target)
    if law is None:
        message = f"`{node.target}` draws random numbers by a law that a plan does not have"
        raise LpcError(Diagnostic("0410", message, place=str(node.meta.get("origin", ""))))
    name, arguments = law(node)
    first = next(iter(graph.nodes))
    with graph.inserting_before(first):
        placeholder = graph.placeholder(f"random_{len(site)}")
    placeholder.meta.update(val=node.meta["val"], random=site)
    node.replace_all_uses_with(placeholder)
    graph.erase_node(node)
    return Lifted(placeholder, Noise(site, name, arguments, tensor_type(placeholder.meta["val"], symbols)))


def kept_scale(probability: float) -> float:
    """Return the factor of the values that dropout keeps; where it keeps none there is nothing to scale."""
    return 1.0 / (1.0 - probability) if probability < 1.0 else 0.0


def _expand_native_dropout(graph: fx.Graph, node: fx.Node) -> None:
    """Write `native_dropout(x, p)` as a mask of ones with probability 1 - p, and a product."""
    source, probability = node.args[0], float(node.args[1])  # type: ignore[arg-type]
    outputs = {user.args[1]: user for user in node.users if user.target is operator.getitem}
    value = node.meta["val"]
    with graph.inserting_before(node):
        ones = graph.call_function(aten.bernoulli.p, (source, 1.0 - probability))
        ones.meta.update(val=value[0], origin=node.meta.get("origin", ""))
        scaled = graph.call_function(aten.mul.Tensor, (ones, kept_scale(probability)))
        scaled.meta.update(val=value[0])
        product = graph.call_function(aten.mul.Tensor, (source, scaled))
        product.meta.update(val=value[0])
        mask = graph.call_function(aten.ne.Scalar, (ones, 0))
        mask.meta.update(val=value[1])
    for index, replacement in ((0, product), (1, mask)):
        if index in outputs:
            outputs[index].replace_all_uses_with(replacement)
            graph.erase_node(outputs[index])
    graph.erase_node(node)


def _number(node: fx.Node, index: int, default: float = 0.0) -> float:
    value = node.args[index] if len(node.args) > index else default
    if not isinstance(value, int | float):
        raise LpcError(
            Diagnostic(
                "0410",
                f"`{node.target}` draws with a probability or width that is computed, not a number",
                place=str(node.meta.get("origin", "")),
            )
        )
    return float(value)
