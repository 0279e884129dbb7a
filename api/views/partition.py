"""What does the partition look like? A table of the blocks and a table of the boundaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from rich.table import Table

from lpc.specs.plan.plan import Optimizer, Plan, StateEntry
from lpc.views.units import count, size

MODULES_SHOWN = 4


def blocks(plan: Plan) -> Table:
    """Return one row for each block: modules, size, how much of it is trained where not all is, cost, optimizer."""
    parameters = [entry for entry in plan.program.state.values() if entry.kind == "parameter"]
    some = {"trained": "right"} if not all(entry.trainable for entry in parameters) else {}
    columns = {"parameters": "right", **some, "flops": "right", "activations": "right", "optimizer": "left"}
    table = _table("block", "modules", **columns)
    for node in plan.partition["nodes"]:
        table.add_row(
            str(node["id"]),
            _modules(node["modules"]),
            count(node["num_parameters"]),
            *(count(_trained(parameters, node["id"])) for _ in some),
            count(node["flops"]),
            size(node["activation_bytes"]),
            _optimizer(plan.program.optimizers.get(node["id"])),
        )
    return table


def _trained(parameters: Iterable[StateEntry], block: str) -> int:
    """Return how many numbers of a block are trained, without its head's."""
    own = (entry for entry in parameters if entry.block == block and not entry.name.startswith("heads."))
    return sum(prod(size for size in entry.type.shape if isinstance(size, int)) for entry in own if entry.trainable)


def boundaries(plan: Plan) -> Table:
    """Return one row for each boundary: its link, the tensors that cross, their bytes per sample."""
    table = _table("boundary", "link", tensors="left", bytes="right")
    for edge in plan.partition["edges"]:
        tensors = edge["tensors"]
        table.add_row(
            f"{edge['source']} -> {edge['target']}",
            str(edge["link"]),
            ", ".join(map(_tensor, tensors)),
            size(sum(tensor["bytes"] for tensor in tensors)),
        )
    return table


def _table(*left: str, **columns: Any) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name, justify in columns.items():
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _modules(names: list[str]) -> str:
    if len(names) <= MODULES_SHOWN:
        return ", ".join(names)
    return f"{names[0]}, {names[1]}, ... {names[-1]} ({len(names)})"


def _tensor(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['name']}: {tensor['dtype']}[{', '.join(map(str, tensor['shape']))}]"


def _optimizer(optimizer: Optimizer | None) -> str:
    if optimizer is None:
        return "-"
    rate = optimizer.options.get("lr")
    return optimizer.name if rate is None else f"{optimizer.name}(lr={rate})"
