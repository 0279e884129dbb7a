"""Is a section's data flow sound? Each value defined, passed where it fits, and freed exactly once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lpc.specs.diagnostics import Diagnostic, did_you_mean
from lpc.specs.plan.between import BETWEEN
from lpc.specs.plan.factors import misfits
from lpc.specs.plan.flow import applied, made
from lpc.specs.plan.instructions import (
    Accumulate,
    Adopt,
    Begin,
    Call,
    Clip,
    Correct,
    Due,
    Every,
    Fetch,
    Free,
    Instruction,
    Lag,
    Later,
    Load,
    Offset,
    Only,
    Parallel,
    Part,
    Random,
    Record,
    Relax,
    Repeat,
    Return,
    Shift,
    StepVariable,
    Store,
    Update,
    Visit,
    Weight,
    Write,
    word,
)
from lpc.specs.plan.kernel import Bundle, Kernel
from lpc.specs.plan.plan import Program, factored_parameter
from lpc.specs.plan.text import line
from lpc.specs.plan.values import ANYTHING, OWN, TAKES, Value, fits, returned


@dataclass
class Frame:
    """One body of instructions: the names it defined, and why it may not run exactly once."""

    owner: Instruction | None = None
    defined: set[str] = field(default_factory=set)
    sums: set[str] = field(default_factory=set)


def check_section(
    name: str,
    body: Iterable[Instruction],
    program: Program,
    kernels: Mapping[str, Kernel],
    links: Mapping[tuple[str, str], str],
) -> list[Diagnostic]:
    """Return the problems of one section, in order (0540 to 0556)."""
    checker = _Checker(program, kernels, links)
    checker.applied = applied(body)
    checker.body(body, name, Frame())
    return checker.problems


class _Checker:
    """Walks a section, knowing the live values, the freed ones and the parameters already updated."""

    def __init__(
        self, program: Program, kernels: Mapping[str, Kernel], links: Mapping[tuple[str, str], str]
    ) -> None:
        self.program = program
        self.kernels = kernels
        self.links = links
        self.values: dict[str, Value] = {}
        self.freed: set[str] = set()
        self.applied: set[str] = set()  # values that updates take, and sums that others are added to
        self.updated: dict[str, str] = {}  # parameter -> block whose update came
        self.frames: list[Frame] = []
        self.problems: list[Diagnostic] = []
        self.lagging = False
        self.place = ""
        self.note: tuple[str, ...] = ()

    def tell(self, code: str, message: str, *notes: str | None) -> None:
        given = tuple(note for note in notes if note)
        self.problems.append(Diagnostic(code, message, place=self.place, notes=(*self.note, *given)))

    def body(self, body: Iterable[Instruction], place: str, frame: Frame) -> None:
        self.frames.append(frame)
        for index, instruction in enumerate(body):
            self.place = f"{place}[{index}]"
            self.note = (f"in `{line(instruction)}`",)
            HANDLERS[type(instruction)](self, instruction)
        self.frames.pop()
        self.place, self.note = place, ()
        self.leave(frame)

    def leave(self, frame: Frame) -> None:
        """At a body's end all of its values must be freed; sums of a repeat live on outside."""
        for name in sorted(frame.defined & self.values.keys()):
            if name in frame.sums and isinstance(frame.owner, Repeat | Part):
                self.frames[-1].defined.add(name)
                self.frames[-1].sums.add(name)
                continue
            self.tell("0543", f"`{name}` is never freed")
            del self.values[name]

    def define(self, name: str, value: Value) -> None:
        if name in self.values:
            self.tell("0544", f"`{name}` is defined again while it is alive")
        self.values[name] = value
        self.freed.discard(name)
        self.frames[-1].defined.add(name)

    def use(self, name: str, taker: str, what: str) -> Value | None:
        """Return a live value that fits the role `taker`; tell what is wrong otherwise. `what` wants it."""
        value = self.values.get(name)
        if value is None:
            freed = name in self.freed
            message = f"`{name}` was freed before" if freed else f"`{name}` is not defined"
            self.tell("0541" if freed else "0540", message, did_you_mean(name, self.values))
            return None
        if value.role == ANYTHING:
            return None
        if value.role not in TAKES.get(taker, frozenset()):
            self.tell("0547", f"{what} takes no value of role `{value.role}`, and `{name}` is one")
            return None
        return value

    def match(self, name: str, value: Value, bundle: Bundle) -> None:
        """Compare a value with the bundle that it is passed as: count of tensors, dtypes, ranks, lengths."""
        wanted = [port.type for port in bundle.ports]
        if len(wanted) != len(value.types):
            counts = f"{len(value.types)} tensors, and argument `{bundle.name}` takes {len(wanted)}"
            self.tell("0548", f"`{name}` holds {counts}")
            return
        for found, expected in zip(value.types, wanted, strict=True):
            if not fits(found, expected):
                self.tell("0548", f"`{name}` is {found}, and argument `{bundle.name}` takes {expected}")

    def load(self, load: Load) -> None:
        if len(load.values) != len(load.fields):
            self.tell("0546", f"{len(load.values)} names are given for {len(load.fields)} fields")
        for name, source in zip(load.values, load.fields, strict=False):
            kind = self.program.fields.get(source)
            if kind is None:
                near = did_you_mean(source, self.program.fields)
                self.tell("0555", f"the program has no batch field `{source}`", near)
            known = Value("input", (kind,), (source,)) if kind else Value(ANYTHING)
            self.define(name, known)

    def random(self, random: Random) -> None:
        noise = self.program.noise.get(random.site)
        if noise is None:
            near = did_you_mean(random.site, self.program.noise)
            self.tell("0549", f"the program has no random site `{random.site}`", near)
        self.define(
            random.value, Value("random", (noise.type,), (random.site,)) if noise else Value(ANYTHING)
        )

    def call(self, call: Call) -> None:
        kernel = self.kernels.get(call.kernel)
        if kernel is None:
            self.tell(
                "0545", f"the plan has no kernel `{call.kernel}`", did_you_mean(call.kernel, self.kernels)
            )
        else:
            self.arguments(call, kernel)
            self.reads(kernel)
        results = kernel.results if kernel else ()
        if kernel and len(call.values) != len(results):
            self.tell(
                "0546", f"`{call.kernel}` returns {len(results)} values, and {len(call.values)} are named"
            )
        for index, name in enumerate(call.values):
            self.define(
                name,
                returned(kernel, results[index]) if kernel and index < len(results) else Value(ANYTHING),
            )

    def arguments(self, call: Call, kernel: Kernel) -> None:
        listed = [bundle for bundle in kernel.arguments if bundle.role not in ("state", "seed")]
        if len(call.arguments) != len(listed):
            self.tell(
                "0546", f"`{kernel.name}` takes {len(listed)} arguments, and {len(call.arguments)} are given"
            )
        for name, bundle in zip(call.arguments, listed, strict=False):
            value = self.use(name, bundle.role, f"argument `{bundle.name}` of `{kernel.name}`")
            if value is None:
                continue
            self.match(name, value, bundle)
            if bundle.role == "cotangent":
                broadcast = bundle.ports[0].source.endswith("@")
                (self.broadcast if broadcast else self.crossing)(name, kernel.block, value.block)
            if bundle.role in OWN and value.block != kernel.block:
                self.tell("0547", f"`{name}` holds the {bundle.role} of block `{value.block}`, not of `{kernel.block}`")

    def crossing(self, name: str, source: str, target: str) -> None:
        """A cotangent goes against the arrow of a boundary, from the consumer back to the producer.

        In a `part` of which nothing is applied it may cross any boundary: what comes of it is an offset.
        """
        link = self.links.get((source, target))
        if source == target or (link is not None and re.match(r"(gradient|target)\b", link)):
            return
        parts = [frame.owner for frame in self.frames if isinstance(frame.owner, Part)]
        if link is not None and parts and not set(made(parts[0])) & self.applied:
            return
        found = f"is `{link}`" if link is not None else "does not exist"
        boundary = f"the boundary {source} -> {target} {found}"
        self.tell("0553", f"`{name}` carries a gradient from `{target}` to `{source}`, and {boundary}")

    def broadcast(self, name: str, source: str, target: str) -> None:
        """The output's error goes to a block that a feedback link leaves; credit goes back along gradient links."""
        if name == f"{target}.error":
            if any(start == source and re.match(r"feedback\b", link) for (start, _), link in self.links.items()):
                return
            self.tell("0553", f"`{name}` teaches block `{source}`, which no feedback link leaves")
        elif not self.leads(source, target):
            self.tell("0553", f"`{name}` gives credit to block `{source}`, from which no gradient links lead there")

    def leads(self, source: str, target: str) -> bool:
        """Does a path of gradient links lead from one block to another?"""
        seen, stack = {source}, [source]
        while stack:
            block = stack.pop()
            after = {b for (a, b), link in self.links.items() if a == block and re.match(r"gradient\b", link)}
            stack += after - seen
            seen |= after
        return target in seen

    def reads(self, kernel: Kernel) -> None:
        roles = ("state", "gathered")
        ports = (port for bundle in kernel.arguments if bundle.role in roles for port in bundle.ports)
        early = [port.source for port in ports if port.source in self.updated]
        early = [name for name in early if not self.steps_again(kernel.block, self.updated[name])]
        if early:
            block = self.updated[early[0]]
            self.tell(
                "0552", f"`{kernel.name}` reads `{early[0]}`, which the update of `{block}` has changed"
            )

    def steps_again(self, block: str, updated: str) -> bool:
        """Is this an inner step, which reads what the block's own update has changed, to update it again?"""
        bodies = (frame.owner.body for frame in self.frames if isinstance(frame.owner, Repeat))
        return block == updated and any(isinstance(i, Update) and i.block == block for body in bodies for i in body)

    def accumulate(self, accumulate: Accumulate) -> None:
        value = self.use(accumulate.value, "accumulate", "`accumulate`")
        target = self.values.get(accumulate.target)
        if target is None:
            self.define(accumulate.target, value or Value(ANYTHING))
            self.frames[-1].sums.add(accumulate.target)
        elif value is not None and target.role != ANYTHING and target.sources != value.sources:
            self.tell(
                "0548",
                f"`{accumulate.target}` sums gradients of other parameters than `{accumulate.value}` has",
            )

    def update(self, update: Update) -> None:
        optimizer = self.program.optimizers.get(update.block)
        if optimizer is None:
            near = did_you_mean(update.block, self.program.optimizers)
            self.tell("0550", f"block `{update.block}` has no optimizer", near)
        own = {name for group in optimizer.groups for name in group.parameters} if optimizer else set()
        if any(isinstance(frame.owner, Part) for frame in self.frames):
            self.tell("0547", "an `update` stands in a `part`, which sees some samples of the batch only")
        for name in update.gradients:
            value = self.use(name, "update", "`update`")
            if value is not None and optimizer and own.isdisjoint(map(factored_parameter, value.sources)):
                self.tell("0551", f"`{name}` holds no gradient of a parameter of `{update.block}`")
        known = [self.values[name] for name in update.gradients if name in self.values]
        for what in misfits(optimizer.factors if optimizer else (), known):
            self.tell("0551", f"the update of `{update.block}` {what}")
        self.updated.update(dict.fromkeys(own, update.block))

    def clip(self, clip: Clip) -> None:
        for name in clip.gradients:
            self.use(name, "clip", "`clip`")

    def write(self, write: Write | Adopt) -> None:
        self.use(write.value, "write", f"`{word(type(write))}`")
        if isinstance(write, Adopt) and not any(isinstance(frame.owner, Part) for frame in self.frames):
            self.tell("0547", "an `adopt` stands in no `part`, whose first piece it is for")

    def lag(self, lag: Lag) -> None:
        if self.frames[-1].owner is not None:
            self.tell("0547", f"`{line(lag)}` stands in a body, and not in the step itself")
        elif lag.steps < 1 or self.lagging:
            self.tell("0557", "a `lag` counts steps, from 1" if lag.steps < 1 else "a step has one `lag` at most")
        self.lagging = True

    def mark(self, mark: Later | Only) -> None:
        owner = self.frames[-1].owner
        if not isinstance(owner, Part):
            self.tell("0547", f"`{line(mark)}` stands in no `part`, whose pieces it speaks of")
        elif isinstance(mark, Only) and not 0 <= mark.piece < owner.pieces:
            self.tell("0557", f"`{line(mark)}` names none of the {owner.pieces} pieces")
        elif isinstance(mark, Later) and mark.turns < 0:
            self.tell("0557", f"`{line(mark)}` counts pieces, from 0")
        elif sum(isinstance(one, type(mark)) for one in owner.body) > 1:
            self.tell("0557", f"a `part` has one `{word(type(mark))}` at most")

    def free(self, free: Free) -> None:
        for name in free.values:
            if name not in self.values:
                known = name in self.freed
                self.tell(
                    "0542" if known else "0540",
                    f"`{name}` {'was freed before' if known else 'is not defined'}",
                )
                continue
            self.outlived(name)
            del self.values[name]
            self.freed.add(name)

    def outlived(self, name: str) -> None:
        """A body that runs several times, or not at each step, must not free what it did not define."""
        for frame in reversed(self.frames):
            if name in frame.defined:
                return
            if isinstance(frame.owner, Every | Due):
                self.tell("0543", f"`{name}` is defined at every step and freed at some only")
            elif isinstance(frame.owner, Repeat) and frame.owner.count > 1:
                self.tell("0542", f"`{name}` is defined once and freed {frame.owner.count} times")
            elif isinstance(frame.owner, Part) and frame.owner.pieces > 1:
                self.tell("0542", f"`{name}` is defined once and freed {frame.owner.pieces} times")

    def record(self, record: Record) -> None:
        if record.metric not in self.program.metrics:
            near = did_you_mean(record.metric, self.program.metrics)
            self.tell("0554", f"the program has no metric `{record.metric}`", near)
        value = self.use(record.value, "record", "`record`")
        if value is not None and [kind.shape for kind in value.types] != [()]:
            self.tell("0548", f"`{record.value}` is no single number")

    def give(self, instruction: Return) -> None:
        self.use(instruction.value, "return", "`return`")

    def inner(self, instruction: Repeat | Every | Parallel) -> None:
        self.body(instruction.body, f"{self.place}.body", Frame(instruction))

    def weight(self, weight: Weight) -> None:
        law = self.program.laws.get(weight.law)
        if law is None:
            self.tell("0563", f"the program has no law `{weight.law}`", did_you_mean(weight.law, self.program.laws))
        self.define(weight.value, Value("input", (law.type,), (weight.law,)) if law else Value(ANYTHING))

    def variable(self, name: str) -> Value:
        """Return what is known of a variable of the program, which is told where there is none."""
        found = self.program.variables.get(name)
        if found is None:
            near = did_you_mean(name, self.program.variables)
            self.tell("0563", f"the program has no variable `{name}`", near)
            return Value(ANYTHING)
        return Value("output", (found.type,), (found.value,), found.block)

    def begin(self, begin: Begin) -> None:
        if len(begin.values) != len(begin.sources):
            self.tell("0546", f"{len(begin.values)} names are given for {len(begin.sources)} values")
        for name, source in zip(begin.values, begin.sources, strict=False):
            self.use(source, "begin", "`begin`")
            self.define(name, self.variable(name))

    def relax(self, relax: Relax) -> None:
        for name in relax.variables:
            self.variable(name)
            self.use(name, "relax", "`relax`")
        self.body(relax.body, f"{self.place}.body", Frame(relax))

    def step_variable(self, step: StepVariable) -> None:
        solved = [frame.owner.variables for frame in self.frames if isinstance(frame.owner, Relax)]
        if not any(step.variable in variables for variables in solved):
            self.tell("0564", f"`{step.variable}` is stepped where no `relax` of it is around")
        for name in step.slopes:
            value = self.use(name, "slopes", "`step_variable`")
            if value is not None and value.sources != (step.variable,):
                self.tell("0564", f"`{name}` is the slope of `{value.sources[0]}`, not of `{step.variable}`")

    def due(self, due: Due) -> None:
        self.use(due.index, "index", "`due`")
        self.body(due.body, f"{self.place}.body", Frame(due))

    def fetch(self, fetch: Fetch) -> None:
        self.use(fetch.index, "index", "`fetch`")
        for name in fetch.values:
            self.define(name, self.variable(name))

    def store(self, store: Store) -> None:
        if not any(isinstance(frame.owner, Due) for frame in self.frames):
            self.tell("0564", "a `store` stands where no `due` says which samples it is for")
        self.use(store.index, "index", "`store`")
        for name, value in zip(store.variables, store.values, strict=False):
            self.variable(name)
            self.use(value, "begin", "`store`")

    def visit(self, visit: Visit) -> None:
        self.use(visit.index, "index", "`visit`")
        for metric in visit.metrics:
            if metric not in self.program.metrics:
                self.tell("0554", f"the program has no metric `{metric}`")

    def part(self, part: Part) -> None:
        """The pieces live in the body, and there alone."""
        if len(part.values) != len(part.sources):
            self.tell("0546", f"{len(part.values)} names are given for {len(part.sources)} values")
        found = [self.use(name, "part", "`part`") for name in part.sources]
        place, frame = f"{self.place}.body", Frame(part)
        self.frames.append(frame)
        for name, value in zip(part.values, found, strict=False):
            self.define(name, value or Value(ANYTHING))
        self.frames.pop()
        self.body(part.body, place, frame)

    def offset(self, offset: Offset) -> None:
        self.correction(offset.block)
        for name in (*offset.exact, *offset.local):
            self.use(name, "offset", "`offset`")

    def correct(self, correct: Correct) -> None:
        self.correction(correct.block)
        for name in correct.gradients:
            self.use(name, "correct", "`correct`")

    def shift(self, shift: Shift) -> None:
        self.correction(shift.block)

    def correction(self, block: str) -> None:
        if block not in self.program.corrections:
            near = did_you_mean(block, self.program.corrections)
            self.tell("0560", f"block `{block}` has no correction", near)


HANDLERS: dict[type[Any], Callable[[_Checker, Any], None]] = {
    Load: _Checker.load,
    Random: _Checker.random,
    Call: _Checker.call,
    Accumulate: _Checker.accumulate,
    Update: _Checker.update,
    Clip: _Checker.clip,
    Write: _Checker.write,
    Free: _Checker.free,
    Record: _Checker.record,
    Return: _Checker.give,
    Repeat: _Checker.inner,
    Every: _Checker.inner,
    Part: _Checker.part,
    Later: _Checker.mark,
    Only: _Checker.mark,
    Adopt: _Checker.write,
    Lag: _Checker.lag,
    Offset: _Checker.offset,
    Correct: _Checker.correct,
    Shift: _Checker.shift,
    Weight: _Checker.weight,
    Begin: _Checker.begin,
    Relax: _Checker.relax,
    StepVariable: _Checker.step_variable,
    Parallel: _Checker.inner,
    Due: _Checker.due,
    Fetch: _Checker.fetch,
    Store: _Checker.store,
    Visit: _Checker.visit,
    **BETWEEN,
}
