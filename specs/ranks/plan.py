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
from lpc.specs.plan.instructions import Begin, Call, Fetch, Instruction, Random
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Phase, Plan, Program
from lpc.specs.plan.text import print_sections, sections_of
from lpc.specs.ranks.asynchrony import ensure_forward, ensure_lags
from lpc.specs.ranks.divide import divide
from lpc.specs.ranks.lagging import lagged
from lpc.specs.ranks.makers import flat
from lpc.specs.ranks.mesh import Mesh, mesh_of, workers_of
from lpc.specs.ranks.placement import Placement, placement_of
from lpc.specs.ranks.replicas import of_replica, on_mesh
from lpc.specs.ranks.shardable import shared_blocks
from lpc.specs.ranks.sharding import Sharding, sharding_of
from lpc.specs.ranks.statistics import live_buffers
from lpc.specs.ranks.wiring import Edge, edges, room_needed


def rank_plans(plan: Plan, spec: Spec, workers: int | None = None) -> list[Plan]:
    """Return a plan for each rank, on `workers` processes or as many as the spec asks for; the transfers are checked.

    Raises LpcError: 0580 blocks that cannot be placed, 0581 an instruction of several ranks, 0582 and 0583 transfers,
    0584 steps that cannot overlap, 0585 blocks that cannot be sharded.
    """
    mesh = mesh_of(spec, workers)
    sharding = sharding_of(plan, shared_blocks(plan, spec), mesh)
    placement = placement_of(plan, spec, mesh.stages)
    program, kernels = plan.program, plan.kernels["native"]

    def divided(body: Sequence[Instruction], shared: bool = False) -> list[tuple[Instruction, ...]]:
        found = divide(body, placement, mesh.size, kernels, program, shared)
        return found if sharding is None else sharding.measured(found)

    def stepped(body: Sequence[Instruction]) -> list[tuple[Instruction, ...]]:
        found = _stepped(body, mesh, placement, kernels, program, sharding)
        return found if mesh.size == 1 or not spec.run.staleness else _lagging(found, plan, spec)

    if mesh.replicas > 1:
        _ensure_kept(program, kernels)
    if spec.run.staleness and mesh.size > 1:
        ensure_forward(plan, spec, placement)
    step, evaluate, predict = stepped(program.step), divided(program.evaluate), divided(program.predict, shared=True)
    phases = [stepped(phase.step) for phase in program.phases]
    for section in (*phases, step, evaluate, predict):
        room_needed(section)
    found = []
    for rank in range(mesh.size):
        trains = (phase.trains for phase in program.phases)
        own = tuple(Phase(named, bodies[rank]) for named, bodies in zip(trains, phases, strict=True))
        part = replace(program, step=step[rank], evaluate=evaluate[rank], predict=predict[rank], phases=own)
        own_plan = _part_of(plan, part, placement, rank % mesh.stages)
        found.append(own_plan if sharding is None else _sharded(own_plan, sharding, rank))
    return found


def _sharded(plan: Plan, sharding: Sharding, rank: int) -> Plan:
    shards = sharding.shards(list(plan.program.state), rank)
    return replace(plan, program=replace(plan.program, shards=shards), kernels=sharding.kernels(plan.kernels))


def _stepped(
    body: Sequence[Instruction], mesh: Mesh, placement: Placement, kernels: Mapping[str, Kernel], program: Program,
    sharding: Sharding | None,
) -> list[tuple[Instruction, ...]]:
    """Divide a step. Ranks that wait for others go on with other pieces meanwhile, where that cannot lock them."""
    called = {i.kernel for i in flat(body) if isinstance(i, Call)}
    live = live_buffers(kernel for name, kernel in kernels.items() if name in called)
    bodies: list[tuple[Instruction, ...]] = []
    for pipelined in (False,) if live else (True, False):
        bodies = []
        for replica in range(mesh.replicas):
            own = of_replica(body, mesh, replica)
            found = divide(own, placement, mesh.stages, kernels, program, pipelined=pipelined)
            bodies += [on_mesh(part, mesh, replica, stage) for stage, part in enumerate(found)]
        bodies = bodies if sharding is None else [sharding.step(own, rank) for rank, own in enumerate(bodies)]
        try:
            room_needed(bodies)
            break
        except LpcError:
            continue
    return bodies


def _ensure_kept(program: Program, kernels: Mapping[str, Kernel]) -> None:
    """Refuse (0581) replicas that need buffers which the first one alone changes, in the same phase or another."""
    called = {i.kernel for body in program.steps for i in flat(body) if isinstance(i, Call)}
    live = live_buffers(kernel for name, kernel in kernels.items() if name in called)
    if live:
        block, name = live[0]
        message = f"`{name}` of block `{block}` changes in a step and is computed with: no replicas can share it"
        raise LpcError(Diagnostic("0581", message, place="program", help="take another number of workers"))


def _lagging(bodies: Sequence[tuple[Instruction, ...]], plan: Plan, spec: Spec) -> list[tuple[Instruction, ...]]:
    """Let ranks begin as many steps as the spec says before the last one is over, where they would wait."""
    kernels = plan.kernels["native"]
    found = lagged(bodies, spec.run.staleness, kernels, plan.program)
    ensure_lags(found, spec, plan.program, kernels)
    return found


def edges_of(plans: Sequence[Plan]) -> list[Edge]:
    """Return the pairs of ranks between which something is sent in any section, in order."""
    sections = zip(*(_bodies(plan.program) for plan in plans), strict=True)
    return sorted({edge for section in sections for edge in edges(section)})


def room_of(plans: Sequence[Plan]) -> int:
    """Return how many values each edge has to hold at least."""
    return max(room_needed(section) for section in zip(*(_bodies(plan.program) for plan in plans), strict=True))


def holders(plans: Sequence[Plan]) -> list[list[str]]:
    """Return the blocks and readouts of each rank."""
    return [list(dict.fromkeys(e.block for e in plan.program.state.values() if e.block)) for plan in plans]


def ranks_text(plans: Sequence[Plan]) -> str:
    """Return the ranks' programs as text; the sections of each can be read by `parse`."""
    titles = [
        f"# rank {rank} of {len(plans)}: {', '.join(held) or 'no block with a state'}{_part(plans[rank])}"
        for rank, held in enumerate(holders(plans))
    ]
    texts = (print_sections(sections_of(plan.program)) for plan in plans)
    return "\n".join(f"{title}\n\n{text}" for title, text in zip(titles, texts, strict=True))


def _part(plan: Plan) -> str:
    shard = next(iter(plan.program.shards.values()), None)
    return f" (part {shard.index + 1} of {len(shard.bounds) - 1} of their parameters)" if shard else ""


def _part_of(plan: Plan, program: Program, placement: Placement, rank: int) -> Plan:
    """Leave out kernels, state, optimizers and noise of other ranks. What no block owns is everywhere."""
    inside = list(chain.from_iterable(flat(body) for body in _bodies(program)))
    called = {i.kernel for i in inside if isinstance(i, Call)}
    sites = {i.site for i in inside if isinstance(i, Random)}
    solved = {value for i in inside if isinstance(i, Begin | Fetch) for value in i.values}
    state = {n: e for n, e in program.state.items() if placement.get(e.block, rank) == rank}
    own = replace(
        program,
        noise={site: noise for site, noise in program.noise.items() if site in sites},
        optimizers={b: o for b, o in program.optimizers.items() if placement[b] == rank},
        corrections={b: c for b, c in program.corrections.items() if placement[b] == rank},
        state=state,
        variables={v: variable for v, variable in program.variables.items() if v in solved},
    )
    kernels = {target: dict(_called(found, called)) for target, found in plan.kernels.items()}
    return replace(plan, program=own, kernels=kernels)


def _called(kernels: Mapping[str, Kernel], names: set[str]) -> Iterator[tuple[str, Kernel]]:
    return ((name, kernel) for name, kernel in kernels.items() if name in names)


def _bodies(program: Program) -> list[tuple[Instruction, ...]]:
    return [*program.steps, program.evaluate, program.predict]


def unplaceable(plan: Plan, spec: Spec) -> list[Diagnostic]:
    """Return why the plan cannot run on the workers that the spec asks for, if it cannot."""
    try:
        shared_blocks(plan, spec)
        if workers_of(spec) > 1:
            rank_plans(plan, spec)
    except LpcError as error:
        return list(error.diagnostics)
    return []
