"""Is a value told that shares memory with a parameter which changes before it is read?"""

from __future__ import annotations

import pytest

from lpc.specs.plan.aliases import check_aliases
from lpc.specs.plan.instructions import Call, Instruction, Update, Write
from lpc.specs.plan.kernel import Bundle, Kernel, Node, Port, TensorType
from lpc.specs.plan.plan import Optimizer, ParameterGroup, Program

FOUR, ROWS = TensorType("float32", (4,)), TensorType("float32", (2, 4))


def bundle(name: str, role: str, value: str, source: str, kind: TensorType) -> Bundle:
    return Bundle(name, role, (Port(value, kind, source),))  # type: ignore[arg-type]


def giving(op: str) -> Kernel:
    """A kernel whose output comes from a parameter by one operator; it gives new statistics as well."""
    node = Node("n0", op, ({"ref": "p"}, [2, 4]), types=(ROWS,))
    results = (bundle("h", "output", "n0", "h", ROWS), bundle("buffers", "buffers", "s", "mean", FOUR))
    state = Bundle("state", "state", (Port("p", FOUR, "position"), Port("s", FOUR, "mean")))
    return Kernel("b1.local", "b1", (state,), (node,), results)


READ_IN, READ_OUT = bundle("h", "input", "x", "h", ROWS), bundle("y", "output", "x", "y", ROWS)
READING = Kernel("b2.local", "b2", (READ_IN,), (), (READ_OUT,))
MAKE, READ = Call(("h", "u"), "b1.local", ()), Call(("y",), "b2.local", ("h",))
OPTIMIZERS = {"b1": Optimizer("b1", "sgd", {}, (ParameterGroup(("position",)),))}
PROGRAM = Program((), (), (), {}, {}, OPTIMIZERS, {}, {})


def told(op: str, *body: Instruction) -> list[str]:
    kernels = {"b1.local": giving(op), "b2.local": READING}
    return [problem.code for problem in check_aliases("step", body, PROGRAM, kernels)]


@pytest.mark.parametrize(
    ("op", "body", "codes"),
    [
        ("aten.expand.default", (MAKE, Update("b1", ()), READ), ["0571"]),
        ("aten.expand.default", (MAKE, READ, Update("b1", ())), []),
        ("aten.repeat.default", (MAKE, Update("b1", ()), READ), []),
        ("aten.expand.default", (MAKE, Write("u"), READ), []),
        ("aten.expand.default", (MAKE, READ, Update("b1", ()), Call(("z",), "b2.local", ("y",))), ["0571"]),
    ],
)
def test_views_of_what_changes_are_told(op: str, body: tuple[Instruction, ...], codes: list[str]) -> None:
    assert told(op, *body) == codes
