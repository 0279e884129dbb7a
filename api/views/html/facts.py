"""What is there to know of a block? Its lines of the spec, problem, parameters, kernels, share of memory and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lpc.compiler.rules import matches
from lpc.flow import Flow
from lpc.plan import Plan
from lpc.specs import Spec
from lpc.specs.cost import Cost
from lpc.specs.memory.prediction import Memory
from lpc.specs.plan.kernel import Kernel
from lpc.views.html.mathematics import problem

Facts = dict[str, Any]
SPEC_LINES = 60  # of one part of the spec, at most


def facts(plan: Plan, flow: Flow, cost: Cost, memory: Memory) -> dict[str, Facts]:
    """Return what the page tells of each block and readout, by name."""
    nodes = {str(node["id"]): node for node in plan.data.partition["nodes"]}
    names = dict.fromkeys([*nodes, *plan.data.program.optimizers])
    return {name: _facts(plan, nodes.get(name), name, flow, cost, memory) for name in names}


def _facts(
    plan: Plan, node: Mapping[str, Any] | None, block: str, flow: Flow, cost: Cost, memory: Memory
) -> Facts:
    losses = [loss for loss in flow.losses if loss in flow.of(block)]
    kernels = {name: k for name, k in plan.data.kernels["native"].items() if k.block == block}
    own = next((row for row in memory.blocks if row.block == block), None)
    return {
        "modules": list(node["modules"]) if node is not None else [],
        "math": problem(plan.spec, plan.data.program, plan.data.partition, block, losses),
        "losses": losses,
        "units": _units(plan.spec),
        "spec": list(_spec_lines(plan.spec, plan.data.spec, block)),
        "parameters": _parameters(plan, block),
        "kernels": [_kernel(kernel, cost) for kernel in kernels.values()],
        "flops": cost.blocks.get(block, 0),
        "memory": _memory(own, memory) if own is not None else {},
        "boundaries": list(_boundaries(plan.data.partition, block)),
        "estimator": plan.data.report.get("estimators", {}).get(block, ""),
    }


def _units(spec: Spec) -> str:
    units = spec.decompose.units
    if units is None:
        return ""
    groups = f"{units.groups} groups of channels" if units.groups > 1 else ""
    return " × ".join(part for part in ("patches" if units.patches == "auto" else "", groups) if part)


def _spec_lines(spec: Spec, text: str, block: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of the canonical spec that speak of a block."""
    lines = text.splitlines()
    blocks = spec.decompose.blocks
    own = (block,) if isinstance(blocks, dict) and block in blocks else ()
    paths: list[tuple[str | int, ...]] = [("decompose", "blocks", *own), ("decompose", "links"), ("decompose", "units")]
    paths += [("learn", index) for index, rule in enumerate(spec.learn) if rule.blocks is None or matches(rule, block)]
    paths = [("readouts", block)] if block in spec.readouts else paths
    shown: set[int] = set()
    for span in (spec.origin(*path) for path in paths):
        if span is not None and not span.note:
            last = span.end_line - (span.end_column == 1)
            shown.update(range(span.line, min(last, span.line + SPEC_LINES) + 1))
    yield from ((number, lines[number - 1]) for number in sorted(shown) if number <= len(lines))


def _parameters(plan: Plan, block: str) -> list[tuple[str, str, bool]]:
    entries = (e for e in plan.data.program.state.values() if e.block == block and e.kind == "parameter")
    return [(entry.name, str(entry.type), entry.trainable) for entry in entries]


def _kernel(kernel: Kernel, cost: Cost) -> Facts:
    row = next((row for row in cost.kernels if row.kernel == kernel.name), None)
    return {
        "name": kernel.name,
        "nodes": len(kernel.nodes),
        "calls": row.calls if row is not None else 0,
        "flops": row.flops if row is not None else 0,
    }


def _memory(own: Any, memory: Memory) -> Facts:
    resident = own.parameters + own.optimizer + own.offsets
    return {
        "parameters": own.parameters, "gradients": own.gradients, "optimizer": own.optimizer,
        "offsets": own.offsets, "activations": own.activations, "peak": own.peak,
        "share": round((resident + own.peak) / memory.total, 4) if memory.total else 0,
    }  # fmt: skip


def _boundaries(partition: Mapping[str, Any], block: str) -> Iterator[Facts]:
    """Yield what comes in and goes out: the other block, the link, the tensors with shape and bytes for one sample."""
    for edge in partition["edges"]:
        if block in (edge["source"], edge["target"]):
            yield {
                "from": edge["source"],
                "to": edge["target"],
                "link": str(edge["link"]),
                "tensors": [[t["name"], f"{t['dtype']}[{', '.join(map(str, t['shape']))}]", t["bytes"]]
                            for t in edge["tensors"]],
            }  # fmt: skip
