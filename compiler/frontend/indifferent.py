"""Does a module, or a graph of modules, compute the same in training as in evaluation?"""

from __future__ import annotations

from collections.abc import Collection
from types import CodeType

from torch import fx, nn

# Packages whose modules tell their mode by `training`, and only in their own methods.
_PLAIN = ("torch.nn.modules.", "lpc.compiler.")


def same_graphs(train: fx.GraphModule, evaluation: fx.GraphModule, besides: Collection[nn.Module] = ()) -> bool:
    """Have two graphs the same nodes, and do all modules that they call, and some `besides`, not ask for the mode?"""
    if _text(train) != _text(evaluation):
        return False
    called = [train.get_submodule(str(n.target)) for n in train.graph.nodes if n.op == "call_module"]
    return all(is_indifferent(module) for module in (*called, *besides))


def is_indifferent(module: nn.Module) -> bool:
    """Is a module known to do the same in both modes?"""
    return all(
        type(part).__module__.startswith(_PLAIN) and not _asks_for_mode(type(part)) for part in module.modules()
    )


def _text(module: fx.GraphModule) -> list[tuple[str, ...]]:
    return [(n.name, n.op, str(n.target), repr(n.args), repr(n.kwargs)) for n in module.graph.nodes]


def _asks_for_mode(kind: type[nn.Module]) -> bool:
    """Does a method of a class, other than those of every module, read `training`?"""
    own = [parent for parent in kind.__mro__ if issubclass(parent, nn.Module) and parent is not nn.Module]
    return any("training" in code.co_names for parent in own for code in _methods(parent))


def _methods(kind: type) -> list[CodeType]:
    return [member.__code__ for member in vars(kind).values() if hasattr(member, "__code__")]
