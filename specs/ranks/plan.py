"""What is the plan of one rank? The plan, with what the other ranks hold left out, and transfers in its sections.

It is derived from the plan wherever it is needed, and stored nowhere: a plan is the same, and has the same hash, on
any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.instructions import Begin, Call, Instruction, Random
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Phase, Plan, Program
from lpc.specs.plan.text import print_sections, sections_of
from lpc.specs.ranks.divide import divide
from lpc.specs.ranks.makers import flat
from lpc.specs.ranks.placement import Placement, placement_of, workers_of
from lpc.specs.ranks.wiring import Edge, check_wiring, edges


def rank_plans(plan: Plan, spec: Spec, workers: int | None = None) -> list[Plan]:
    """Return a plan for each rank, on `workers` processes or as many as the spec asks for; the transfers are checked.

    Raises LpcError: 0580 blocks that cannot be placed, 0581 an instruction of several ranks, 0582 and 0583 transfers.
    """
    placement = placement_of(plan, spec, workers)
    ranks = max(placement.values()) + 1
    program, kernels = plan.program, plan.kernels["native"]

    def divided(body: Sequence[Instruction], shared: bool = False) -> list[tuple[Instruction, ...]]:
        return divide(body, placement, ranks, kernels, program, shared)

    step, evaluate, predict = divided(program.step), divided(program.evaluate), divided(program.predict, shared=True)
    phases = [divided(phase.step) for phase in program.phases]
    problems = [p for body in (*phases, step, evaluate, predict) for p in check_wiring("ranks", body)]
    if problems:
        raise LpcError(problems)
    found = []
    for rank in range(ranks):
        trains = (phase.trains for phase in program.phases)
        own = tuple(Phase(named, bodies[rank]) for named, bodies in zip(trains, phases, strict=True))
        part = replace(program, step=step[rank], evaluate=evaluate[rank], predict=predict[rank], phases=own)
        found.append(_part_of(plan, part, placement, rank))
    return found


def edges_of(plans: Sequence[Plan]) -> list[Edge]:
    """Return the pairs of ranks between which something is sent in any section, in order."""
    sections = zip(*(_bodies(plan.program) for plan in plans), strict=True)
    return sorted({edge for section in sections for edge in edges(section)})


def holders(plans: Sequence[Plan]) -> list[list[str]]:
    """Return the blocks and readouts of each rank."""
    return [list(dict.fromkeys(e.block for e in plan.program.state.values() if e.block)) for plan in plans]


def ranks_text(plans: Sequence[Plan]) -> str:
    """Return the ranks' programs as text; the sections of each can be read by `parse`."""
    titles = [
        f"# rank {rank} of {len(plans)}: {', '.join(held) or 'no block with a state'}"
        for rank, held in enumerate(holders(plans))
    ]
    texts = (print_sections(sections_of(plan.program)) for plan in plans)
    return "\n".join(f"{title}\n\n{text}" for title, text in zip(titles, texts, strict=True))


def _part_of(plan: Plan, program: Program, placement: Placement, rank: int) -> Plan:
    """Leave out kernels, state, optimizers and noise of other ranks. What no block owns is everywhere."""
    inside = list(chain.from_iterable(flat(body) for body in _bodies(program)))
    called = {i.kernel for i in inside if isinstance(i, Call)}
    sites = {i.site for i in inside if isinstance(i, Random)}
    begun = {value for i in inside if isinstance(i, Begin) for value in i.values}
    state = {n: e for n, e in program.state.items() if placement.get(e.block, rank) == rank}
    own = replace(
        program,
        noise={site: noise for site, noise in program.noise.items() if site in sites},
        optimizers={b: o for b, o in program.optimizers.items() if placement[b] == rank},
        corrections={b: c for b, c in program.corrections.items() if placement[b] == rank},
        state=state,
        variables={v: variable for v, variable in program.variables.items() if v in begun},
    )
    kernels = {target: dict(_called(found, called)) for target, found in plan.kernels.items()}
    return replace(plan, program=own, kernels=kernels)


def _called(kernels: Mapping[str, Kernel], names: set[str]) -> Iterator[tuple[str, Kernel]]:
    return ((name, kernel) for name, kernel in kernels.items() if name in names)


def _bodies(program: Program) -> list[tuple[Instruction, ...]]:
    return [*program.steps, program.evaluate, program.predict]


def unplaceable(plan: Plan, spec: Spec) -> list[Diagnostic]:
    """Return why the plan cannot run on the workers that the spec asks for, if it cannot."""
    if workers_of(spec) == 1:
        return []
    try:
        rank_plans(plan, spec)
    except LpcError as error:
        return list(error.diagnostics)
    return []
