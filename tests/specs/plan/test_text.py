"""Does a plan's text read back as what was printed, and are mistakes in it located?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.instructions import (
    DEPTH,
    KINDS,
    Accumulate,
    Adopt,
    Call,
    Clip,
    Correct,
    Every,
    Free,
    Instruction,
    Lag,
    Later,
    Load,
    Norms,
    Offer,
    Offset,
    Only,
    Part,
    Random,
    Receive,
    Record,
    Reduce,
    Repeat,
    Return,
    Scale,
    Send,
    Shift,
    Update,
    Write,
)
from lpc.specs.plan.manifest import plan_hash
from lpc.specs.plan.parse import parse
from lpc.specs.plan.plan import Phase, Plan
from lpc.specs.plan.text import PHASE, SECTIONS, TEMPLATES, Sections, line, print_sections, sections_of, text

words = sorted(
    {word for template in TEMPLATES.values() for word in template.split()} | {*SECTIONS, PHASE} | {"1e5", "}", "#"}
)
names = (
    st.sampled_from(words)
    | st.from_regex(r"[a-z]\w{0,6}(\.\w{1,4})?(#\d)?", fullmatch=True)
    | st.text(max_size=8)
)
lists = st.lists(names, max_size=3).map(tuple)
numbers = st.floats(allow_nan=False)
simple = st.one_of(
    st.builds(Load, lists, lists),
    st.builds(Random, names, names),
    st.builds(Call, lists, names, lists),
    st.builds(Accumulate, names, names, numbers),
    st.builds(Update, names, lists),
    st.builds(Clip, lists, numbers),
    st.builds(Norms, names, lists),
    st.builds(Scale, lists, numbers, lists),
    st.builds(Write, names),
    st.builds(Free, lists),
    st.builds(Record, names, names),
    st.builds(Return, names, names),
    st.builds(Later, st.integers()),
    st.builds(Lag, st.integers()),
    st.builds(Offer, names, st.lists(st.integers(), min_size=1, max_size=3).map(tuple)),
    st.builds(Adopt, names),
    st.builds(Reduce, names, names, st.lists(st.integers(), min_size=1, max_size=3).map(tuple)),
    st.builds(Send, names, st.integers()),
    st.builds(Receive, names, st.integers()),
)


def nested(inner: st.SearchStrategy[Instruction]) -> st.SearchStrategy[Instruction]:
    body = st.lists(inner, max_size=3).map(tuple)
    return st.builds(Repeat, st.integers(), body) | st.builds(Every, st.integers(), body)


bodies = st.lists(st.recursive(simple, nested, max_leaves=6), max_size=6).map(tuple)


phases = st.lists(st.builds(Phase, lists, bodies), max_size=2).map(tuple)


@given(bodies, bodies, bodies, phases)
def test_what_is_printed_parses(
    step: tuple[Instruction, ...],
    evaluate: tuple[Instruction, ...],
    predict: tuple[Instruction, ...],
    phases: tuple[Phase, ...],
) -> None:
    sections = Sections(() if phases else step, evaluate, predict, phases)
    printed = print_sections(sections)
    assert parse(printed) == sections
    assert print_sections(parse(printed)) == printed


def test_every_instruction_has_a_template() -> None:
    assert list(TEMPLATES) == list(KINDS)


def test_a_plan_round_trips(plan: Plan) -> None:
    program = plan.program
    assert parse(text(plan)) == sections_of(program)


def test_the_header_and_the_boundaries(plan: Plan) -> None:
    printed = text(plan)
    assert printed.startswith(
        f"# plan small\n# hash {plan_hash(plan)}\n# target cpu, captured with torch 2.13.0\n"
    )
    rows = printed.splitlines()
    assert next(row for row in rows if "b1 -> b2: stop" in row).startswith(
        "  h1, b1.loss, b1.g, b1.buffers = call"
    )
    assert any(row.endswith("# b2 -> b3: gradient") for row in rows)


@pytest.mark.parametrize(
    ("instruction", "written"),
    [
        (Load(("x", "y"), ("image", "label")), "x, y = load image, label"),
        (Random("r", "fc1.dropout"), "r = random fc1.dropout"),
        (Call(("h1", "g1", "l1"), "b1.local", ("x", "y")), "h1, g1, l1 = call b1.local(x, y)"),
        (Call((), "b1.local", ()), "() = call b1.local()"),
        (Accumulate("s1", "g1", 0.25), "accumulate s1 <- g1 * 0.25"),
        (Update("b1", ("g1", "g4")), "update b1 <- g1, g4"),
        (Clip(("g1", "g2"), 1.0), "clip g1, g2 to 1.0"),
        (Write("u1"), "write u1"),
        (Free(("h1", "g1")), "free h1, g1"),
        (Record("b1.loss", "l1"), "record b1.loss l1"),
        (Return("output", "h3"), "return output h3"),
        (Repeat(4, ()), "repeat 4 {"),
        (Every(10, ()), "every 10 from 0 {"),
        (Every(10, (), 2), "every 10 from 2 {"),
        (Part(("x1",), ("x",), 0.25, 4, ()), "x1 = part x share 0.25 in 4 {"),
        (Later(2), "later 2"),
        (Only(1), "only 1"),
        (Lag(2), "lag 2"),
        (Offer("s1", (0, 2)), "offer s1 over 0, 2"),
        (Adopt("u1"), "adopt u1"),
        (Reduce("s", "s1", (0, 2)), "s = reduce s1 over 0, 2"),
        (Offset("b1", ("e1", "e2"), ("g1",)), "offset b1 <- e1, e2 minus g1"),
        (Correct("b1", ("g1", "g4")), "correct b1 in g1, g4"),
        (Shift("b1"), "shift b1"),
        (Free(("a b", "#", "x, y")), 'free "a b", "#", "x, y"'),
    ],
)
def test_lines(instruction: Instruction, written: str) -> None:
    assert line(instruction) == written


def test_nested_bodies_are_indented() -> None:
    body = (Repeat(2, (Every(3, (Free(("x",)),)), Write("u"))),)
    printed = print_sections(Sections(body, (), ()))
    wanted = (
        "step\n  repeat 2 {\n    every 3 from 0 {\n      free x\n    }\n    write u\n  }\n\nevaluate\n\npredict\n"
    )
    assert printed == wanted


def test_comments_and_blank_lines_do_not_count() -> None:
    written = "# a plan\n\nstep   # first\n\n  free x # gone\r\nevaluate\npredict"
    assert parse(written) == Sections((Free(("x",)),), (), ())


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ("  fre x", 3, "expected an instruction, found `fre`"),
        ("  x = lod image", 7, "expected an instruction, found `lod`"),
        ("  x =", 6, "expected an instruction, found the end of the line"),
        ("  update b1 g1", 13, "expected `<-`, found `g1`"),
        ("  update b1 <- g1,", 19, "expected a name, found the end of the line"),
        ("  write u1 u2", 12, "expected the end of the line, found `u2`"),
        ("  clip g1 to much", 14, "expected a number, found `much`"),
        ("  repeat 1.5 {", 10, "expected an integer, found `1.5`"),
        ("  repeat 2", 11, "expected `{`"),
        ("  h = call k(x", 15, "expected `)`"),
        ("  free x; free y", 9, "the character ';' has no meaning here"),
        ('  free "\\q"', 8, "bad escape"),
        ("  }", 3, "expected an instruction, found `}`"),
        ("  repeat 2 {", 1, "expected `}`"),
        ("step", 1, "there twice"),
    ],
)
def test_mistakes_are_located(row: str, column: int, message: str) -> None:
    with pytest.raises(LpcError) as caught:
        parse(f"step\n{row}\nevaluate\npredict\n", "my.txt")
    (found,) = caught.value.diagnostics
    assert found.code == "0520"
    assert message in found.message
    assert found.span is not None
    if "expected `}`" not in message:
        assert str(found.span) == f"my.txt:2:{column}"


def test_sections_are_named() -> None:
    with pytest.raises(LpcError, match=r"(?s)found `stop`.*did you mean `step`"):
        parse("stop\n")
    with pytest.raises(LpcError, match="section `predict` is missing"):
        parse("step\nevaluate\n")


def test_braces_are_capped() -> None:
    deep = "step\n" + "repeat 1 {\n" * (DEPTH + 1) + "}\n" * (DEPTH + 1) + "evaluate\npredict\n"
    with pytest.raises(LpcError, match="0521"):
        parse(deep)
