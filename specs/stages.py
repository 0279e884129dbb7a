"""What do the parts of a step with auxiliary variables cost? First values, solutions and weights, on 1 device and more.

With F, I and G the operations of a block's forward pass and of the gradients by its input and its weights, and I- those
of I without the first layer, one sweep of n gradient steps over blocks 1 to K costs (BlockProp):

    init    sum of F, k < K          solution    n times the sum of F + I, k > 1          weights    sum of F + I- + G

and what an init of the same step has computed is not computed again for the weights. Variables are solved one after
another, so that more devices help the weights alone, which wait for nothing; all else is worth its while seldom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lpc.specs.cost import leaves
from lpc.specs.diagnostics import LpcError
from lpc.specs.flops import kernel_flops
from lpc.specs.memory.sizes import Lengths
from lpc.specs.model import Spec
from lpc.specs.plan.instructions import Call, Due, Instruction, Relax, Repeat, Send
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.placement import placement_of
from lpc.specs.ranks.plan import rank_plans

SELDOM = 5  # visits from one solution to the next, where a plan does not say so itself

Blocks = dict[str, int]


@dataclass(frozen=True)
class Stages:
    """Operations by block of a step in which everything is due. `alone` are the weights' where no init ran before.

    `period` is the plan's own, visits of a sample from one solution to the next. `together`: all variables at once.
    """

    init: Blocks
    solution: Blocks
    weights: Blocks
    alone: Blocks
    period: int
    together: bool

    def path(self, placement: Mapping[str, int], period: int) -> float:
        """Return the operations that wait for each other in a mean step: (init + solution) / period + weights.

        With a period of 1 that is a step of its own; beyond, a sample's variables last, and the init is that of its
        solution. `placement` gives each block's device.
        """
        solved = _largest(self.solution, placement) if self.together else float(sum(self.solution.values()))
        before = (sum(self.init.values()) + solved) / period
        return before + _largest(self.weights if period == 1 else self.alone, placement)


@dataclass(frozen=True)
class Row:
    """On so many devices: the path of a step that solves each time, of one that does so seldom, and its messages.

    Messages are None where no plan of so many ranks can be derived.
    """

    devices: int
    path: float
    seldom: float
    messages: float | None


@dataclass(frozen=True)
class StagedCost:
    """The stages of a plan's step, the period of `seldom` steps, and a row for each number of devices."""

    stages: Stages
    period: int
    rows: tuple[Row, ...]


def staged(plan: Plan, spec: Spec, lengths: Lengths, devices: int) -> StagedCost | None:
    """Return what a plan's step costs, stage by stage; None where it solves no variables. Errors: 0562 as `cost`."""
    found = stages(plan.program.step, plan.kernels["native"], lengths)
    if not found.solution:
        return None
    period, rows = found.period if found.period > 1 else SELDOM, list[Row]()
    for count in range(1, devices + 1):
        try:
            placement = placement_of(plan, spec, count)
        except LpcError:
            break
        if len(set(placement.values())) == count:
            messages = _messages(plan, spec, count, lengths)
            rows.append(Row(count, found.path(placement, 1), found.path(placement, period), messages))
    return StagedCost(found, period, tuple(rows))


def stages(step: Sequence[Instruction], kernels: Mapping[str, Kernel], lengths: Lengths) -> Stages:
    """Return the operations of a step's stages. Errors: 0562 a length that is not given."""
    sorter = _Sorter(kernels, lengths)
    sorter.body(step, 1)
    return Stages(sorter.init, sorter.solution, sorter.weights, sorter.alone(), sorter.period, sorter.together)


@dataclass
class _Sorter:
    """Goes through a step: what comes before the first `relax` or at first visits, what solves, and what is after."""

    kernels: Mapping[str, Kernel]
    lengths: Lengths
    init: Blocks = field(default_factory=dict)
    solution: Blocks = field(default_factory=dict)
    weights: Blocks = field(default_factory=dict)
    period: int = 1
    together: bool = False
    kept: set[str] = field(default_factory=set)  # blocks whose weights learn from what their forward pass has saved

    def body(self, body: Sequence[Instruction], times: int) -> None:
        last = max((i for i, one in enumerate(body) if _relaxes(one)), default=-1)
        first = next((i for i, one in enumerate(body) if _relaxes(one)), len(body))
        for index, one in enumerate(body):
            inner = getattr(one, "body", ())
            if isinstance(one, Relax):
                self.everything((one,), times, self.solution)
            elif isinstance(one, Due):
                self.period = max(self.period, one.period)
                self.everything(inner, times, self.solution if one.period else self.init)
            elif inner and index <= last:
                self.body(inner, times * (one.count if isinstance(one, Repeat) else 1))
            else:
                stage = self.init if index < first else self.solution if index < last else self.weights
                self.everything((one,), times, stage)

    def everything(self, body: Sequence[Instruction], times: int, stage: Blocks) -> None:
        for one in body:
            inner = getattr(one, "body", ())
            self.together |= isinstance(one, Relax) and len(one.variables) > 1
            self.everything(inner, times * (one.count if isinstance(one, Repeat) else 1), stage)
            if isinstance(one, Call):
                kernel = self.kernels[one.kernel]
                flops = times * sum(kernel_flops(kernel, self.lengths).values())
                stage[kernel.block] = stage.get(kernel.block, 0) + flops
                if any(bundle.role == "residuals" for bundle in kernel.arguments):
                    self.kept.add(kernel.block)

    def alone(self) -> Blocks:
        """Return what the weights' steps cost where forward passes must be made for them."""
        return {block: flops + (self.init.get(block, 0) if block in self.kept else 0)
                for block, flops in self.weights.items()}  # fmt: skip


def _relaxes(one: Instruction) -> bool:
    return isinstance(one, Relax | Due) or any(_relaxes(inner) for inner in getattr(one, "body", ()))


def _largest(blocks: Mapping[str, int], placement: Mapping[str, int]) -> float:
    loads: dict[int, int] = {}
    for block, flops in blocks.items():
        loads[placement[block]] = loads.get(placement[block], 0) + flops
    return float(max(loads.values(), default=0))


def _messages(plan: Plan, spec: Spec, count: int, lengths: Lengths) -> float | None:
    """Return how many tensors devices send each other in a mean step; None where a step cannot be divided."""
    if count == 1:
        return 0.0
    try:
        steps = [part.program.step for part in rank_plans(plan, spec, count)]
    except LpcError:
        return None
    sent = (times for step in steps for one, times, _ in leaves(step, lengths) if isinstance(one, Send))
    return float(sum(sent))
