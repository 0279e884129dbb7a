"""How do a plan's instructions read as Python? One function a kind, straight code in the order of the plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lpc.ejecting.kernels import CONSTANT, NAMED, form, function_name
from lpc.ejecting.names import Names, identifier
from lpc.ejecting.optimizers import solver
from lpc.ejecting.refusal import refuse
from lpc.ejecting.writing import indented, listed
from lpc.specs.plan.flow import made
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
    Load,
    Offset,
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
)
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.lengths import length
from lpc.specs.plan.plan import Program
from lpc.specs.plan.text import line
from lpc.specs.ranks.makers import flat

RESERVED = (
    "run", "batches", "clock", "returned", "blocks", "torch", "noise", "part", "load", "accumulate", "clipped",
    "descend", "growing", "pieces", "summed", "write", "due", "age", "DEVICE",
)  # fmt: skip
Lines = Iterator[str]


class Section:
    """One section of a program on its way to code: the names and the forms of its values."""

    def __init__(self, program: Program, kernels: dict[str, Kernel], body: Sequence[Instruction]) -> None:
        self.program, self.kernels = program, kernels
        everything = list(flat(body))
        self.loads = sum(isinstance(one, Load) for one in everything)
        self.counts = self.loads > 1 or any(isinstance(one, Repeat) and _holds(one, Load) for one in everything)
        self.draws = any(isinstance(one, Random) for one in everything)
        symbols = set(re.findall(r"[^\W\d]\w*", " ".join(str(a) for n in program.noise.values() for a in n.type.shape)))
        self.symbols = (symbols if self.draws else set()) | {"B"}
        self.names = Names([*RESERVED, *self.symbols])
        self.forms: dict[str, str] = {}
        self.sums = {one.target for one in everything if isinstance(one, Accumulate)}
        self.size = "B"
        self.windows: list[tuple[str, str, str]] = []  # first, last and share of each piece that it is in

    def name(self, value: str) -> str:
        """Return a value's name in Python."""
        return self.names.of(value)

    def all(self, values: Sequence[str]) -> list[str]:
        """Return several values' names."""
        return [self.name(value) for value in values]

    def lines(self, body: Sequence[Instruction]) -> Lines:
        """Yield the code of a body; a running sum begins where what frees it, or all of it, begins."""
        own = {value for one in body if isinstance(one, Free) for value in one.values} & self.sums
        for one in body:
            for value in sorted(own & _summed(one)):
                own.discard(value)
                yield f"{self.name(value)} = {{}}"
            if type(one) not in WRITERS:
                refuse(f"`{line(one)}` works between processes", "step")
            yield from WRITERS[type(one)](self, one)

    def block(self, head: str, body: Sequence[Instruction]) -> Lines:
        """Yield a statement with a body."""
        yield head
        yield from indented(list(self.lines(body)) or ["pass"])


def _holds(one: Instruction, kind: type) -> bool:
    return any(isinstance(inner, kind) for inner in flat(getattr(one, "body", ())))


def _summed(one: Instruction) -> set[str]:
    return {inner.target for inner in flat([one]) if isinstance(inner, Accumulate)}


def function(name: str, about: str, section: Section, body: Sequence[Instruction]) -> Lines:
    """Yield the function of a section."""
    yield "@torch.inference_mode()"
    yield f"def {name}(run, batches, clock):"
    yield f'    """{about}"""'
    yield "    returned = {}"
    if section.draws and section.counts:
        yield "    part = -1"
    freed = {value for one in flat(body) if isinstance(one, Free) for value in one.values}
    yield from indented(f"{section.name(value)} = {{}}" for value in sorted(section.sums - freed))
    yield from indented(section.lines(body))
    yield "    return returned"


def _load(section: Section, one: Load) -> Lines:
    section.forms.update(dict.fromkeys(one.values, "one"))
    names = section.all(one.values)
    fields = [f'"{name}"' for name in one.fields]
    yield f"{', '.join(names)}{',' * (len(names) == 1)} = load(batches, {', '.join(fields)})"
    left = set(section.symbols)
    for name, field in zip(names, one.fields, strict=True):
        for axis, symbol in enumerate(section.program.fields[field].shape):
            if symbol in left:
                left.discard(str(symbol))
                yield f"{symbol} = {name}.shape[{axis}]"
    if section.draws and section.counts:
        yield "part += 1"


def _random(section: Section, one: Random) -> Lines:
    site = section.program.noise[one.site]
    shape = [str(axis) for axis in site.type.shape]
    for axis in site.type.shape:
        length(axis, one.site)  # an expression of lengths and nothing else
    options = [f"part={'part' if section.counts else 0}"] if section.counts else []
    options += [] if site.type.dtype == "float32" else [f"dtype=torch.{site.type.dtype}"]
    numbers = [repr(number) for number in site.args]
    sizes = f"({', '.join(shape)}{',' * (len(shape) == 1)})"
    section.forms[one.value] = "one"
    given = [f'"{one.site}"', "clock", sizes, *numbers, *options]
    yield from listed(f"{section.name(one.value)} = noise.{site.law}(", given, ")")
    axes = [i for i, axis in enumerate(shape) if "B" in re.findall(r"\w+", axis)]
    if section.windows and axes:
        rows = ", ".join(section.windows[-1][:2])
        yield f"{section.name(one.value)} = noise.rows({section.name(one.value)}, {axes[0]}, {rows}, B)"


def _call(section: Section, one: Call) -> Lines:
    kernel = section.kernels[one.kernel]
    passed = [b for b in kernel.arguments if b.role not in CONSTANT]
    for bundle, value in zip(passed, one.arguments, strict=True):
        if section.forms.get(value) != form(bundle):
            refuse(f"`{value}` is not passed as the kernel takes it", f"kernel {kernel.name}")
    section.forms.update({v: form(b) for v, b in zip(one.values, kernel.results, strict=True)})
    for bundle in kernel.results:
        _check_names(section.program, kernel, [port.source for port in bundle.ports] if bundle.role in NAMED else [])
    called = f"blocks.{identifier(kernel.block)}.{function_name(kernel)}("
    targets = ", ".join(section.all(one.values))
    yield from listed(f"{targets} = {called}" if targets else called, ["run.weights", *section.all(one.arguments)], ")")


def _check_names(program: Program, kernel: Kernel, sources: Sequence[str]) -> None:
    if len(set(sources)) != len(sources) or any(source not in program.state for source in sources):
        refuse("a tied tensor's gradient goes by several names", f"kernel {kernel.name}")


def _accumulate(section: Section, one: Accumulate) -> Lines:
    section.forms[one.target] = section.forms[one.value]
    if section.forms[one.value] != "name":
        refuse(f"`{one.value}` is summed and is no gradient", "step")
    scale = f"{one.scale!r} * {section.windows[-1][2]}" if section.windows else repr(one.scale)
    yield f"accumulate({section.name(one.target)}, {section.name(one.value)}, {scale})"


def _update(section: Section, one: Update) -> Lines:
    yield f'run.learners["{one.block}"].step(clock, {", ".join(section.all(one.gradients))})'


def _clip(section: Section, one: Clip) -> Lines:
    names = section.all(one.gradients)
    yield from listed(f"{', '.join(names)}{',' * (len(names) == 1)} = clipped(", [repr(one.norm), *names], ")")


def _write(section: Section, one: Write) -> Lines:
    yield f"write(run.weights, {section.name(one.value)})"


def _free(section: Section, one: Free) -> Lines:
    yield from listed("del ", section.all(one.values), "") if len(one.values) < SEVERAL else listed(
        "del (", section.all(one.values), ")"
    )


SEVERAL = 6


def _record(section: Section, one: Record) -> Lines:
    yield f'run.meter.add("{one.metric}", {section.name(one.value)}, {section.size})'


def _return(section: Section, one: Return) -> Lines:
    yield f'returned["{one.name}"] = {section.name(one.value)}'


def _repeat(section: Section, one: Repeat) -> Lines:
    yield from section.block(f"for _ in range({one.count}):", one.body)


def _every(section: Section, one: Every) -> Lines:
    yield from section.block(f"if clock.every({one.period}, first={one.phase}):", one.body)


def _part(section: Section, one: Part) -> Lines:
    """Pieces of pieces are counted from the batch's first sample, as noise is."""
    section.forms.update(dict.fromkeys(one.values, "one"))
    first, last, share = (section.names.fresh(word) for word in ("first", "last", "share"))
    begins = section.windows[-1][0] if section.windows else ""
    given = [section.size, repr(one.share), str(one.pieces), *([begins] if begins else [])]
    yield f"for {first}, {last}, {share} in pieces({', '.join(given)}):"
    rows = f"{first} - {begins} : {last} - {begins}" if begins else f"{first}:{last}"
    pairs = zip(section.all(one.values), section.all(one.sources), strict=True)
    yield from indented(f"{value} = {source}[{rows}]" for value, source in pairs)
    before, section.size = section.size, f"{last} - {first}"
    section.windows.append((first, last, share))
    yield from indented(section.lines(one.body))
    section.windows.pop()
    section.size = before


def _adopt(section: Section, one: Adopt) -> Lines:
    if not section.windows:
        refuse(f"`{line(one)}` stands in no piece of a batch", "step")
    yield f"if {section.windows[0][0]} == 0:"
    yield f"    write(run.weights, {section.name(one.value)})"


def _offset(section: Section, one: Offset) -> Lines:
    exact, local = (_together(section, values) for values in (one.exact, one.local))
    yield f'run.offsets["{one.block}"].measure(clock, {exact}, {local})'


def _together(section: Section, values: Sequence[str]) -> str:
    names = section.all(values)
    return names[0] if len(names) == 1 else f"summed({', '.join(names)})"


def _correct(section: Section, one: Correct) -> Lines:
    names = section.all(one.gradients)
    targets = f"{', '.join(names)}{',' * (len(names) == 1)}"
    yield f'{targets} = run.offsets["{one.block}"].correct(clock, {", ".join(names)})'


def _shift(section: Section, one: Shift) -> Lines:
    yield f'run.offsets["{one.block}"].shift(clock, run.learners["{one.block}"])'


def _weight(section: Section, one: Weight) -> Lines:
    law = section.program.laws[one.law]
    section.forms[one.value] = "one"
    value = repr(law.start)
    if not law.constant:
        value = f"growing(clock, {law.start!r}, {law.add!r}, {law.factor!r}, {law.until!r}, {law.unit == 'epoch'})"
    yield f"{section.name(one.value)} = torch.full((), {value}, dtype=torch.{law.type.dtype}, device=DEVICE)"


def _begin(section: Section, one: Begin) -> Lines:
    section.forms.update(dict.fromkeys(one.values, "one"))
    for value, source in zip(section.all(one.values), section.all(one.sources), strict=True):
        yield f"{value} = {source}.clone(memory_format=torch.contiguous_format)"


def _relax(section: Section, one: Relax) -> Lines:
    if {value for inner in flat(one.body) for value in made(inner)} & set(one.variables):
        refuse("a variable begins anew while it is solved", "step")
    for variable in one.variables:
        plan = section.program.variables[variable]
        if plan.persists:
            refuse(f"the optimizer of variable `{variable}` remembers the batches before", "step")
        name = section.names.of(f"solver of {variable}", f"solve_{variable}")
        yield f"{name} = {solver(plan, section.name(variable))}"
    yield from section.lines(one.body)


def _step_variable(section: Section, one: StepVariable) -> Lines:
    name = section.names.of(f"solver of {one.variable}")
    yield f"descend({name}, {', '.join(section.all(one.slopes))})"


def _parallel(section: Section, one: Parallel) -> Lines:
    yield "# From here on no block waits for another one."
    yield from section.lines(one.body)


def _due(section: Section, one: Due) -> Lines:
    yield f"due = run.cache.due({section.name(one.index)}.cpu(), {one.period})"
    yield from section.block("if bool(due.any()):", one.body)


def _fetch(section: Section, one: Fetch) -> Lines:
    section.forms.update(dict.fromkeys(one.values, "one"))
    for value in one.values:
        yield f'{section.name(value)} = run.cache.fetch("{value}", {section.name(one.index)}.cpu()).to(DEVICE)'


def _store(section: Section, one: Store) -> Lines:
    rows = f"{section.name(one.index)}[due].cpu()"
    for variable, value in zip(one.variables, section.all(one.values), strict=True):
        yield f'run.cache.store("{variable}", {rows}, {value}[due])'


def _visit(section: Section, one: Visit) -> Lines:
    index = f"{section.name(one.index)}.cpu()"
    yield f"age = (run.cache.counted({index}) % {one.period}).to(torch.get_default_dtype()).mean()"
    yield from (f'run.meter.add("{metric}", age, {section.size})' for metric in one.metrics)
    yield f"run.cache.visit({index})"


WRITERS: dict[type, Callable[[Section, Any], Lines]] = {
    Load: _load,
    Random: _random,
    Call: _call,
    Accumulate: _accumulate,
    Update: _update,
    Clip: _clip,
    Write: _write,
    Free: _free,
    Record: _record,
    Return: _return,
    Repeat: _repeat,
    Every: _every,
    Part: _part,
    Adopt: _adopt,
    Offset: _offset,
    Correct: _correct,
    Shift: _shift,
    Weight: _weight,
    Begin: _begin,
    Relax: _relax,
    StepVariable: _step_variable,
    Parallel: _parallel,
    Due: _due,
    Fetch: _fetch,
    Store: _store,
    Visit: _visit,
}
