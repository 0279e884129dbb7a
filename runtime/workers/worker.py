"""What is one of the processes that run a plan together? A trainer of its rank's part, which talks to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lpc.runtime.batch import Batch
from lpc.runtime.data import Split, Splits
from lpc.runtime.engine import Noise, SplitName
from lpc.runtime.meter import Reading
from lpc.runtime.trainer import Trainer
from lpc.runtime.workers.mailbox import Mailbox
from lpc.runtime.workers.pace import Pace
from lpc.runtime.workers.shards import gathered
from lpc.runtime.workers.transport import Stamp, Transport
from lpc.specs.loader import load_spec
from lpc.specs.plan.manifest import plan_hash
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.plan import holders


class Worker(Trainer):
    """Executes one rank's plan. All ranks call the same methods in the same order, with the same batches.

    `state_dict`, `step` and `gradients` speak of what this rank holds; `evaluate`, `predict` and `fit` give the same on
    every rank. `plan` is the whole plan, of which `plans` holds a part for each rank. Of replicas the first
    one keeps: it writes their blocks, and holds the running statistics.

    What is sharded over replicas is given whole: `state_dict` and `gradients` then wait for the ranks that hold the
    other parts, and `load_state_dict` takes whole tensors, of which each rank keeps its part.

    With `run.staleness` steps overlap, as values come or as `recorded` says; readings are given when a step has ended,
    and whoever asks for the state or a measurement has all steps end first.
    """

    def __init__(
        self,
        plan: Plan,
        plans: Sequence[Plan],
        transport: Transport,
        device: str | torch.device = "auto",
        data: Splits | None = None,
        recorded: Mapping[int, int] | None = None,
    ) -> None:
        staleness = load_spec(plan.spec).run.staleness
        mailbox = Mailbox(transport, staleness) if staleness else None
        super().__init__(plans[transport.rank], device, data, mailbox or transport)
        self.pace = None if mailbox is None else Pace(self.machine, mailbox, staleness, recorded)
        self.identity = plan_hash(plan)
        held = holders(plans)
        before = {block for own in held[: transport.rank] for block in own}
        self.keeps = before.isdisjoint(held[transport.rank])
        shards = self.plan.program.shards
        self.group = [rank for rank, own in enumerate(plans) if own.program.shards.keys() == shards.keys()]
        self.began: Callable[[], None] | None = None  # called after the first step

    def advance(self, parts: Sequence[Batch]) -> list[Reading]:
        """Run one training step on its batches and return the readings of this rank's metrics."""
        readings = super().advance(parts) if self.pace is None else self._overlapping(self.pace, parts)
        if self.began is not None:
            self.began()
            self.began = None
        return readings

    def settle(self) -> list[Reading]:
        """Bring steps that have begun to their ends and return their readings."""
        return [] if self.pace is None else self.pace.settle()

    def _overlapping(self, pace: Pace, parts: Sequence[Batch]) -> list[Reading]:
        if self._scheduled != self.phase:  # no step of one phase is under way in another
            pace.readings = pace.settle()
        frame, phase = self.frame(parts)
        readings = pace.advance(frame, phase.index)
        self._variables = pace.returned
        self.steps_done += 1
        return readings

    def _ended(self) -> None:
        if self.pace is not None:
            self.pace.readings = self.settle()  # the next step tells them
            self._variables = self.pace.returned

    def state_dict(self) -> dict[str, Tensor]:
        self._ended()
        return self.whole(super().state_dict(), "the state")

    def load_state_dict(self, values: Mapping[str, Tensor], strict: bool = True) -> None:
        if self.plan.program.shards:  # what was lent has been taken
            self.transport.exchange(None, Stamp(self.steps_done, 0, "the loading of a state"))
        super().load_state_dict(values, strict)

    def gradients(self, batch: Batch | Sequence[Batch], noise: Noise | None = None) -> dict[str, Tensor]:
        self._ended()
        return self.whole(super().gradients(batch, noise), "the gradients")

    def whole(self, found: dict[str, Tensor], what: str) -> dict[str, Tensor]:
        """Return tensors of which those that are sharded are whole: all ranks that hold parts give them."""
        shards, state = self.plan.program.shards, self.plan.program.state
        entries = [state[name] for name in shards if name in found]
        if not entries:
            return found
        stamp, own = Stamp(self.steps_done, 0, what), [found[entry.name] for entry in entries]
        held = [tensor.clone() for tensor in own] if self.transport.keeps else own
        for rank in self.group:
            if rank != self.transport.rank:
                self.transport.send(rank, stamp, held)
        joined = gathered(entries, found, shards, self.group, self.transport, stamp)
        return found | {entry.name: tensor for entry, tensor in zip(entries, joined, strict=True)}

    def variables(self) -> dict[str, Tensor]:
        self._ended()
        return super().variables()

    def evaluate(self, data: SplitName | Split | Iterable[Batch] | None = None) -> dict[str, float]:
        self._ended()
        return super().evaluate(data)

    def predict(self, inputs: Tensor | Batch) -> Tensor:
        self._ended()
        return super().predict(inputs)
