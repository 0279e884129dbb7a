"""Does a kernel's text read back as what was printed?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.kernel import ROLES, Bundle, Kernel, Node, Port, TensorType
from lpc.specs.plan.kernel_text import kernel_text, parse_kernel
from lpc.specs.plan.plan import Plan

names = st.from_regex(r"[a-z]\w{0,6}(\.\w{1,4})?", fullmatch=True) | st.text(max_size=6)
types = st.builds(TensorType, names, st.lists(st.integers(0, 9) | names, max_size=3).map(tuple))
bundles = st.builds(
    Bundle,
    names,
    st.sampled_from(ROLES),
    st.lists(st.builds(Port, names, types, names), max_size=3).map(tuple),
)
forms = st.sampled_from(["ref", "dtype", "device", "layout", "memory_format", "float"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | names
    | st.builds(lambda form, name: {form: name}, forms, names),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
nodes = st.builds(
    Node,
    names,
    names,
    st.lists(values, max_size=3).map(tuple),
    st.dictionaries(names, values, max_size=2),
    names,
    st.lists(types, max_size=2).map(tuple),
)
kernels = st.builds(
    Kernel,
    names,
    names,
    st.lists(bundles, max_size=3).map(tuple),
    st.lists(nodes, max_size=3).map(tuple),
    st.lists(bundles, max_size=3).map(tuple),
    names,
)


@given(kernels)
def test_what_is_printed_parses(kernel: Kernel) -> None:
    printed = kernel_text(kernel)
    read = parse_kernel(printed)
    assert read == kernel
    assert repr(read) == repr(kernel)  # tells 1 from 1.0 and True


def test_a_plans_kernels_round_trip(plan: Plan) -> None:
    for kernel in plan.kernels["native"].values():
        assert parse_kernel(kernel_text(kernel)) == kernel


def test_the_text_is_readable(plan: Plan) -> None:
    assert kernel_text(plan.kernels["native"]["b3.eval"]).splitlines() == [
        "kernel b3.eval, block b3, device any",
        "argument state, state",
        "  %w = fc3.weight, float32[4, 4]",
        "argument h2, input",
        '  %x = h2, float32["B", 4]',
        "node %n0 = aten.t.default(%w)",
        "node %n1 = aten.mm.default(%x, %n0)",
        'node %n2 = aten.gelu.default(%n1, approximate="tanh")',
        "node %n3 = aten.sum.default(%n2)",
        "result h3, output",
        '  %n2 = h3, float32["B", 4]',
        "result loss, loss",
        "  %n3 = loss, float32[]",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no kernel"),
        ("kernel k, block b", "expected `,`"),
        (
            "kernel k, block b, device any\nnod %n = f()",
            "expected `argument`, `node` or `result`, found `nod`",
        ),
        ("kernel k, block b, device any\nargument x, inputs", "expected a role, found `inputs`"),
        ("kernel k, block b, device any\nargument x, input\n  %x = x, f[B]", "expected a length, found `B`"),
        ("kernel k, block b, device any\nnode %n = f(%x, import)", "expected a value, found `import`"),
        ("kernel k, block b, device any\nnode %n = f(%x", "expected `,`"),
    ],
)
def test_mistakes_are_told(text: str, message: str) -> None:
    with pytest.raises(LpcError, match="0520") as caught:
        parse_kernel(text)
    assert message in caught.value.diagnostics[0].message
