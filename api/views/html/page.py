"""What does the page hold? Style, script and a plan's data in one text; the data cannot end their element.

The page loads nothing, keeps nothing and sends nothing: a policy in it forbids the browser to ask any network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from lpc.flow import Flow, flow
from lpc.plan import Plan
from lpc.specs.memory.prediction import Memory
from lpc.specs.memory.timeline import memory_timeline
from lpc.specs.timeline import timeline
from lpc.views.html.facts import facts
from lpc.views.html.scene import scene
from lpc.views.units import count

DEVICES = 8  # the page has timelines for 1 to this many devices
SHOWN = 400  # moments or slots in one picture, at most
SCRIPTS = ("places.js", "figures.js", "panel.js", "view.js")


def page(plan: Plan, batch: int | None = None, lengths: Mapping[str, int] | None = None) -> str:
    """Return the HTML page of a plan: the same plan, the same text.

    `batch` and `lengths` are as in `Plan.memory`. Raises LpcError (0562) where a size is not known.
    """
    parts = {
        "title": escape(plan.spec.name),
        "style": _shipped("style.css"),
        "data": embedded(contents(plan, plan.lengths(batch, lengths))),
        "script": "\n".join(map(_shipped, SCRIPTS)),
    }
    return re.sub(r"\[\[(\w+)\]\]", lambda place: parts[place[1]], _shipped("page.html"))


def contents(plan: Plan, lengths: Mapping[str, int]) -> dict[str, Any]:
    """Return everything that the page shows, as JSON data."""
    rest = {name: length for name, length in lengths.items() if name != "B"}
    cost, memory, flows = plan.cost(lengths["B"], rest), plan.memory(lengths["B"], rest), flow(plan.data)
    report = plan.data.report
    return {
        "name": plan.spec.name,
        "hash": plan.hash,
        "target": plan.data.target,
        "torch": plan.data.torch,
        "lengths": dict(sorted(lengths.items())),
        "scene": scene(plan, lengths),
        "blocks": facts(plan, flows, cost, memory),
        "flops": cost.flops,
        "traffic": cost.traffic,
        "flow": _flow(flows),
        "memory": _memory(plan, memory),
        "timelines": list(_timelines(plan, lengths, cost.phase)),
        "program": plan.text(),
        "notes": [*report.get("notes", ()), *report.get("warnings", ())],
    }


def embedded(data: Any) -> str:
    """Return data as JSON that no HTML parser sees anything in: neither an element nor a comment can begin or end."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _shipped(name: str) -> str:
    return files("lpc.views.html").joinpath(name).read_text(encoding="utf-8")


def _flow(flows: Flow) -> dict[str, Any]:
    rows = [{"block": r.block, "parameters": list(r.parameters), "losses": sorted(r.losses)} for r in flows.rows]
    return {"losses": list(flows.losses), "rows": rows}


def _memory(plan: Plan, memory: Memory) -> dict[str, Any]:
    """Return the prediction, and what each instruction holds; of very many instructions the largest of each stretch."""
    moments = memory_timeline(plan.data.program, plan.data.kernels["native"], memory.lengths, memory.phase)
    stride = -(-len(moments) // SHOWN) or 1
    shown = [max(moments[i : i + stride], key=lambda m: m.size) for i in range(0, len(moments), stride)]
    return {
        "total": memory.total, "resident": memory.resident, "peak": memory.peak, "batch": memory.batch,
        "line": memory.line, "node": memory.node, "phase": memory.phase, "unknown": list(memory.unknown),
        "alive": [[one.name, one.role, one.size] for one in memory.alive[:12]],
        "moments": [[m.block, m.line[:160], m.size, m.gradients] for m in shown],
    }  # fmt: skip


def _timelines(plan: Plan, lengths: Mapping[str, int], phase: int) -> Any:
    """Yield the timeline for 1, 2, ... devices, as long as another one is of use."""
    before = 0
    for devices in range(1, DEVICES + 1):
        found = timeline(plan.data.program, plan.data.kernels["native"], lengths, devices, phase)
        if found.devices == before:
            return
        before = found.devices
        yield {
            "devices": found.devices, "placement": dict(found.placement), "speedup": round(found.speedup, 3),
            "work": round(found.work), "path": round(found.path), "told": count(round(found.work)),
            "slots": [[s.device, s.step, s.kernel, s.block, round(s.start), round(s.end)] for s in found.slots[:SHOWN]],
        }  # fmt: skip
