"""Which reports does `lpc inspect` have? For each: how it is found, how it is shown, and how it is plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from lpc.flow import flow
from lpc.plan import Plan
from lpc.specs.cost import Cost
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.memory.prediction import Memory
from lpc.specs.simulation.calibration import read_calibration
from lpc.specs.stages import StagedCost
from lpc.specs.timeline import Timeline, timeline
from lpc.views import block, building, cost, memory, partition, simulating, simulation, stages
from lpc.views import flow as flows
from lpc.views import timeline as timelines
from lpc.views.html.facts import facts

if TYPE_CHECKING:
    from lpc.inspecting import Question


@dataclass(frozen=True)
class Report:
    """A report's three functions: from plan and question to what is found, from there to views and to plain data."""

    find: Callable[[Plan, Question], Any]
    shown: Callable[[Any], Iterator[RenderableType]]
    plain: Callable[[Any], Any]


def _overview(plan: Plan) -> Iterator[RenderableType]:
    yield f"plan {plan.spec.name}, {plan.hash[:12]}, target {plan.data.target}, torch {plan.data.torch}"
    yield building.trace(plan.data.report) + "\n"
    yield partition.blocks(plan.data)
    yield ""
    yield partition.boundaries(plan.data)


def _plain_overview(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.spec.name,
        "hash": plan.hash,
        "target": plan.data.target,
        "torch": plan.data.torch,
        "report": dict(plan.data.report),
        "partition": dict(plan.data.partition),
    }


def _block(plan: Plan, question: Question) -> Mapping[str, Any]:
    """Return the facts of a block. Raises LpcError (0704) where the plan has none of that name."""
    found = facts(plan, flow(plan.data), plan.cost(question.batch, question.lengths),
                  plan.memory(question.batch, question.lengths))  # fmt: skip
    name = str(question.block)
    if name not in found:
        message, notes = f"the plan has no block `{name}`", (f"it has {', '.join(found)}",)
        raise LpcError(Diagnostic("0704", message, place=name, notes=notes, help=did_you_mean(name, found)))
    return {"block": name, **found[name]}


def _timelines(plan: Plan, question: Question) -> list[Timeline]:
    """Return the timelines of 1 device up to as many as are asked for and of use."""
    lengths = plan.lengths(question.batch, question.lengths)
    found: list[Timeline] = []
    for devices in range(1, question.devices + 1):
        one = timeline(plan.data.program, plan.data.kernels["native"], lengths, devices)
        if not found or one.devices > found[-1].devices:
            found.append(one)
    return found


def _costs(plan: Plan, question: Question) -> tuple[Cost, StagedCost | None]:
    """Return the cost of a step, and that of its stages on 1 device up to one for each block (or 8)."""
    most = min(len(plan.data.partition["nodes"]), max(question.devices, 8))
    found = plan.cost(question.batch, question.lengths)
    return found, plan.stages(question.batch, question.lengths, most)


def _shown_costs(found: tuple[Cost, StagedCost | None]) -> Iterator[RenderableType]:
    yield from cost.shown(found[0])
    if found[1] is not None:
        yield ""
        yield from stages.shown(found[1])


def _plain_costs(found: tuple[Cost, StagedCost | None]) -> dict[str, Any]:
    return cost.plain(found[0]) | ({"stages": stages.plain(found[1])} if found[1] is not None else {})


def _memories(plan: Plan, question: Question) -> Memory | list[Memory]:
    """Return the memory of a step; of each process's own step, where ranks are asked for."""
    if question.ranks is None:
        return plan.memory(question.batch, question.lengths)
    return [own.memory(question.batch, question.lengths) for own in plan.ranks(question.ranks)]


def _shown_memories(found: Memory | list[Memory]) -> Iterator[RenderableType]:
    if isinstance(found, Memory):
        yield from memory.shown(found)
        return
    for rank, one in enumerate(found):
        yield f"{'' if rank == 0 else chr(10)}rank {rank} of {len(found)}"
        yield from memory.shown(one)


def _plain_memories(found: Memory | list[Memory]) -> Any:
    return memory.plain(found) if isinstance(found, Memory) else [memory.plain(one) for one in found]


def _simulation(plan: Plan, question: Question) -> simulation.Prediction:
    """Return what is foretold, by assumed rates or by what was measured: at its lengths, which others must not be."""
    workers = question.workers or 1
    if question.costs is None:
        lengths, assumed = plan.lengths(question.batch, question.lengths), simulating.by_rates(question.rates)
        return simulating.predicted(plan, workers, lengths, assumed)
    asked = question.lengths | ({} if question.batch is None else {"B": question.batch})
    found = read_calibration(question.costs, plan.hash, asked)
    assumed = simulating.by_measurement(found, plan, question.rates)
    return simulating.predicted(plan, workers, found.lengths, assumed)


REPORTS: dict[str, Report] = {
    "overview": Report(lambda plan, question: plan, _overview, _plain_overview),
    "block": Report(_block, block.shown, dict),
    "flow": Report(lambda plan, question: flow(plan.data), flows.shown, flows.plain),
    "memory": Report(_memories, _shown_memories, _plain_memories),
    "cost": Report(_costs, _shown_costs, _plain_costs),
    "timeline": Report(_timelines, timelines.shown, timelines.plain),
    "simulation": Report(
        _simulation,
        simulation.shown,
        simulation.plain,
    ),
}
