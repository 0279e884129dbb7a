"""Does a plan hold together? Every kernel, every table and every section checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.aliases import check_aliases
from lpc.specs.plan.instructions import DEPTH, Adopt, Call, Due, Instruction, Update, Write
from lpc.specs.plan.kernel import Bundle, Kernel
from lpc.specs.plan.lifetimes import check_section
from lpc.specs.plan.plan import Correction, Phase, Plan, Program, StateEntry, factored_parameter, links
from lpc.specs.plan.reach import indirect_influence, influence, influence_by_targets, reachability
from lpc.specs.plan.shards import check_bound, check_shards
from lpc.specs.plan.weights import tensor_types
from lpc.specs.plan.wellformed import check_kernel

__all__ = ["indirect_influence", "influence", "influence_by_targets", "reachability", "verify"]

EXPANSION = 1_000_000  # instructions that one section may execute


def verify(plan: Plan) -> list[Diagnostic]:
    """Return every problem of the plan, kernels first, then tables, then sections; empty means sound.

    Sections are checked with the native kernels and, where there are others, with each further target's.
    """
    found = [*_kernels(plan), *_tables(plan), *_sections(plan)]
    return list(dict.fromkeys(found))


def _kernels(plan: Plan) -> Iterator[Diagnostic]:
    if "native" not in plan.kernels:
        yield Diagnostic("0545", "the plan has no kernels for the target `native`", place="kernels")
    for target, kernels in plan.kernels.items():
        for name, kernel in kernels.items():
            yield from check_kernel(kernel)
            yield from _bound_names(kernel, plan.program.state)
            yield from check_bound(kernel, plan.program)
            native = plan.kernels.get("native", {}).get(name)
            if native is None or _signature(native) != _signature(kernel):
                message = f"kernel `{name}` of target `{target}` has another signature than the native one"
                yield Diagnostic("0559", message, place=f"kernel {target}/{name}")


def _signature(kernel: Kernel) -> list[object]:
    """What callers see. Residuals differ between targets, as operators do; so do unread states and seeds."""
    return [
        kernel.block,
        [_face(bundle) for bundle in kernel.arguments if bundle.role not in ("state", "seed")],
        [_face(bundle) for bundle in kernel.results],
    ]


def _face(bundle: Bundle) -> object:
    sources = () if bundle.role == "residuals" else tuple(port.source for port in bundle.ports)
    return bundle.name, bundle.role, sources


def _bound_names(kernel: Kernel, state: Mapping[str, StateEntry]) -> Iterator[Diagnostic]:
    """Yield ports whose outside names are not in the program's state, or have another type there."""
    for bundle in chain(kernel.arguments, kernel.results):
        if bundle.role == "factors":
            yield from _bound_factors(kernel, bundle, state)
        if bundle.role not in ("state", "gathered", "gradients", "buffers"):
            continue
        for port in bundle.ports:
            place = f"kernel {kernel.name}, {bundle.name}"
            entry = state.get(port.source)
            if entry is None:
                near = did_you_mean(port.source, state)
                message = f"kernel `{kernel.name}` names `{port.source}`, which is not in the program's state"
                yield Diagnostic("0556", message, place=place, notes=(near,) if near else ())
            elif bundle.role == "gradients" and not (entry.kind == "parameter" and entry.trainable):
                message = (
                    f"kernel `{kernel.name}` gives a gradient of `{port.source}`, which is not trainable"
                )
                yield Diagnostic("0556", message, place=place)
            elif port.type != entry.type:
                message = (
                    f"`{port.source}` is {port.type} in kernel `{kernel.name}` and {entry.type} in the state"
                )
                yield Diagnostic("0548", message, place=place)


def _bound_factors(kernel: Kernel, bundle: Bundle, state: Mapping[str, StateEntry]) -> Iterator[Diagnostic]:
    """Yield factors of what is no parameter that learns."""
    for name in dict.fromkeys(factored_parameter(port.source) for port in bundle.ports):
        entry = state.get(name)
        if entry is None or entry.kind != "parameter" or not entry.trainable:
            message = f"kernel `{kernel.name}` gives a factor of `{name}`, which is not trainable"
            yield Diagnostic("0556", message, place=f"kernel {kernel.name}, {bundle.name}")


def _tables(plan: Plan) -> Iterator[Diagnostic]:
    program = plan.program
    for block, optimizer in program.optimizers.items():
        for name in chain.from_iterable(group.parameters for group in optimizer.groups):
            if name not in program.state:
                message = f"the optimizer of `{block}` steps `{name}`, which is not in the program's state"
                yield Diagnostic("0556", message, place=f"optimizer {block}")
    for block, correction in program.corrections.items():
        yield from _correction(block, correction, program)
    yield from check_shards(program)
    try:
        tensors = tensor_types(plan.weights)
        links(plan.partition)
    except LpcError as problem:
        yield from problem.diagnostics
        return
    for name, entry in program.state.items():
        if tensors.get(name) != entry.type:
            message = (
                f"`{name}` is {entry.type} in the state and {tensors.get(name, 'missing')} in the weights"
            )
            yield Diagnostic("0558", message, place="weights")


def _correction(block: str, correction: Correction, program: Program) -> Iterator[Diagnostic]:
    place = f"correction {block}"
    groups = program.optimizers[block].groups if block in program.optimizers else ()
    stepped = {name for group in groups for name in group.parameters}
    for name in correction.parameters:
        if name not in stepped:
            yield Diagnostic("0556", f"the optimizer of `{block}` does not step `{name}`", place=place)
    if correction.period < 1:
        yield Diagnostic("0557", "a count or a period must be 1 or more", place=place)


def _sections(plan: Plan) -> Iterator[Diagnostic]:
    try:
        boundaries = links(plan.partition)
    except LpcError:
        return  # told with the tables
    program = plan.program
    native = plan.kernels.get("native", {})
    steps = {f"phase {i}": phase.step for i, phase in enumerate(program.phases, 1)} or {"step": program.step}
    for place, phase in zip(steps, program.phases, strict=False):
        yield from _confined(place, phase, native)
    sections = {**steps, "evaluate": program.evaluate, "predict": program.predict}
    for name, body in sections.items():
        expansion = list(_expansion(body, name, 1, 0))
        yield from expansion
        if expansion:
            continue
        for kernels in plan.kernels.values():
            problems = check_section(name, body, program, {**native, **kernels}, boundaries)
            yield from problems or check_aliases(name, body, program, {**native, **kernels})


def _confined(place: str, phase: Phase, kernels: Mapping[str, Kernel]) -> Iterator[Diagnostic]:
    """Yield updates and writes of blocks that the phase does not train."""
    inside = list(_flat(phase.step))
    calls = [(i, kernels[i.kernel].block) for i in inside if isinstance(i, Call) and i.kernel in kernels]
    makers = {value: block for call, block in calls for value in call.values}
    changed = [i.block for i in inside if isinstance(i, Update)]
    changed += [makers[i.value] for i in inside if isinstance(i, Write | Adopt) and i.value in makers]
    for block in dict.fromkeys(changed):
        if block not in phase.trains:
            message = f"the phase changes `{block}`, and trains {', '.join(phase.trains) or 'nothing'}"
            yield Diagnostic("0561", message, place=place)


def _flat(body: tuple[Instruction, ...]) -> Iterator[Instruction]:
    for instruction in body:
        yield instruction
        yield from _flat(getattr(instruction, "body", ()))


def _expansion(body: tuple[Instruction, ...], place: str, times: int, depth: int) -> Iterator[Diagnostic]:
    """Yield repeats that would run too long, run never, or nest too deeply."""
    if depth > DEPTH:
        yield Diagnostic("0521", f"more than {DEPTH} bodies are inside each other", place=place)
        return
    if times * len(body) > EXPANSION:
        yield Diagnostic("0557", f"a section would execute more than {EXPANSION:,} instructions", place=place)
        return
    for index, instruction in enumerate(body):
        inner = getattr(instruction, "body", None)
        if inner is None:
            continue
        at = f"{place}[{index}]"
        count = getattr(instruction, "count", getattr(instruction, "pieces", 1))
        least = 0 if isinstance(instruction, Due) else 1  # 0: at a sample's first visit
        if count < 1 or getattr(instruction, "period", 1) < least:
            yield Diagnostic("0557", "a count or a period must be 1 or more", place=at)
        elif not 0 < getattr(instruction, "share", 1) < math.inf:
            yield Diagnostic("0557", "the share of a part must be a number above 0", place=at)
        else:
            yield from _expansion(inner, f"{at}.body", times * count, depth + 1)
