"""How are auxiliary variables solved? A torch.optim object for each, with or without memory; laws over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lpc.runtime.optimizer_class import class_of, options_of
from lpc.runtime.schedules import needed
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import Law, Variable

SHAPE = "@shape"  # the entry of the variable's shape
GROUP = "group."  # before what a class of another package counts in its parameter group
Memory = dict[str, Any]  # what an optimizer knows of one tensor, by entry


class VariableOptimizer:
    """Steps one variable in place; one object of torch.optim, whose tensor and memory are exchanged.

    `kept` is what a persistent one knows between batches, beside what a cache has of samples; `shape` that of the
    variable for which it was kept.
    """

    def __init__(self, plan: Variable, device: torch.device) -> None:
        self.plan = plan
        self.place = f"optimizer of variable {plan.name}"
        self.kept: Memory = {}
        self.shape: tuple[int, ...] = ()
        self.recalled: Memory = {}
        self.optimizer = self._construct(torch.zeros(1, device=device))
        self.group = self.optimizer.param_groups[0]
        self.options = frozenset(self.group)

    def begin(self, memory: Memory) -> None:
        """Begin to solve, with what is known."""
        self.recalled = memory

    def step(self, variable: Tensor, slope: Tensor) -> None:
        """Step a variable [B, ...] along its slope, in place."""
        if self.group["params"][0] is not variable:
            self._take_up(variable)
        variable.grad = slope if slope.is_contiguous() else slope.contiguous()
        self.optimizer.step()
        variable.grad = None

    def end(self) -> Memory:
        """Let go of the variable; return what is known now."""
        memory = dict(self.optimizer.state.pop(self.group["params"][0], self.recalled))
        for entry in [e for e in self.group if e not in self.options]:
            memory[f"{GROUP}{entry}"] = self.group.pop(entry)
        self.optimizer.state.clear()
        self.group["params"][0], self.recalled = self.none, {}
        return memory

    def state(self) -> Iterator[tuple[str, Any]]:
        """Yield (entry, value) of what is kept; nothing before it was."""
        if self.shape:
            yield SHAPE, list(self.shape)
            yield from self.kept.items()

    def load_state(self, values: Memory) -> None:
        """Replace what is kept; counters go where torch would have them."""
        self.shape = tuple(values.get(SHAPE, ()))
        counters = self.none.device if self.group.get("fused") or self.group.get("capturable") else "cpu"
        self.kept = {
            entry: value.to(self.none.device if value.dim() else counters, copy=True)
            if isinstance(value, Tensor) else value
            for entry, value in values.items() if entry != SHAPE
        }  # fmt: skip

    def _take_up(self, variable: Tensor) -> None:
        self.group["params"][0] = variable
        if self.recalled:
            own = {entry: value for entry, value in self.recalled.items() if not entry.startswith(GROUP)}
            self.optimizer.state[variable] = own
            counted = {e.removeprefix(GROUP): v for e, v in self.recalled.items() if e not in own}
            self.group.update(counted)

    def _construct(self, nothing: Tensor) -> torch.optim.Optimizer:
        self.none = nothing
        kind = class_of(self.plan.optimizer, self.place)
        known = options_of(kind)
        given = self.plan.options.items()
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given}
        chosen = is_class(self.plan.optimizer) or not {"fused", "foreach"}.isdisjoint(options)
        ways: list[dict[str, Any]] = [] if chosen or "fused" not in known else [{"fused": True}]
        for way in [*ways, {}]:
            try:
                return kind([nothing], **options, **way)
            except RuntimeError as error:  # fused steps that do not exist for this device or dtype
                problem: Exception = error
            except Exception as error:
                problem = error
                break
        message = f"`{self.plan.optimizer}` refuses its options: {problem}"
        raise LpcError(Diagnostic("0654", message, place=self.place))


class LawClock:
    """Tells what a law says at a step."""

    def __init__(self, law: Law, device: torch.device, dtype: torch.dtype) -> None:
        self.law, self.device, self.dtype = law, device, dtype
        self.total_steps: int | None = None
        self.steps_per_epoch: int | None = None
        self.known = (0, law.start)

    @property
    def needs_lengths(self) -> bool:
        """Does it count epochs?"""
        return self.law.unit == "epoch"

    def at(self, step: int) -> Tensor:
        """Return the factor at a step, a 0-d tensor."""
        time = step
        if self.needs_lengths and step:
            time = step // needed(self.steps_per_epoch, "an epoch", "unit=epoch")
        return torch.full((), self.value(time), dtype=self.dtype, device=self.device)

    def value(self, time: int) -> float:
        """Return the factor after `time` turns."""
        done, value = self.known if self.known[0] <= time else (0, self.law.start)
        law = self.law
        while done < time and (law.until is None or value < law.until):
            value = (value + law.add) * law.factor
            done += 1
        self.known = (done, value)
        return value
