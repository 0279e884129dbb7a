"""How does a plan read? One instruction a line, by one template each, which `parse` reads as well."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from lpc.specs.plan.instructions import KINDS, Call, Instruction, word
from lpc.specs.plan.lexer import quote
from lpc.specs.plan.manifest import plan_hash
from lpc.specs.plan.plan import Phase, Plan, Program, links
from lpc.specs.plan.schema import hints

SECTIONS = ("step", "evaluate", "predict")
PHASE = "phase"  # what a section with the step of a phase begins with, before what the phase trains


class Sections(NamedTuple):
    """The instruction lists of a program; with phases, `step` is empty and not printed."""

    step: tuple[Instruction, ...]
    evaluate: tuple[Instruction, ...]
    predict: tuple[Instruction, ...]
    phases: tuple[Phase, ...] = ()


def sections_of(program: Program) -> Sections:
    """Return the instruction lists of a program."""
    return Sections(program.step, program.evaluate, program.predict, program.phases)


# How each instruction is written. A field in braces is printed by its type: a name, a number, names with
# commas, or the lines of a body, which end with a brace of their own.
TEMPLATES: dict[str, str] = {
    "load": "{values} = load {fields}",
    "random": "{value} = random {site}",
    "call": "{values} = call {kernel} ( {arguments} )",
    "accumulate": "accumulate {target} <- {value} * {scale}",
    "update": "update {block} <- {gradients}",
    "clip": "clip {gradients} to {norm}",
    "norms": "{value} = norms {gradients}",
    "scale": "scale {gradients} to {norm} by {norms}",
    "write": "write {value}",
    "free": "free {values}",
    "record": "record {metric} {value}",
    "return": "return {name} {value}",
    "repeat": "repeat {count} {body}",
    "every": "every {period} from {phase} {body}",
    "part": "{values} = part {sources} share {share} in {pieces} {body}",
    "later": "later {turns}",
    "only": "only {piece}",
    "adopt": "adopt {value}",
    "reduce": "{target} = reduce {value} over {ranks}",
    "offer": "offer {value} over {ranks}",
    "lag": "lag {steps}",
    "lend": "lend {block} to {ranks}",
    "gather": "{value} = gather {block} from {ranks}",
    "reduce_scatter": "{target} = reduce_scatter {value} over {ranks}",
    "offset": "offset {block} <- {exact} minus {local}",
    "correct": "correct {block} in {gradients}",
    "shift": "shift {block}",
    "weight": "{value} = weight {law}",
    "begin": "{values} = begin {sources}",
    "relax": "relax {variables} {body}",
    "step_variable": "step_variable {variable} <- {slopes}",
    "parallel": "parallel {body}",
    "due": "due {index} every {period} {body}",
    "fetch": "{values} = fetch {index}",
    "store": "store {variables} at {index} <- {values}",
    "visit": "visit {index} every {period} as {metrics}",
    "send": "send {value} to {rank}",
    "receive": "{value} = receive from {rank}",
}


@dataclass(frozen=True)
class Part:
    """One piece of a template: a literal word, or a field (then `kind` is its type)."""

    text: str
    kind: Any = None


@cache
def parts_of(word: str) -> tuple[Part, ...]:
    """Return the pieces of an instruction's template, in order."""
    types = hints(KINDS[word])
    found = []
    for piece in TEMPLATES[word].split():
        name = piece[1:-1] if piece[0] == "{" else None
        found.append(Part(piece) if name is None else Part(name, types[name]))
    return tuple(found)


def text(plan: Plan) -> str:
    """Return the plan's program as text, under a header of comments with its name, hash, target and sizes."""
    printed = print_sections(sections_of(plan.program), _boundary_comments(plan))
    return "\n".join(_header(plan)) + "\n\n" + printed


def print_sections(sections: Sections, comment: Callable[[Instruction], str] = lambda instruction: "") -> str:
    """Return the sections as text; `comment` may add a remark to an instruction's line."""
    steps = [(f"{PHASE} {', '.join(map(quote, phase.trains)) or '()'}", phase.step) for phase in sections.phases]
    titled = [*(steps or [("step", sections.step)]), ("evaluate", sections.evaluate), ("predict", sections.predict)]
    return "\n\n".join("\n".join([title, *_body(body, "  ", comment)]) for title, body in titled) + "\n"


def line(instruction: Instruction) -> str:
    """Return one instruction as text; of a repeat, its first line."""
    return "".join(_pieces(instruction)).strip()


def _body(body: Sequence[Instruction], indent: str, comment: Callable[[Instruction], str]) -> Iterator[str]:
    """Yield a body's lines, with `=` and remarks aligned."""
    heads = [_pieces(instruction) for instruction in body]
    width = min(max((len(left) for left, _ in heads), default=0), 40)
    texts = [indent + (left.ljust(width) if left else "") + right for left, right in heads]
    remarks = [comment(instruction) for instruction in body]
    column = min(max((len(t) for t, remark in zip(texts, remarks, strict=True) if remark), default=0), 100)
    for instruction, written, remark in zip(body, texts, remarks, strict=True):
        yield f"{written.ljust(column)}  # {remark}" if remark else written
        if (inner := getattr(instruction, "body", None)) is not None:
            yield from _body(inner, indent + "  ", comment)
            yield indent + "}"


def _pieces(instruction: Instruction) -> tuple[str, str]:
    """Return what is left of `=`, if anything, and the rest."""
    parts = parts_of(word(type(instruction)))
    words = []
    for index, part in enumerate(parts):
        if part.kind is None:
            words.append(part.text)
            continue
        closed = index + 1 < len(parts) and parts[index + 1].text == ")"
        words.append(_print_field(getattr(instruction, part.text), part.kind, "" if closed else "()"))
    if "=" not in [part.text for part in parts if part.kind is None]:
        return "", _tighten(words)
    return words[0], " = " + _tighten(words[2:])


def _tighten(words: list[str]) -> str:
    return re.sub(r" \( (.*) \)$", lambda match: f"({match[1].strip()})", " ".join(words))


def _print_field(value: Any, kind: Any, empty: str) -> str:
    if kind is str:
        return quote(value)
    if kind is float:
        return repr(float(value))
    if kind is int:
        return str(value)
    if kind == tuple[int, ...]:
        return ", ".join(map(str, value)) or empty
    if kind == tuple[str, ...]:
        return ", ".join(map(quote, value)) or empty
    return "{"


def _header(plan: Plan) -> Iterator[str]:
    name = re.search(r"(?m)^name: *(.+)$", plan.spec)
    yield f"# plan {name[1].strip() if name else 'unnamed'}"
    yield f"# hash {plan_hash(plan)}"
    yield f"# target {plan.target}, captured with torch {plan.torch}"
    sizes = {
        "blocks": len(plan.partition.get("nodes", ())),
        "kernels": sum(map(len, plan.kernels.values())),
        "parameter tensors": sum(entry.kind == "parameter" for entry in plan.program.state.values()),
        "bytes of weights": len(plan.weights),
    }
    yield "# " + ", ".join(f"{count:,} {what}" for what, count in sizes.items())


def _boundary_comments(plan: Plan) -> Callable[[Instruction], str]:
    """Return a function that names the boundaries which a call's outputs cross, and their links."""
    kernels = plan.kernels.get("native", {})
    remarks: dict[str, list[str]] = {}
    for (source, target), link in links(plan.partition).items():
        remarks.setdefault(source, []).append(f"{source} -> {target}: {link}")

    def comment(instruction: Instruction) -> str:
        if not isinstance(instruction, Call) or instruction.kernel not in kernels:
            return ""
        kernel = kernels[instruction.kernel]
        crosses = any(bundle.role == "output" for bundle in kernel.results)
        found = ", ".join(remarks.get(kernel.block, ())) if crosses else ""
        return " ".join(found.split())

    return comment
