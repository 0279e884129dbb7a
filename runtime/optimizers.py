"""How does a block's optimizer step? One torch.optim object a block, fed with gradients from kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lpc.runtime.gradients import Gradients, clip
from lpc.runtime.inner import OUTER, InnerSteps
from lpc.runtime.kfac import KFAC, Layer
from lpc.runtime.optimizer_class import class_of, options_of
from lpc.runtime.schedules import is_constant, law_of, lr_factor
from lpc.runtime.state import State
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import Optimizer

GROUP = "group."


class BlockOptimizer:
    """A block's parameters with their optimizer, learning-rate schedule and clipping."""

    def __init__(self, plan: Optimizer, state: State) -> None:
        self.plan = plan
        self.place = f"optimizer of block {plan.block}"
        self.names = [name for group in plan.groups for name in group.parameters]
        self.parameters = [self._parameter(state, name) for name in self.names]
        self.kind = class_of(plan.name, self.place)
        self.known = options_of(self.kind)
        self.optimizer = self._construct()
        self.rates = [
            group["lr"] * own.lr_factor
            for group, own in zip(self.optimizer.param_groups, plan.groups, strict=True)
        ]
        self.schedule = {**plan.schedule, "then": law_of(plan.schedule)}
        self.constant = is_constant(self.schedule)
        self.clips = plan.clip is not None and math.isfinite(plan.clip)  # infinity is how a spec says `none`
        self._arrange()
        self.inner = InnerSteps(plan, self.parameters, self.place)
        self.total_steps: int | None = None
        self.steps_per_epoch: int | None = None
        self._set_rates(1.0)

    def step(self, gradients: Gradients, step: int) -> None:
        """Step with one gradient a parameter, in the order of `names`; None leaves a parameter as it is."""
        self._begin(step)
        for parameter, gradient in zip(self.parameters, self.prepare(self.inner.pulled(gradients)), strict=True):
            parameter.grad = gradient
        self._step()
        for parameter in self.parameters:
            parameter.grad = None
        self.inner.end()

    @property
    def moments(self) -> list[str]:
        """The outside names of the Kronecker factors that it takes beside gradients, two a layer."""
        return [source for layer in self.plan.factors for source in layer.sources]

    def observe(self, moments: Gradients) -> None:
        """Take what the next step needs beside gradients, in the order of `moments`."""
        assert isinstance(self.optimizer, KFAC), "an optimizer with factors"
        pairs = zip(moments[::2], moments[1::2], strict=True)
        self.optimizer.observe([None if a is None or s is None else (a, s) for a, s in pairs])

    def _begin(self, step: int) -> None:
        """Set the rates of the next step; before the first one on a batch, forget what is not to persist."""
        if not (self.constant and self.inner.constant):
            outer = 1.0 if self.constant else lr_factor(self.schedule, step, self.total_steps, self.steps_per_epoch)
            self._set_rates(outer * self.inner.factor)
        if self.inner.first and self.plan.state == "reset":
            self._forget()
        self.inner.begin()

    def _forget(self) -> None:
        self.optimizer.state.clear()
        for group in self.optimizer.param_groups if is_class(self.plan.name) else ():
            for entry in [e for e in group if e != "params" and e not in self.known]:
                del group[entry]

    def shift(self, directions: Gradients, strength: float | Tensor) -> None:
        """Move parameters against `directions`, one a parameter in the order of `names`, by their learning rates."""
        by_name = dict(zip(self.names, directions, strict=True))
        for own, group in zip(self.plan.groups, self.optimizer.param_groups, strict=True):
            for name, parameter in zip(own.parameters, group["params"], strict=True):
                direction = by_name[name]
                if direction is not None:
                    parameter.sub_(direction * (group["lr"] * strength))

    def prepare(self, gradients: Gradients) -> Gradients:
        """Return what the optimizer receives: clipped, and laid out as the parameters are.

        torch's fused CPU steps read a gradient of other strides, even an expanded one, as contiguous.
        """
        if self.clips:
            gradients = clip(gradients, self.plan.clip or 0.0)
        if is_class(self.plan.name):  # which may write over what it is given
            return [g if g is None else g.clone(memory_format=torch.contiguous_format) for g in gradients]
        return [g if g is None or g.is_contiguous() else g.contiguous() for g in gradients]

    @cached_property
    def _step(self) -> Callable[[], Any]:
        return self.optimizer.step

    def _set_rates(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def state(self) -> Iterator[tuple[str, str, Any]]:
        """Yield (parameter, entry, value) for every entry of the optimizer's state.

        What a class of another package counts in a group is `group.ENTRY` of the group's first parameter.
        """
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for entry, value in self.optimizer.state.get(parameter, {}).items():
                yield name, entry, value
        yield from self.inner.state(self.names)
        if not is_class(self.plan.name):
            return
        for own, group in zip(self.plan.groups, self.optimizer.param_groups, strict=True):
            for entry, value in group.items():
                if entry != "params" and entry not in self.known:
                    yield own.parameters[0], f"{GROUP}{entry}", value

    def load_state(self, values: dict[str, dict[str, Any]]) -> None:
        """Replace the optimizer's state by {parameter: {entry: value}}; options stay as the plan says."""
        values, outside = _apart(values, OUTER)
        self.inner.load_state(self.names, outside)
        values, counted = _apart(values, GROUP)
        groups = self.optimizer.state_dict()["param_groups"]
        order = [index for group in groups for index in group["params"]]
        numbered = {i: values[name] for i, name in zip(order, self.names, strict=True) if name in values}
        self.optimizer.load_state_dict({"state": numbered, "param_groups": groups})
        for name, parameter in zip(self.names, self.parameters, strict=True):
            self._restore(parameter, values.get(name, {}))
        for own, group in zip(self.plan.groups, self.optimizer.param_groups, strict=True):
            group.update(counted.get(own.parameters[0], {}))

    def _restore(self, parameter: nn.Parameter, values: dict[str, Any]) -> None:
        """Undo torch's casts: it gives every entry but `step` the parameter's dtype, NAdam's products too."""
        held = self.optimizer.state[parameter] if values else {}
        for entry, value in values.items():
            if isinstance(value, Tensor):
                counter = value.dim() == 0 and parameter.dim() > 0  # counters live where `step` does
                like = held.get("step", held[entry]) if counter else held[entry]
                held[entry] = value.to(like.device, copy=True)

    def _parameter(self, state: State, name: str) -> nn.Parameter:
        tensor = state[name]
        if isinstance(tensor, nn.Parameter):
            return tensor
        message = f"`{name}` is a buffer; an optimizer steps parameters"
        raise LpcError(Diagnostic("0655", message, place=self.place))

    def _construct(self) -> torch.optim.Optimizer:
        self._check_options(self.known)
        given = self.plan.options.items()
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given}
        for attempt in self._attempts():
            try:
                return self.kind(self._groups(), **options, **attempt)
            except RuntimeError as error:  # fused or foreach that does not exist for this device or dtype
                problem: Exception = error
            except Exception as error:  # classes of other packages fail in ways of their own
                problem = error
                break
        message = f"`{self.plan.name}` refuses its options: {problem}"
        raise LpcError(Diagnostic("0654", message, place=self.place))

    def _arrange(self) -> None:
        """Tell an optimizer by factors which parameters make a layer."""
        if not isinstance(self.optimizer, KFAC):
            return
        own = dict(zip(self.names, self.parameters, strict=True))
        layers = self.plan.factors
        self.optimizer.layers = [Layer(f.weight, own[f.weight], own[f.bias] if f.bias else None) for f in layers]

    def _attempts(self) -> list[dict[str, Any]]:
        """The fastest way first that torch.optim may have; another package's class chooses for itself."""
        if is_class(self.plan.name) or not {"fused", "foreach"}.isdisjoint(self.plan.options):
            return [{}]
        faster: list[dict[str, Any]] = [{word: True} for word in ("fused", "foreach") if word in self.known]
        return [*faster, {}]

    def _groups(self) -> list[dict[str, Any]]:
        tensors = dict(zip(self.names, self.parameters, strict=True))
        return [{"params": [tensors[n] for n in g.parameters], **g.options} for g in self.plan.groups]

    def _check_options(self, known: list[str]) -> None:
        """torch takes any key in a parameter group and ignores it; a misspelt one must not pass."""
        for options in (self.plan.options, *(group.options for group in self.plan.groups)):
            for key in options:
                if key not in known:
                    near = did_you_mean(key, known)
                    notes = (near,) if near else (f"it takes {', '.join(known)}",)
                    message = f"`{self.plan.name}` has no option `{key}`"
                    raise LpcError(Diagnostic("0654", message, place=self.place, notes=notes))


def _apart(
    values: dict[str, dict[str, Any]], prefix: str
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Part the entries under a prefix, which they lose, from the others, both by parameter."""
    own = {name: {e: v for e, v in entries.items() if not e.startswith(prefix)} for name, entries in values.items()}
    apart = {
        name: {e.removeprefix(prefix): v for e, v in entries.items() if e.startswith(prefix)}
        for name, entries in values.items()
    }
    return {name: entries for name, entries in own.items() if entries}, apart


def gradients_by_name(optimizer: BlockOptimizer, gradients: Gradients) -> dict[str, Tensor]:
    """Return {parameter: gradient} of what an optimizer would receive."""
    prepared = zip(optimizer.names, optimizer.prepare(gradients), strict=True)
    return {name: gradient for name, gradient in prepared if gradient is not None}
