"""Which kernels does a block between auxiliary variables need? Parts of its one graph, by what an evaluation tells."""

from __future__ import annotations

from collections.abc import Sequence

from lpc.compiler.capture.cut import around_a_wait, ports
from lpc.compiler.capture.joint import LocalGraph, Slot
from lpc.compiler.capture.lower import lower
from lpc.compiler.capture.relaxed import ANCHOR, MEMORY, PULL, SLOPE, slope_slot
from lpc.compiler.localize import LocalProblem
from lpc.compiler.relaxation import RelaxKernels, Twice
from lpc.compiler.variables import Variable, Variables
from lpc.specs.plan.kernel import Kernel


def relaxed_kernels(
    local: LocalGraph, problem: LocalProblem, leaving: Sequence[str], variables: Variables
) -> RelaxKernels:
    """Cut a block's graph into what the step calls.

    Losses and metrics are told, and buffers moved, by the block's first evaluation in the step; where variables are
    kept from an earlier visit that may not happen, and the step of the weights does it.
    """
    return _Cutter(local, problem, leaving, variables).kernels()


class _Cutter:
    def __init__(
        self, local: LocalGraph, problem: LocalProblem, leaving: Sequence[str], variables: Variables
    ) -> None:
        self.local, self.problem, self.variables = local, problem, variables
        self.whole = ports(local)
        self.slots = [slot for slot, _ in self.whole.results]
        self.outputs = [s for s in self.slots if s.role == "output" and s.source in set(leaving)]
        self.slopes = [v for v in problem.reads if slope_slot(SLOPE, v) in self.slots]
        self.pulls = [s for s in self.slots if s.role == "cotangent" and s.bundle.startswith(PULL)]
        self.buffers = [s for s in self.slots if s.role == "buffers" and s.bundle != MEMORY]

    def kernels(self) -> RelaxKernels:
        problem, late = self.problem, self.variables.cached
        early = not late and bool(self.outputs or self.slopes or self.pulls)
        told, moved = self.told(), self.buffers
        local = self.weights() + ([] if early else told) + ([] if early and not self.variables.moving else moved)
        again = moved if self.variables.moving else []
        first = [*told, *moved] if early else again
        anew = self.variables.sweeps > 1 or self.repeats() or problem.group is not None
        if early and self.outputs and not problem.reads and not again and problem.group is None:
            return self.halves(first, local, anew)
        forward = self.twice("forward", self.outputs, first, again, anew) if self.outputs else None
        solved = {
            v.value: self.twice(
                self.named(SLOPE, v), [slope_slot(SLOPE, v)],
                first if (v is self.slopes[-1] or self.pulls) and not self.outputs else again, again, True,
            )
            for v in self.slopes
        }  # fmt: skip
        pull = self.twice(PULL, self.pulls, again if self.outputs else first, again, True) if self.pulls else None
        anchors = {
            v.value: self.kernel(self.named(ANCHOR, v), [slope_slot(ANCHOR, v)])
            for v in problem.reads
            if slope_slot(ANCHOR, v) in self.slots
        }
        fit = self.kernel("local", local) if local else None
        return RelaxKernels(forward, solved, anchors, fit, self.solve(), pull)

    def halves(self, first: list[Slot], local: list[Slot], anew: bool) -> RelaxKernels:
        """A block that reads no variable computes nothing twice: its weights learn from what the forward pass saved."""
        later = {name for v in self.problem.makes for name in (v.name, *v.laws)}
        forward, backward = around_a_wait(self.local, {*self.outputs, *first}, set(local), later)
        again = self.kernel("forward_again", self.outputs) if anew else forward
        return RelaxKernels(Twice(forward, again), {}, {}, backward if local else None, self.solve())

    def solve(self) -> Kernel | None:
        """What finds the weights' gradients in further steps on the batch."""
        optimizer, gradients = self.problem.optimizer, [s for s in self.slots if s.role == "gradients"]
        return self.kernel("solve", gradients) if optimizer is not None and optimizer.steps > 1 else None

    def told(self) -> list[Slot]:
        """What is recorded of the block's own losses."""
        own = {loss.name for loss in self.problem.losses}
        found = [s for s in self.slots if s.role == "loss" and s.source in own]
        return found + [s for s in self.slots if s.role == "metric" and s.source != "loss"]

    def weights(self) -> list[Slot]:
        """What the weights' step gives: gradients, cotangents for other pieces, how well they fit the variables."""
        own = {loss.name for loss in self.problem.losses}
        found = [s for s in self.slots if s.role == "loss" and s.source not in own]
        found += [s for s in self.slots if s.role == "metric" and s.source == "loss"]
        found += [s for s in self.slots if s.role == "cotangent" and s not in self.pulls]
        return found + [s for s in self.slots if s.role == "gradients" or s.bundle == MEMORY]

    def repeats(self) -> bool:
        """Is what the block computes wanted anew, while variables are solved all at once?"""
        pulled = any(v.anchor for v in self.problem.makes)
        return self.variables.sweep == "jacobi" and pulled and any(v.steps > 1 for v in self.problem.makes)

    def named(self, kind: str, variable: Variable) -> str:
        return kind if len(self.problem.reads) == 1 else f"{kind}.{variable.value}"

    def twice(self, kind: str, always: list[Slot], first: list[Slot], again: list[Slot], repeated: bool) -> Twice:
        """Return the kernels of a first evaluation and of later ones, which may be one."""
        if first == again:
            kernel = self.kernel(kind, [*always, *again])
            return Twice(kernel, kernel)
        told = self.kernel(f"{kind}_first", [*always, *first])
        return Twice(told, self.kernel(kind, [*always, *again]) if repeated else told)

    def kernel(self, kind: str, wanted: list[Slot]) -> Kernel:
        block, chosen = self.local.block, set(wanted)
        results = [(s, n) for s, n in self.whole.results if s in chosen]
        return lower(f"{block}.{kind}", block, self.local.graph, self.whole.arguments, results, self.local.symbols)
