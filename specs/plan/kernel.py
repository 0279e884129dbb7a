"""What is a kernel? A pure tensor program: typed arguments, operator nodes, typed results; no Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

# A JSON value inside a node's arguments. Besides plain numbers, booleans, None, strings and lists:
#   {"ref": "n3"}            the value named n3 (an argument tensor or an earlier node)
#   {"dtype": "float32"}  {"device": "cpu" | "plan"}  {"layout": "strided"}  {"memory_format": "contiguous"}
#   {"float": "inf" | "-inf" | "nan"}
# A device "plan" is the device the plan runs on, set when the kernel is linked.
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

Role = Literal[
    # arguments
    "state",      # parameters and buffers, bound by name from the plan's state; never listed in a call
    "seed",       # cotangent of one loss, bound to ones; never listed in a call
    "input",      # a value: batch field or another block's output
    "random",     # noise or mask drawn by a `random` instruction
    "cotangent",  # of one output, for one consumer (argument); of one input (result)
    "residuals",  # forward -> backward, as argument and as result
    "gathered",   # parameters of which the ranks hold a shard each; a call is given them whole
    "target",     # what a block's local problem compares with, as argument and as result; stays as it is
    # results
    "output",     # a value that other blocks or the caller read
    "loss",       # 0-d
    "metric",     # 0-d
    "gradients",  # one port per trainable parameter, `source` = parameter name
    "factors",    # second moments for the optimizer, two ports a layer, `source` = `weight@inputs`, `weight@errors`
    "buffers",    # one port per updated buffer, `source` = buffer name
    "slope",      # the derivative of an objective by an auxiliary variable, `source` = the variable
]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class TensorType:
    """Dtype and shape; a symbolic length is an integer expression as text, such as `B` or `B*197`."""

    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


NO_TENSOR = TensorType("none", ())  # the type of an item that an operator leaves out


@dataclass(frozen=True)
class Port:
    """One tensor that goes into or out of a kernel.

    `value` names it inside the kernel (an argument's own name, or the node that computes a result; the
    same node may feed several results). `source` is the outside name: parameter, buffer, field or value.
    """

    value: str
    type: TensorType
    source: str


@dataclass(frozen=True)
class Bundle:
    """One argument or one result of a kernel: a single port, or all ports of one role together."""

    name: str
    role: Role
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class Node:
    """One operator: `aten.mm.default`, `getitem`, or integer arithmetic (`add`, `mul`, `floordiv`, ...).

    `origin` is the module path or local term that the node was captured from. `types` are those of the tensors
    that it makes: one, or an item each, with dtype `none` where an item is none; none at all for a length.
    Nothing is computed from them: they say how much memory a value takes.
    """

    name: str
    op: str
    args: tuple[Json, ...] = ()
    kwargs: dict[str, Json] = field(default_factory=dict)
    origin: str = ""
    types: tuple[TensorType, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """A pure function. Results are read from `ports[i].value` after all nodes have run."""

    name: str                      # `b1.local`, `b1.forward`, `b1.backward`, `b1.vjp`, `b1.eval`
    block: str
    arguments: tuple[Bundle, ...]
    nodes: tuple[Node, ...]
    results: tuple[Bundle, ...]
    device: str = "any"            # `any`, or the only device whose operators it uses: `cpu`, `cuda`
