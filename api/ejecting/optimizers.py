"""How do a plan's optimizers read as Python? Objects of torch.optim with the parameters that they step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lpc.ejecting.imports import imports
from lpc.ejecting.refusal import refuse
from lpc.ejecting.writing import document, indented, listed
from lpc.runtime.optimizer_class import OWN, class_of
from lpc.runtime.optimizers import BlockOptimizer
from lpc.runtime.schedules import inner_law, is_constant, law_of
from lpc.runtime.variables import VariableOptimizer
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import Correction, Optimizer, Variable
from lpc.specs.signatures.learning import SCHEDULES
from lpc.specs.term import Term
from lpc.specs.term_text import parse_term

FAST = ("fused", "foreach")  # options that the runtime chooses where the spec does not


def module(optimizers: Mapping[str, BlockOptimizer], corrections: Mapping[str, Correction]) -> str:
    """Return `optimizers.py`: the learner of each block, and the offsets of those that have one."""
    body = ["", "", "def learners(weights):", '    """Return the learner of each block."""']
    body += ["    return {", *(line for one in optimizers.values() for line in indented(_learner(one), 2)), "    }"]
    if corrections:
        body += ["", "", "def offsets():", '    """Return the offset of each block that has one."""']
        body += ["    return {", *(line for one in corrections.values() for line in indented(_offset(one), 2)), "    }"]
    return document("How does each block learn?", [*_packages(optimizers), *imports(body), *body])


def class_name(name: str) -> str:
    """Return the class of an optimizer as it is written: `torch.optim.Adam`, or a package's own."""
    if name in OWN:
        return f"rmsprop.{OWN[name].__name__}"
    if is_class(name):
        return name.replace(":", ".")
    return f"torch.optim.{class_of(name, name).__name__}"


def solver(plan: Variable, variable: str) -> str:
    """Return the expression of a variable's optimizer."""
    import torch

    made = VariableOptimizer(plan, torch.device("cpu")).optimizer
    return f"{class_name(plan.optimizer)}([{variable}]{_options(plan.options, made.defaults)})"


def _packages(optimizers: Mapping[str, BlockOptimizer]) -> list[str]:
    found = {one.plan.name.partition(":")[0] for one in optimizers.values() if is_class(one.plan.name)}
    return [f"import {name}" for name in sorted(found - {"torch"})]


def _learner(one: BlockOptimizer) -> Iterator[str]:
    plan = one.plan
    if plan.factors:
        refuse(f"`{plan.name}`, which takes factors beside gradients, is not written as code", one.place)
    if is_class(plan.name) and plan.state == "reset":
        refuse(f"`{plan.name}` begins each batch without memory", f"optimizer of block {plan.block}")
    yield f'"{plan.block}": Learner('
    yield from indented(listed("[", [f'"{name}"' for name in one.names], "],", 3))
    yield from indented(_optimizer(one))
    yield from indented(f"{name}={value}," for name, value in _settings(plan))
    yield "),"


def _optimizer(one: BlockOptimizer) -> Iterator[str]:
    """Yield the construction of the torch.optim object."""
    groups = []
    for group in one.plan.groups:
        tensors = [f'weights["{name}"]' for name in group.parameters]
        groups += listed('{"params": [', tensors, f"]{_entries(group.options)}}},", 5)
    options = _options(one.plan.options, one.optimizer.defaults if not is_class(one.plan.name) else {})
    yield f"{class_name(one.plan.name)}("
    yield from indented(["[", *indented(groups), f"]{options},"])
    yield "),"


def _settings(plan: Optimizer) -> Iterator[tuple[str, str]]:
    """Yield what a learner has besides its optimizer, where it differs from nothing."""
    factors = [group.lr_factor for group in plan.groups]
    if any(factor != 1.0 for factor in factors):
        yield "scales", repr(tuple(factors))
    schedule = {**plan.schedule, "then": law_of(plan.schedule)}
    if not is_constant(schedule):
        yield "rate", _schedule(schedule)
    law = inner_law(plan.schedule)
    if law.name != "constant":
        yield "inner", _law(law) if law.name != "linear" else f"rates.falling({SCHEDULES['linear'].bind(law)['floor']})"
    if plan.steps != 1:
        yield "steps", repr(plan.steps)
    if plan.clip is not None and math.isfinite(plan.clip):
        yield "clip", repr(plan.clip)
    if plan.prox is not None:
        yield "prox", repr(plan.prox)
    if plan.outer:
        tensors = [f'weights["{name}"]' for group in plan.groups for name in group.parameters]
        yield "outer", f"{class_name(plan.outer)}([{', '.join(tensors)}]{_options(plan.outer_options, {})})"
    if plan.state == "reset":
        yield "fresh", "True"
    if is_class(plan.name):
        yield "copies", "True"


def _schedule(schedule: Mapping[str, Any]) -> str:
    options = [_law(schedule["then"])]
    options += [f"warmup={schedule['warmup']}"] if schedule.get("warmup") else []
    options += ["by_epoch=True"] if schedule.get("unit") == "epoch" else []
    return f"rates.schedule({', '.join(options)})"


def _law(term: Term) -> str:
    given = SCHEDULES[term.name].bind(term)
    return f"rates.{term.name}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _offset(one: Correction) -> Iterator[str]:
    yield f'"{one.block}": Offset('
    yield from indented(listed("[", [f'"{name}"' for name in one.parameters], "],", 3))
    yield f"    period={one.period}, phase={one.phase}, alpha={_factor(one.alpha)}, scale={_factor(one.scale)},"
    yield f"    decay={one.decay!r}, after={one.where != 'gradient'},"
    yield "),"


def _factor(given: float | str) -> str:
    if isinstance(given, str):
        return "None" if given == "auto" else f"rates.schedule({_law(parse_term(given))})"
    return repr(given)


def _options(given: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """Return options as keywords, with what the runtime has chosen for speed: it decides rounding."""
    found = {**given, **{name: True for name in FAST if chosen.get(name) is True and name not in given}}
    return "".join(f", {name}={_value(value)}" for name, value in found.items())


def _entries(given: Mapping[str, Any]) -> str:
    return "".join(f', "{name}": {_value(value)}' for name, value in given.items())


def _value(value: Any) -> str:
    return repr(tuple(value) if isinstance(value, list) else value)
