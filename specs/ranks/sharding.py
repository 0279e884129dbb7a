"""How do replicas share a block's parameters? Each holds a part, and has them whole while its kernels read them.

Before its calls a rank lends its part to the others and gathers theirs; what was gathered is freed after the last call
before another block's. Of a block's gradients each rank adds up its part alone, in the order in which all are added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from lpc.specs.plan.instructions import Instruction, Load
from lpc.specs.plan.kernel import Bundle, Kernel, Port
from lpc.specs.plan.plan import Plan, Shard, StateEntry
from lpc.specs.plan.shards import cuts
from lpc.specs.ranks.gathers import Gathers, lent
from lpc.specs.ranks.mesh import Mesh
from lpc.specs.ranks.scatters import Owners, ensure_taken, scattered

Body = tuple[Instruction, ...]
Kernels = Mapping[str, Mapping[str, Kernel]]  # by target and name


@dataclass(frozen=True)
class Sharding:
    """What of a plan is sharded over the replicas of a mesh: parameters with their bounds, kernels that read them."""

    mesh: Mesh
    bounds: Mapping[str, tuple[int, ...]]
    parameters: Mapping[str, Sequence[StateEntry]]  # by block
    readers: Mapping[str, str]  # kernel -> block
    gradients: Owners

    def group(self, rank: int) -> tuple[int, ...]:
        """Return the ranks that hold the same blocks."""
        return self.mesh.group(rank % self.mesh.stages)

    def shards(self, names: Sequence[str], rank: int) -> dict[str, Shard]:
        """Return the parts that a rank holds, of those tensors that are sharded."""
        return {n: Shard(self.bounds[n], rank // self.mesh.stages) for n in names if n in self.bounds}

    def step(self, body: Body, rank: int) -> Body:
        """Return a rank's step, in which it gathers what its calls read, and adds up its part of the gradients."""
        group = self.group(rank)
        lends = tuple(other for other in group if other != rank)
        found = Gathers(self.readers, group, lends).placed(scattered(body, self.gradients))
        ensure_taken(found, self.gradients)
        return found

    def measured(self, bodies: Sequence[Body]) -> list[Body]:
        """Return all ranks' evaluation, or prediction: the first replica gathers, the others lend."""
        found: list[Body] = []
        for rank, body in enumerate(bodies):
            leader = rank % self.mesh.stages
            if rank == leader:
                found.append(Gathers(self.readers, self.group(rank), ()).placed(body))
            else:
                start = next((i + 1 for i, one in enumerate(body) if isinstance(one, Load)), 0)
                found.append((*body[:start], *lent(found[leader], leader), *body[start:]))
        return found

    def kernels(self, kernels: Kernels) -> dict[str, dict[str, Kernel]]:
        """Return kernels that are given what they read of sharded parameters, in place of having it bound."""
        return {
            target: {n: self.given(kernel) if n in self.readers else kernel for n, kernel in found.items()}
            for target, found in kernels.items()
        }

    def given(self, kernel: Kernel) -> Kernel:
        """All of the block's parameters are given, in order; those that are not read have ports of their own."""
        ports = {port.source: port for b in kernel.arguments if b.role == "state" for port in b.ports}
        own = [
            ports.get(entry.name, Port(f"gathered_{index}", entry.type, entry.name))
            for index, entry in enumerate(self.parameters[self.readers[kernel.name]])
        ]
        left = [
            replace(bundle, ports=tuple(port for port in bundle.ports if port not in own))
            for bundle in kernel.arguments
        ]
        left = [new for new, old in zip(left, kernel.arguments, strict=True) if new.ports or not old.ports]
        return replace(kernel, arguments=(*left, Bundle("gathered", "gathered", tuple(own))))


def sharding_of(plan: Plan, blocks: Sequence[str], mesh: Mesh) -> Sharding | None:
    """Return how the parameters of some blocks are sharded; None where no one is, as on a mesh with one replica."""
    bounds: dict[str, tuple[int, ...]] = {}
    parameters: dict[str, list[StateEntry]] = {}
    for name, entry in plan.program.state.items() if mesh.replicas > 1 else ():
        found = cuts(prod(map(int, entry.type.shape)), mesh.replicas)
        if entry.kind == "parameter" and entry.block in blocks and found is not None:
            bounds[name] = found
            parameters.setdefault(entry.block, []).append(entry)
    if not bounds:
        return None
    every = [kernel for kernels in plan.kernels.values() for kernel in kernels.values()]
    readers = {k.name: k.block for k in every if any(p.source in bounds for p in state_ports(k))}
    gradients = {kernel.name: _with_gradients(kernel, bounds) for kernel in plan.kernels["native"].values()}
    return Sharding(mesh, bounds, parameters, readers, gradients)


def state_ports(kernel: Kernel) -> Iterator[Port]:
    """Yield the ports of the state that a kernel reads."""
    for bundle in kernel.arguments:
        if bundle.role == "state":
            yield from bundle.ports


def _with_gradients(kernel: Kernel, bounds: Mapping[str, object]) -> dict[int, str]:
    bundles = ((index, bundle) for index, bundle in enumerate(kernel.results) if bundle.role == "gradients")
    return {index: kernel.block for index, bundle in bundles if any(port.source in bounds for port in bundle.ports)}
