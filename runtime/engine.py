"""How does a plan step, evaluate and predict? One object holds the state and runs the plan's sections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from lpc.runtime.batch import Batch, split_batch
from lpc.runtime.corrections import Offset
from lpc.runtime.data import Split, Splits, batches, num_batches, open_data
from lpc.runtime.machine import Machine, count_loads, loaded_fields
from lpc.runtime.meter import Meter, Reading, combine
from lpc.runtime.phases import Stretch, stretch_at, stretches
from lpc.runtime.resources import Frame
from lpc.runtime.schedules import needs_lengths
from lpc.runtime.selection import choose_device, choose_kernels
from lpc.runtime.state import State
from lpc.runtime.workers.pace import Pace
from lpc.runtime.workers.transport import Alone, Stamp, Transport
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.loader import load_spec
from lpc.specs.plan.manifest import plan_hash
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.verify import verify

SplitName = Literal["train", "validation", "test"]
Noise = Mapping[str, Tensor | Sequence[Tensor]]


class Engine:
    """Executes a plan on a device.

    `device` is `auto` (then the spec's `run.device`, then the best one here), `cpu`, `cuda` or `cuda:N`.
    `data` replaces the spec's own data; `transport` leads to the other ranks where the plan is that of one.
    Errors: LpcError for a device or a torch that cannot run the plan.
    """

    def __init__(
        self,
        plan: Plan,
        device: str | torch.device = "auto",
        data: Splits | None = None,
        transport: Transport | None = None,
    ) -> None:
        broken = [d for d in verify(plan) if d.severity == "error"]
        if broken:
            raise LpcError(broken)
        self.plan = plan
        self.spec = load_spec(plan.spec)
        self.device = choose_device(plan, device if str(device) != "auto" else self.spec.run.device)
        kernels = choose_kernels(plan, self.device)
        self.state = State(plan.program.state, plan.weights, self.device, plan.program.shards)
        self.transport = transport or Alone()
        self.machine = Machine(plan.program, kernels, self.state, self.device, self.spec.run.seed, self.transport)
        self.steps_done = 0
        self.per_step = max(count_loads(plan.program.steps[0]), 1)
        self._given = data
        self.pace: Pace | None = None  # where its steps overlap
        self.keeps = True  # what it holds is saved by it, and not by another rank that holds the same

    def state_dict(self) -> dict[str, Tensor]:
        """Return {name: tensor}: the network's names and `heads.<block>.<name>`; tensors share memory."""
        return self.state.state_dict()

    def load_state_dict(self, values: Mapping[str, Tensor], strict: bool = True) -> None:
        """Copy values into parameters and buffers. Errors: names and shapes that do not fit."""
        self.state.load_state_dict(values, strict)

    def step(self, batch: Batch | Sequence[Batch]) -> dict[str, Tensor]:
        """Run one training step and return {metric: 0-d tensor}, without waiting for the device.

        With `accumulate: n` a step takes n batches, or one batch that is cut into n equal parts.
        """
        return combine(self.advance(self.parts(batch)), self.plan.program.metrics)

    def advance(self, parts: Sequence[Batch]) -> list[Reading]:
        """Run one training step on its batches and return the metrics' readings."""
        frame, phase = self.frame(parts)
        self._variables = {}  # those of the step before need not be there any more
        self.machine.run(self.machine.step(phase.index), frame)
        self._variables = frame.returned
        self.steps_done += 1
        return frame.readings

    def frame(self, parts: Sequence[Batch]) -> tuple[Frame, Stretch]:
        """Return what the next step runs in, and its phase, for which optimizers are made ready."""
        phase = self.phase
        if self.steps_done == phase.first or self._scheduled != phase:
            self._schedule(phase)
        return Frame(iter(parts), self.steps_done, start=phase.first), phase

    def settle(self) -> list[Reading]:
        """Bring steps that have begun to their ends, where steps overlap, and return their readings."""
        return []

    def gradients(self, batch: Batch | Sequence[Batch], noise: Noise | None = None) -> dict[str, Tensor]:
        """Return {parameter: gradient} as the optimizers would receive them in this phase; changes nothing.

        `noise` fixes random sites by name; with `accumulate: n` a site may have a sequence of n tensors.
        """
        parts = self.parts(batch)
        phase, drawn = self.phase, self._noise(noise or {}, len(parts))
        frame = Frame(iter(parts), self.steps_done, drawn, start=phase.first)
        self.machine.run(self.machine.gradients(phase.index), frame)
        return {name: gradient.clone() for name, gradient in frame.gradients.items()}

    def variables(self) -> dict[str, Tensor]:
        """Return {boundary: auxiliary variable [B, ...]} as the last step has left them; none before the first.

        A boundary that several tensors cross has one name for each: `b1->b2:NODE`.
        """
        return dict(self._variables)

    def evaluate(self, data: SplitName | Split | Iterable[Batch] | None = None) -> dict[str, float]:
        """Return {metric: value} over a split or over batches; by default the test split, else validation."""
        meter = Meter(self.plan.program.metrics)
        for batch in self._evaluation_batches(data):
            frame = self.machine.run(self.machine.evaluate, Frame(iter([batch])))
            with torch.inference_mode():
                meter.add(frame.readings)
        return self.joined(meter).values()

    def joined(self, meter: Meter) -> Meter:
        """Return what all ranks have measured, on each of them."""
        if self.transport.size == 1:
            return meter
        return meter.joined(self.transport.exchange(meter.portable(), Stamp(self.steps_done, 0, "metrics")))

    @cached_property
    def identity(self) -> str:
        """The hash of the whole plan, which checkpoints carry."""
        return plan_hash(self.plan)

    def predict(self, inputs: Tensor | Batch) -> Tensor:
        """Return the network's output [B, ...] for its inputs: {field: tensor}, or its only input."""
        section = self.plan.program.predict
        if isinstance(inputs, Tensor):
            names = loaded_fields(section)
            if len(names) != 1:
                message = f"the network has the inputs {', '.join(names)}; one tensor was given"
                raise LpcError(Diagnostic("0656", message, place="inputs"))
            inputs = {names[0]: inputs}
        frame = self.machine.run(self.machine.predict, Frame(iter([inputs])))
        return next(iter(frame.returned.values())).clone()

    @cached_property
    def splits(self) -> Splits:
        """The data: what was given to the trainer, else what the spec's `data` section names."""
        if self._given is not None:
            return self._given
        if self.spec.data is None:
            raise LpcError(Diagnostic("0666", "the spec has no `data` section", place="data"))
        fields = self.plan.program.fields
        return open_data(self.spec.data, fields, self.spec.run.seed, self.spec.origin)

    @property
    def batch_size(self) -> int:
        """Samples in one batch, from the spec."""
        return self.spec.batch_size

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch: a group of batches that is not full is left out."""
        found = num_batches(self.splits.train, self.batch_size) // self.per_step
        if found:
            return found
        message = f"an epoch has less than the {self.per_step} batches of {self.batch_size} of one step"
        raise LpcError(Diagnostic("0667", message, place="data"))

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, from the spec's `run.steps` or `run.epochs`."""
        return self.stretches[-1].end or 0

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """The phases of the run; without phases the whole run is one."""
        run = self.spec.run
        counted = run.steps is None if not run.phases else any(phase.steps is None for phase in run.phases)
        return stretches(run, self.steps_per_epoch if counted and self._has_data else None)

    @property
    def phase(self) -> Stretch:
        """The phase of the next step; a plan with a single step needs no lengths to know."""
        return stretch_at(self.stretches, self.steps_done) if self.plan.program.phases else Stretch(0, 0, None)

    @property
    def _has_data(self) -> bool:
        return self._given is not None or self.spec.data is not None

    _scheduled: Stretch | None = None
    _variables: Mapping[str, Tensor] = MappingProxyType({})

    def _schedule(self, phase: Stretch) -> None:
        """Tell optimizers whose schedules need it how long the phase and an epoch are; offsets begin anew."""
        self._scheduled = phase
        timed: list[Any] = [o for o in self.machine.optimizers.values() if needs_lengths(o.plan.schedule)]
        timed += [c for c in self.machine.corrections.values() if c.needs_lengths]
        timed += [law for law in self.machine.laws.values() if law.needs_lengths]
        for one in timed:
            one.steps_per_epoch = self.steps_per_epoch if self._has_data else None
            one.total_steps = self.stretches[phase.index].length
        if self.steps_done == phase.first and phase.index:
            for correction in self.machine.corrections.values():
                correction.offset = Offset()

    def parts(self, batch: Batch | Sequence[Batch]) -> Sequence[Batch]:
        """Return the batches of one step: those given, or one that is cut. Errors: 0658 a wrong number of them."""
        if isinstance(batch, Mapping):
            return [batch] if self.per_step == 1 else split_batch(batch, self.per_step)
        if len(batch) == self.per_step:
            return batch
        message = f"a step takes {self.per_step} batches, {len(batch)} were given"
        raise LpcError(Diagnostic("0658", message, place="batch"))

    def _noise(self, noise: Noise, parts: int) -> list[dict[str, Tensor]]:
        for site in noise:
            if site not in self.machine.noise:
                known = ", ".join(self.machine.noise) or "none"
                message = f"`{site}` is no random site of this plan"
                raise LpcError(Diagnostic("0646", message, place="noise", notes=(f"sites are: {known}",)))
        return [
            {site: given if isinstance(given, Tensor) else given[part] for site, given in noise.items()}
            for part in range(parts)
        ]

    def _evaluation_batches(self, data: SplitName | Split | Iterable[Batch] | None) -> Iterator[Batch]:
        if data is None:
            data = "test" if self.splits.test is not None else "validation"
        if isinstance(data, str):
            found: Split | None = getattr(self.splits, data, None)
            if found is None:
                message = f"the data has no `{data}` split"
                raise LpcError(Diagnostic("0665", message, place="data"))
            data = found
        if isinstance(data, Split):
            size, device = self.batch_size, self.device
            data = batches(data, size, seed=self.spec.run.seed, epoch=0, shuffle=False, device=device)
        return chain(data)
