"""Is the JSON of a plan exact, the same every time, and read strictly?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.decode import decode
from lpc.specs.plan.encode import canonical
from lpc.specs.plan.instructions import Accumulate
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.plan import Noise, Plan, Program

numbers = st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "float"), inner),
    max_leaves=20,
)


def test_round_trip(plan: Plan) -> None:
    data = canonical(plan.program, Program)
    assert decode(data, Program, "plan.json") == plan.program
    for kernel in plan.kernels["native"].values():
        assert decode(canonical(kernel, Kernel), Kernel, "kernel") == kernel


def test_tables_keep_their_order(plan: Plan) -> None:
    read = decode(canonical(plan.program, Program), Program, "plan.json")
    assert list(read.metrics) == list(plan.program.metrics) == ["b3.loss", "b1.loss"]
    assert list(read.state) == list(plan.program.state)


def test_free_form_objects_are_sorted() -> None:
    assert (
        canonical({"b": 1, "a": (2, {"d": 3, "c": 4})}, dict[str, Any]) == b'{"a":[2,{"c":4,"d":3}],"b":1}\n'
    )


@given(json_values)
def test_free_form_values_round_trip(value: Any) -> None:
    data = canonical(value, Any)
    read: Any = decode(data, Any, "x")  # type: ignore[arg-type]
    assert read == value
    assert canonical(read, Any) == data


@given(numbers)
def test_floats_are_exact(number: float) -> None:
    noise = Noise("s", "normal", (number,), TensorType("float32", ()))
    read = decode(canonical(noise, Noise), Noise, "x")
    assert math.copysign(1, read.args[0]) == math.copysign(1, number)
    assert read.args[0].hex() == number.hex()


def test_not_a_number_is_spelled_out() -> None:
    data = canonical({"x": math.nan}, dict[str, Any])
    assert data == b'{"x":{"float":"nan"}}\n'
    read: Any = decode(data, dict[str, Any], "x")
    assert math.isnan(read["x"])


def test_an_integer_in_a_float_field_has_the_bytes_of_the_float() -> None:
    assert canonical(Accumulate("s", "g", 1), Accumulate) == canonical(Accumulate("s", "g", 1.0), Accumulate)


def test_what_has_no_json_is_refused(plan: Plan) -> None:
    with pytest.raises(TypeError, match="object has none"):
        canonical({"x": object()}, dict[str, Any])


@pytest.mark.parametrize(
    ("path", "value", "place", "message"),
    [
        (("step",), 3, "$.step", "expected a list, found 3"),
        (("step", 0, "do"), "lod", "$.step[0].do", "unknown instruction `lod`"),
        (("step", 0), {"values": []}, "$.step[0]", "expected an instruction"),
        (("step", 0, "extra"), 1, "$.step[0].extra", "unknown key `extra`"),
        (("step", 2, "kernel"), None, "$.step[2].kernel", "expected a string, found null"),
        (("step", 2, "values", 1), True, "$.step[2].values[1]", "expected a string, found true"),
        (("noise", "fc1.dropout", "args", 0), "0.5", "$.noise.fc1.dropout.args[0]", "expected a number"),
        (
            ("state", "fc1.weight", "type", "shape", 1),
            1.5,
            "$.state.fc1.weight.type.shape[1]",
            "an integer or a string",
        ),
        (("state", "fc1.weight", "trainable"), 1, "$.state.fc1.weight.trainable", "expected true or false"),
        (("optimizers", "b1", "clip"), "x", "$.optimizers.b1.clip", "a number or null"),
        (("metrics",), [], "$.metrics", "expected an object"),
    ],
)
def test_mistakes_are_located(
    plan: Plan, path: tuple[Any, ...], value: Any, place: str, message: str
) -> None:
    data = json.loads(canonical(plan.program, Program))
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(LpcError) as caught:
        decode(json.dumps(data).encode(), Program, "plan.json")
    (found,) = caught.value.diagnostics
    assert (found.code, found.place) == ("0503", f"plan.json: {place}")
    assert message in found.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no valid JSON"),
        (b"{", "no valid JSON"),
        (b"\xff", "no valid JSON"),
        (b'{"a": NaN}', "`NaN` is no JSON number"),
        (b'{"a": 1, "a": 2}', "key `a` is there twice"),
        (b"[" * 100_000, "JSON"),
        (b"1" * 5000, "JSON"),
        (b"{}", "is missing"),
    ],
)
def test_broken_json_is_told(data: bytes, message: str) -> None:
    with pytest.raises(LpcError, match="0503") as caught:
        decode(data, Kernel, "k.json")
    assert message in caught.value.diagnostics[0].message


def test_roles_are_a_closed_set(plan: Plan) -> None:
    data = canonical(plan.kernels["native"]["b1.eval"], Kernel).replace(b'"input"', b'"inputs"')
    with pytest.raises(LpcError, match="`input`"):
        decode(data, Kernel, "k.json")


def test_equal_programs_have_equal_bytes(plan: Plan) -> None:
    copy = replace(plan.program, optimizers=dict(plan.program.optimizers))
    assert canonical(copy, Program) == canonical(plan.program, Program)
