"""What is a plan to its user? Its data, with its text, its partition as a graph and its place on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lpc.specs import Spec, load_spec
from lpc.specs.cost import Cost, cost
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.memory.outbox import outbox
from lpc.specs.memory.prediction import Memory, predict
from lpc.specs.plan import store
from lpc.specs.plan.kernel_text import kernel_text
from lpc.specs.plan.manifest import plan_hash
from lpc.specs.plan.plan import Plan as PlanData
from lpc.specs.plan.text import text
from lpc.specs.ranks.plan import rank_plans
from lpc.specs.stages import StagedCost, staged

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Plan:
    """A built training program. `data` is the whole of it; everything else is read off `data`."""

    data: PlanData

    @cached_property
    def spec(self) -> Spec:
        """The spec that the plan was built from, with every default written out."""
        return load_spec(self.data.spec)

    @cached_property
    def partition(self) -> nx.DiGraph[str]:
        """The blocks and boundaries as a networkx graph.

        A node is a block (`modules`, `parameters`, `num_parameters`, and per sample `flops` and
        `activation_bytes`); an edge is a boundary (`link` as text, `tensors` with name, dtype, per-sample
        shape and bytes).
        """
        from lpc.graphs import from_data  # networkx is a tenth of what a run would import

        return from_data(self.data.partition)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over all content: equal plans have equal hashes."""
        return plan_hash(self.data)

    def text(self) -> str:
        """Return the readable program: its instructions, a line each."""
        return text(self.data)

    def kernel(self, name: str) -> str:
        """Return one kernel as text: its arguments, one operator a line, its results.

        Raises LpcError where the plan has no kernel of that name.
        """
        kernels = self.data.kernels["native"]
        if name not in kernels:
            message = f"the plan has no kernel `{name}`"
            notes = (f"it has {', '.join(kernels)}",)
            raise LpcError(
                Diagnostic("0704", message, place=name, notes=notes, help=did_you_mean(name, kernels))
            )
        return kernel_text(kernels[name])

    def memory(self, batch: int | None = None, lengths: Mapping[str, int] | None = None) -> Memory:
        """Return what a training step needs, predicted from the plan alone: bytes by block, and at the peak.

        `batch` is the number of samples in a batch, by default that of the spec's `data`, else 128; `lengths` gives
        the plan's other symbolic lengths, such as `{"T": 128}`. The plan of a rank also tells what the rank keeps of
        what it sends. Raises LpcError (0562) where a size is not known.
        """
        program, kernels, known = self.data.program, self.data.kernels["native"], self.lengths(batch, lengths)
        return replace(predict(program, kernels, known), outbox=outbox(program, kernels, known, self.spec.run))

    def cost(self, batch: int | None = None, lengths: Mapping[str, int] | None = None) -> Cost:
        """Return the floating-point operations of a training step, and the bytes that cross boundaries, by kernel.

        The arguments and the error are those of `memory`.
        """
        return cost(self.data.program, self.data.kernels["native"], self.lengths(batch, lengths))

    def stages(
        self, batch: int | None = None, lengths: Mapping[str, int] | None = None, devices: int = 1
    ) -> StagedCost | None:
        """Return the operations of a step's first values, solutions of variables, and weights, on up to `devices`.

        None for a plan that solves no variables. The other arguments and the error are those of `memory`.
        """
        return staged(self.data, self.spec, self.lengths(batch, lengths), devices)

    def lengths(self, batch: int | None = None, lengths: Mapping[str, int] | None = None) -> dict[str, int]:
        """Return the lengths of a batch by symbol: `B` samples, by default the spec's, and those that are given."""
        return {**(lengths or {}), "B": self.spec.batch_size if batch is None else batch}

    def ranks(self, workers: int | None = None) -> list[Plan]:
        """Return the plan of each rank, on `workers` processes or as many as the spec asks for.

        Raises LpcError (0580, 0581) where the plan cannot be divided so.
        """
        return [Plan(own) for own in rank_plans(self.data, self.spec, workers)]

    def save(self, path: str | Path) -> None:
        """Write a folder, or one archive where `path` ends in `.zip`; an earlier plan is replaced.

        Raises LpcError where the path cannot be written or holds something else.
        """
        store.save(self.data, path)


def load(path: str | Path) -> Plan:
    """Read a plan that `Plan.save` wrote. Runs no code from it; raises LpcError where it is not intact."""
    return Plan(store.load(path))
