"""How are processes arranged? A mesh of replicas and stages: rank = replica * stages + stage."""

from __future__ import annotations

from dataclasses import dataclass

from lpc.specs.model import Spec


@dataclass(frozen=True)
class Mesh:
    """So many copies of so many stages. Each stage holds some blocks; each replica works on its shard of the batch."""

    stages: int
    replicas: int = 1

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.stages * self.replicas

    def group(self, stage: int) -> tuple[int, ...]:
        """Return the ranks that hold the blocks of a stage, replica by replica."""
        return tuple(replica * self.stages + stage for replica in range(self.replicas))


def workers_of(spec: Spec) -> int:
    """Return how many processes the spec asks for."""
    stages = max((1, *(rank + 1 for rank in spec.run.placement.values())))
    return max(spec.run.workers or 1, stages * (spec.run.replicas if spec.run.workers is None else 1))


def mesh_of(spec: Spec, workers: int | None = None) -> Mesh:
    """Return the mesh of so many processes, or of as many as the spec asks for.

    Each replica has processes of its own where their number allows it; else each process works on all shards.
    """
    count = workers_of(spec) if workers is None else workers
    replicas = spec.run.replicas if count % spec.run.replicas == 0 else 1
    return Mesh(count // replicas, replicas)
