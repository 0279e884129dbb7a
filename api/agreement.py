"""Does a plan's data say what its spec says? Tables that no number of a single step would tell apart.

Optimizers, corrections, the partition, metrics, clipping and the laws of dropout are compared with those that the spec
gives again; what they do to numbers, `verification` looks at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lpc.compiler.build import Build, learning, plan_variables
from lpc.compiler.partition import to_data
from lpc.specs.diagnostics import Diagnostic
from lpc.specs.plan.encode import canonical
from lpc.specs.plan.instructions import Clip, Every, Instruction, Offset
from lpc.specs.plan.plan import Correction, Law, Optimizer, Plan, Variable

Laws = Mapping[str, tuple[str, tuple[float, ...]]]  # of random sites, by name


def disagreements(plan: Plan, build: Build, laws: Laws) -> Iterator[Diagnostic]:
    """Yield what differs (0570); `laws` are those of the draws that the reference made."""
    optimizers = {block: p.optimizer for block, p in learning(build).items() if p.optimizer is not None}
    yield from _tables("optimizer", plan.program.optimizers, optimizers, Optimizer)
    yield from _tables("variable", plan.program.variables, plan_variables(build), Variable)
    yield from _tables("law", plan.program.laws, build.variables.laws(build.spec.run.dtype), Law)
    corrections = dict(build.corrected.by_block) if build.corrected is not None else {}
    yield from _tables("correction", plan.program.corrections, corrections, Correction)
    if build.graph is not None and canonical(plan.partition, Any) != canonical(to_data(build.graph), Any):
        yield _other("the partition is not the one that the spec asks for", "partition")
    yield from _metrics(plan)
    for site, (law, args) in laws.items():
        noise = plan.program.noise.get(site)
        if noise is not None and (noise.law, noise.args) != (law, args):
            told = f"{noise.law}{noise.args}"
            yield _other(f"`{site}` is drawn by {told}, and the network draws {law}{args}", f"noise {site}")
    for step in plan.program.steps:
        for instruction in _flat(step):
            yield from _instruction(instruction, plan, build)


def _tables(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], kind: type) -> Iterator[Diagnostic]:
    for block in dict.fromkeys([*found, *wanted]):
        if block not in found or block not in wanted:
            yield _other(f"`{block}` has {'no' if block in wanted else 'a'} {what}", f"{what} {block}")
        elif canonical(found[block], kind) != canonical(wanted[block], kind):
            yield _other(f"the {what} of `{block}` is not the one that the spec gives it", f"{what} {block}")


def _metrics(plan: Plan) -> Iterator[Diagnostic]:
    for name, kind in plan.program.metrics.items():
        wanted = "exp_mean" if name.endswith(".perplexity") else "mean"
        if kind != wanted:
            yield _other(f"the metric `{name}` is a `{kind}` and should be a `{wanted}`", f"metric {name}")


def _instruction(instruction: Instruction, plan: Plan, build: Build) -> Iterator[Diagnostic]:
    """Yield a norm that the spec does not clip to, and offsets that are measured at other steps than it says."""
    if isinstance(instruction, Clip) and instruction.norm != build.spec.run.clip:
        yield _other(f"gradients are clipped to {instruction.norm}, and `run.clip` is {build.spec.run.clip}", "clip")
    if isinstance(instruction, Every):
        for offset in (one for one in _flat(instruction.body) if isinstance(one, Offset)):
            correction = plan.program.corrections.get(offset.block)
            times = f"every {instruction.period} steps from {instruction.phase}"
            if correction is not None and times != f"every {correction.period} steps from {correction.phase}":
                yield _other(f"the offset of block `{offset.block}` is measured {times}", f"correction {offset.block}")


def _flat(body: tuple[Instruction, ...]) -> Iterator[Instruction]:
    for instruction in body:
        yield instruction
        yield from _flat(getattr(instruction, "body", ()))


def _other(message: str, place: str) -> Diagnostic:
    return Diagnostic("0570", message, place=place)
