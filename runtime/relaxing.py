"""What do the instructions of auxiliary variables do? One function a kind, as in `handlers`."""

from __future__ import annotations

import torch
from torch import Tensor

from lpc.runtime.handlers import BINDERS, WITHOUT_EFFECTS, Binder, Operation, Section
from lpc.runtime.memories import keep, recalled
from lpc.runtime.meter import Reading
from lpc.runtime.resources import Frame
from lpc.specs.plan.instructions import (
    Begin,
    Due,
    Fetch,
    Parallel,
    Relax,
    StepVariable,
    Store,
    Visit,
    Weight,
)


def _bind_weight(section: Section, instruction: Weight) -> Operation:
    value, law = instruction.value, section.resources.laws[instruction.law]

    def weigh(frame: Frame) -> None:
        frame.env[value] = [law.at(frame.time)]

    return weigh


def _bind_begin(section: Section, instruction: Begin) -> Operation:
    pairs = tuple(zip(instruction.values, instruction.sources, strict=True))

    def begin(frame: Frame) -> None:
        for value, source in pairs:
            frame.env[value] = [frame.env[source][0].clone(memory_format=torch.contiguous_format)]

    return begin


def _bind_relax(section: Section, instruction: Relax, lasting: bool = True) -> Operation:
    body, cache = section.bind(instruction.body), section.resources.cache
    optimizers = [section.resources.variables[name] for name in instruction.variables]

    def relax(frame: Frame) -> None:
        for optimizer in optimizers:
            optimizer.begin(recalled(optimizer, frame, cache, lasting))
        for operation in body:
            operation(frame)
        for optimizer in optimizers:
            keep(optimizer, frame, cache, optimizer.end(), lasting)

    return relax


def _bind_passing_relax(section: Section, instruction: Relax) -> Operation:
    """As `relax`, but what optimizers remember is known to this section alone."""
    return _bind_relax(section, instruction, lasting=False)


def _bind_step_variable(section: Section, instruction: StepVariable) -> Operation:
    name, slopes = instruction.variable, instruction.slopes
    optimizer = section.resources.variables[name]
    first, rest = slopes[0], slopes[1:]

    def step(frame: Frame) -> None:
        env = frame.env
        slope = env[first][0]
        for other in rest:
            slope = slope + env[other][0]
        optimizer.step(env[name][0], slope)

    return step


def _bind_parallel(section: Section, instruction: Parallel) -> Operation:
    body = section.bind(instruction.body)

    def run(frame: Frame) -> None:
        for operation in body:
            operation(frame)

    return run


def _bind_due(section: Section, instruction: Due) -> Operation:
    body, index, period = section.bind(instruction.body), instruction.index, instruction.period
    cache = section.resources.cache

    def due(frame: Frame) -> None:
        frame.rows = frame.env[index][0].cpu()
        frame.due = cache.due(frame.rows, period)
        if bool(frame.due.any()):
            for operation in body:
                operation(frame)
        frame.rows = None

    return due


def _bind_fetch(section: Section, instruction: Fetch) -> Operation:
    """What this step has stored comes before what is kept: without effects nothing else holds it."""
    values, index, cache = instruction.values, instruction.index, section.resources.cache
    device = section.resources.device

    def fetch(frame: Frame) -> None:
        rows = frame.env[index][0].cpu()
        for value in values:
            kept = frame.stored.get(value)
            frame.env[value] = [cache.fetch(value, rows).to(device) if kept is None else kept.clone()]

    return fetch


def _bind_store(section: Section, instruction: Store, lasting: bool = True) -> Operation:
    pairs = tuple(zip(instruction.variables, instruction.values, strict=True))
    index, cache = instruction.index, section.resources.cache

    def store(frame: Frame) -> None:
        rows, chosen = frame.env[index][0].cpu(), frame.due
        assert chosen is not None, "a `store` stands in a `due`"
        for name, value in pairs:
            given = frame.env[value][0]
            if lasting:
                cache.store(name, rows[chosen], given[chosen.to(given.device)])
            frame.stored[name] = given.clone() if bool(chosen.all()) else _merged(frame, name, given, chosen, rows)

    def _merged(frame: Frame, name: str, given: Tensor, chosen: Tensor, rows: Tensor) -> Tensor:
        before = frame.stored.get(name)
        kept = cache.fetch(name, rows).to(given.device) if before is None else before
        mask = chosen.to(given.device).reshape(-1, *[1] * (given.dim() - 1))
        return torch.where(mask, given, kept)

    return store


def _bind_passing_store(section: Section, instruction: Store) -> Operation:
    """As `store`, but known to this step alone."""
    return _bind_store(section, instruction, lasting=False)


def _bind_visit(section: Section, instruction: Visit, counts: bool = True) -> Operation:
    index, period, metrics = instruction.index, instruction.period, instruction.metrics
    cache, device = section.resources.cache, section.resources.device

    def visit(frame: Frame) -> None:
        rows = frame.env[index][0].cpu()
        age = (cache.counted(rows) % period).to(torch.get_default_dtype()).mean()
        frame.readings += [Reading(metric, age.to(device), frame.size) for metric in metrics]
        if counts:
            cache.visit(rows)

    return visit


def _bind_passing_visit(section: Section, instruction: Visit) -> Operation:
    """As `visit`, but the visit does not count."""
    return _bind_visit(section, instruction, counts=False)


_VARIABLES: dict[type, Binder] = {
    Weight: _bind_weight,
    Begin: _bind_begin,
    Relax: _bind_relax,
    StepVariable: _bind_step_variable,
    Parallel: _bind_parallel,
    Due: _bind_due,
    Fetch: _bind_fetch,
    Store: _bind_store,
    Visit: _bind_visit,
}

EVERY: dict[type, Binder] = {**BINDERS, **_VARIABLES}

# The step with every effect left out, as in `handlers`.
EVERY_WITHOUT_EFFECTS: dict[type, Binder] = {
    **WITHOUT_EFFECTS,
    **_VARIABLES,
    Relax: _bind_passing_relax,
    Store: _bind_passing_store,
    Visit: _bind_passing_visit,
}
