"""Is a mistake in the DSL told at its place, in words that mend it? A table of bad inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpc.specs import LpcError, load_spec
from lpc.specs.dsl_errors import HELP, MESSAGES, TEACHING
from lpc.specs.dsl_text import read_dsl
from lpc.specs.source import Source

# Text, and the first problem's code, line, column and message.
BAD = [
    ("run epochs: 20\n", "0108", 1, 11, "unexpected `:` after a key"),
    ("run epochs = 20\n", "0108", 1, 12, "unexpected `=` after a key"),
    ("run\n  epochs\n", "0108", 2, 9, "a key lacks its value, found the end of the text"),
    ("run epochs 20 seed\n", "0108", 1, 19, "a key lacks its value, found the end of the text"),
    ("  run epochs 1\n", "0108", 1, 3, "this line is indented, but the line above takes no body"),
    ("loss mse\n  weight 2\n", "0108", 2, 3, "this line is indented, but the line above takes no body"),
    ("network\n    flatten\n  relu\n", "0108", 3, 3, "the indentation fits no line above"),
    ("= mse\n", "0108", 1, 1, "a statement begins with a word, found `=`"),
    ('loss"\n', "0108", 1, 5, "this quote is not closed on its line, or its text has a wrong escape"),
    (
        'loss "abc\nname x\n',
        "0108",
        1,
        6,
        "this quote is not closed on its line, or its text has a wrong escape",
    ),
    ("network\n  fc1 = linear(256), relu\n", "0108", 2, 20, "layers in a row are joined by `>>`, found `,`"),
    (
        "network\n  fc1 = linear(256) relu\n",
        "0108",
        2,
        21,
        "layers in a row are joined by `>>`, found `relu`",
    ),
    (
        "network\n  fc1 = linear(256) >>\n",
        "0108",
        2,
        23,
        "an operator should follow, found the end of the text",
    ),
    ("network\n  fc1 =\n", "0108", 2, 8, "an operator should follow, found the end of the text"),
    ("network\n  fc1: linear(256)\n", "0108", 2, 6, "unexpected `:` after a word"),
    ("network\n  input image float32[1]\n", "0108", 2, 15, "expected `:` after the name, found `float32[1]`"),
    ("network\n  input image: 28\n", "0108", 2, 16, "expected a dtype and a shape, found `28`"),
    (
        "decompose\n  block b1\n",
        "0108",
        2,
        11,
        "expected `=` after the block's name, found the end of the text",
    ),
    ("decompose\n  block b1: fc1\n", "0108", 2, 11, "expected `=` after the block's name, found `:`"),
    ("decompose\n  block b1 =\n", "0108", 2, 13, "a block lacks what it holds, found the end of the text"),
    ("decompose\n  link a->b stop\n", "0108", 2, 13, "expected `=` after the link's ends, found `stop`"),
    ("decompose\n  link a->b =\n", "0108", 2, 14, "a link lacks its term, found the end of the text"),
    ("learn * head linear\n", "0108", 1, 9, "expected `:` after what the entry is about, found `head`"),
    ("learn *: head linear,\n", "0108", 1, 22, "a key should follow the comma, found the end of the text"),
    ("learn *: head: linear\n", "0108", 1, 14, "unexpected `:` after a key"),
    ("loss mse(weight=)\n", "0108", 1, 17, "an argument should follow, found `)`"),
    ("loss mse(weight=2\nrun epochs 1\n", "0108", 2, 1, "a bracket is not closed before `run`"),
    ("loss [mse, mae\n", "0108", 1, 12, "a bracket is not closed before the end of the line"),
    ("loss mse(weight 2)\n", "0108", 1, 17, "a bracket is not closed before `2`"),
    ("field label int64\n", "0108", 1, 13, "expected `:` after the name, found `int64`"),
    (
        "network\n  branch\n    path\n      relu\n",
        "0108",
        3,
        9,
        "a path has a name, found the end of the line",
    ),
    (
        "network\n  branch\n    relu\n",
        "0140",
        3,
        5,
        "a branch consists of paths: `path NAME`, its layers under it",
    ),
    ("network\n  residual\n    path a\n      relu\n", "0140", 3, 5, "`path` stands under `branch` only"),
    (
        "network\n  relu\n    tanh\n",
        "0140",
        2,
        3,
        "`relu` has layers under it, and is none of residual, repeat, branch",
    ),
    (
        "network\n  a = residual >> relu\n",
        "0140",
        2,
        7,
        "`residual` stands alone on its line, its layers under it",
    ),
    (
        "network\n  relu >> residual\n",
        "0140",
        2,
        11,
        "`residual` stands alone on its line, its layers under it",
    ),
    (
        "network\n  residual = relu\n",
        "0140",
        2,
        3,
        "`residual` is a word of the language and cannot name this layer",
    ),
    ("loss mse(1e)\n", "0108", 1, 10, "an argument should follow, found `1`"),
    ('loss "a\\q"\n', "0104", 1, 6, '"a\\q" has an escape that JSON does not have'),
    ("network zoo mlp\nnetwork zoo vgg\n", "0102", 2, 1, "`network` is given twice"),
    ("run seed 1 seed 2\n", "0102", 1, 12, "`seed` is given twice"),
    ("decompose blocks per_layer\n  block a = b\n", "0102", 2, 3, "`blocks` is given as a whole already"),
    ("decompose\n  block a = b\n  block a = c\n", "0102", 3, 9, "`a` is given twice"),
    ("loss mse(a=1, 2)\n", "0104", 1, 15, "an argument without a name follows one with a name"),
    ("run epochs 20;\n", "0108", 1, 14, "unexpected `;`"),
    ("spec\n", "0108", 1, 5, "a key lacks its value, found the end of the text"),
    ("loss mse)\n", "0108", 1, 9, "a key lacks its value, found `)`"),
    ("- loss mse\n", "0108", 1, 1, "a statement begins with a word, found `-`"),
    ("name: a\n", "0108", 1, 5, "unexpected `:` after a key"),
    ("network:\n  layers:\n    - relu\n", "0108", 1, 8, "unexpected `:` after a key"),
    ("run epochs: 1\nloss\n\nnetwork\n  a = b c\n", "0108", 1, 11, "unexpected `:` after a key"),
]

GOOD = """\
spec a
network
  input image: float32[1, 8, 8]
  fc1 = linear(256) >> relu
  residual
    norm = layer_norm
data digits batch 64
decompose
  block a = fc1, "b", c.*
  link * = stop
learn *: head linear, loss [mse, mae(weight=2)]
run epochs 20
"""


def problems(text: str) -> list[tuple[str, int, int, str]]:
    with pytest.raises(LpcError) as caught:
        read_dsl(Source("spec.lpc", text))
    found = caught.value.diagnostics
    return [(d.code, d.span.line, d.span.column, d.message) for d in found if d.span is not None]


@pytest.mark.parametrize(("text", "code", "line", "column", "message"), BAD, ids=[row[0] for row in BAD])
def test_bad_examples(text: str, code: str, line: int, column: int, message: str) -> None:
    assert problems(text)[0] == (code, line, column, message)


@pytest.mark.parametrize(
    ("kind", "example"), [(kind, text) for kind, texts in TEACHING.items() for text in texts]
)
def test_lessons_are_learnt(kind: str, example: str) -> None:
    """What teaches a message is told in that message, or in that of an earlier lesson for the same place."""
    with pytest.raises(LpcError) as caught:
        read_dsl(Source("spec.lpc", example))
    (problem,) = caught.value.diagnostics
    assert problem.code == "0108"
    assert problem.help in HELP.values()


def test_every_kind_of_mistake_is_taught() -> None:
    assert set(MESSAGES) - {"dedent", "quote"} == set(TEACHING)


def test_every_statement_tells_its_own_problem() -> None:
    text = "run epochs: 1\nloss mse\ndata digits batch\nnetwork\n  a = b c\n\n# good\nlearn * head x\n"
    assert [(line, column) for _, line, column, _ in problems(text)] == [(1, 11), (3, 18), (5, 9), (8, 9)]


def test_one_reading_tells_many_problems() -> None:
    text = "network zoo mlp\nnetwork zoo vgg\nrun seed 1 seed 2\n"
    assert [line for _, line, _, _ in problems(text)] == [2, 3]


def test_misfits_point_into_the_text() -> None:
    text = "network zoo mlp\ndecompose blocks per_layer\nlearn *: optimiser adam\nrun epochs many\n"
    with pytest.raises(LpcError) as caught:
        load_spec(Path("spec.lpc"), text=text)
    found = [(d.code, str(d.span)) for d in caught.value.diagnostics]
    assert found == [("0110", "spec.lpc:3:10"), ("0113", "spec.lpc:4:12")]


@given(st.text(alphabet="ab:-[]{}(),'\"#*?>=.1~\n\t \x00\x85e", max_size=40))
@settings(deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        told = read_dsl(Source("spec.lpc", text)) is not None
    except LpcError as error:
        told = bool(error.diagnostics)
    assert told


@given(st.integers(0, len(GOOD) - 1), st.sampled_from([*'\n "#:=,()[]{}>*-xé1', "", "\t"]), st.booleans())
@settings(deadline=None)
def test_a_mutated_spec_is_read_or_refused(at: int, character: str, replace: bool) -> None:
    try:
        told = bool(load_spec(Path("spec.lpc"), text=GOOD[:at] + character + GOOD[at + replace :]))
    except LpcError as error:
        told = all(d.span or d.place for d in error.diagnostics)
    assert told
