"""Does the verifier accept a sound plan and name every seeded fault?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lpc.specs.codes import CODES
from lpc.specs.diagnostics import Diagnostic
from lpc.specs.plan.instructions import (
    DEPTH,
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
    Offer,
    Offset,
    Only,
    Part,
    Random,
    Record,
    Reduce,
    Repeat,
    Return,
    Shift,
    Update,
    Write,
)
from lpc.specs.plan.kernel import Kernel, Node, Port, TensorType
from lpc.specs.plan.plan import Phase, Plan
from lpc.specs.plan.verify import verify

Steps = dict[int, Instruction | None]
WithStep = Callable[[Plan, Steps], Plan]


@dataclass(frozen=True)
class Fault:
    """Instructions of the step by index (see conftest) that are replaced, and what must be told, in order."""

    changes: Steps
    codes: tuple[str, ...]
    part: str = ""


FREE_ALL = ("x", "b1.mask", "b1.loss", "b1.g", "b1.buffers")
LOCAL1 = ("h1", "b1.loss", "b1.g", "b1.buffers")

STEP_FAULTS: dict[str, Fault] = {
    "value never defined": Fault({1: None}, ("0540", "0540"), "b1.mask"),
    "free too early": Fault({3: Free(FREE_ALL), 6: Write("x")}, ("0541",) * 3, "freed before"),
    "free forgotten": Fault({8: None}, ("0543",), "`h1` is never freed"),
    "freed twice": Fault({8: Free(("h1", "h1"))}, ("0542",), "h1"),
    "freed but never defined": Fault({8: Free(("h1", "h9"))}, ("0540",), "h9"),
    "defined twice": Fault({4: Random("b1.mask", "fc1.dropout")}, ("0544",), "again"),
    "unknown kernel": Fault({7: Call(("h2", "b2.r"), "b2.forwad", ("h1",))}, ("0545",), "b2.forward"),
    "argument missing": Fault({2: Call(LOCAL1, "b1.local", ("x", "label"))}, ("0546",), "3 arguments, and 2"),
    "result not named": Fault(
        {7: Call(("h2",), "b2.forward", ("h1",)), 13: None, 14: None, 15: Free(("d_h2",))}, ("0546",)
    ),
    "arguments swapped": Fault(
        {2: Call(LOCAL1, "b1.local", ("label", "x", "b1.mask"))}, ("0548", "0548"), "int64"
    ),
    "noise as an input": Fault(
        {2: Call(LOCAL1, "b1.local", ("b1.mask", "label", "x"))}, ("0547", "0547"), "random"
    ),
    "unknown field": Fault({0: Load(("x", "label"), ("x", "lable"))}, ("0555",), "lable"),
    "more names than fields": Fault({0: Load(("x", "label", "z"), ("x", "label"))}, ("0546",)),
    "unknown site": Fault({1: Random("b1.mask", "fc2.dropout")}, ("0549",), "fc2.dropout"),
    "unknown metric": Fault({4: Record("b2.loss", "b1.loss")}, ("0554",), "b2.loss"),
    "metric of an output": Fault({4: Record("b1.loss", "h1")}, ("0547",), "output"),
    "update without an optimizer": Fault({5: Update("b9", ("b1.g",))}, ("0550",), "b9"),
    "update of the wrong block": Fault({11: Update("b2", ("b3.g",))}, ("0551",), "b3.g"),
    "output as a gradient": Fault({5: Update("b1", ("h1",))}, ("0547",), "h1"),
    "gradient returned": Fault({4: Return("g", "b1.g")}, ("0547",), "gradients"),
    "gradient as an input": Fault(
        {9: Call(("b3.loss", "b3.g", "d_h2"), "b3.local", ("b2.r", "label"))}, ("0547",)
    ),
    "write of a loss": Fault({3: Write("b1.loss")}, ("0547",)),
    "update before the last read": Fault({6: Update("b2", ()), 14: Free(FREE_ALL)}, ("0552",), "fc2.weight"),
    "cotangent for residuals": Fault(
        {13: Call(("b2.g",), "b2.backward", ("d_h2", "b2.r"))}, ("0547", "0547")
    ),
    "freed in a repeat": Fault({8: Repeat(2, (Free(("h1",)),))}, ("0542",), "freed 2 times"),
    "freed at some steps": Fault({8: Every(10, (Free(("h1",)),))}, ("0543",), "some"),
    "left in a repeat": Fault({8: Repeat(2, (Random("r", "fc1.dropout"), Free(("h1",))))}, ("0542", "0543")),
    "sum made at some steps": Fault({5: Every(2, (Accumulate("s", "b1.g", 1.0),))}, ("0543",), "`s`"),
    "update in a part": Fault({5: Part((), (), 0.5, 1, (Update("b1", ("b1.g",)),))}, ("0547",), "some samples"),
    "part of a gradient": Fault({5: Part(("g",), ("b1.g",), 0.5, 1, (Free(("g",)),))}, ("0547",), "gradients"),
    "more names than parts": Fault({5: Part(("a", "b"), ("x",), 0.5, 1, (Free(("a",)),))}, ("0546",)),
    "piece that is never freed": Fault({5: Part(("a",), ("x",), 0.5, 1, ())}, ("0543",), "`a`"),
    "freed in each piece": Fault({8: Part((), (), 0.5, 2, (Free(("h1",)),))}, ("0542",), "freed 2 times"),
    "part of no share": Fault({5: Part((), (), math.nan, 1, ())}, ("0557",), "share"),
    "later in no part": Fault({5: Later(1)}, ("0547",), "`later 1`"),
    "only a piece that is none": Fault({5: Part((), (), 0.5, 2, (Only(2),))}, ("0557",), "2 pieces"),
    "later twice": Fault({5: Part((), (), 0.5, 2, (Later(1), Later(0)))}, ("0557", "0557"), "at most"),
    "lag in a body": Fault({5: Repeat(1, (Lag(1),))}, ("0547",), "`lag 1`"),
    "lag of no step": Fault({5: Lag(0)}, ("0557",), "from 1"),
    "lag twice": Fault({4: Lag(1), 5: Lag(1)}, ("0557",), "at most"),
    "offered twice": Fault({5: Offer("b1.g", (0, 0))}, ("0557",), "once"),
    "offered loss": Fault({5: Offer("b1.loss", (0, 1))}, ("0547",), "`offer`"),
    "later before": Fault({5: Part((), (), 0.5, 2, (Later(-1),))}, ("0557",), "from 0"),
    "adopted in no part": Fault({5: Adopt("b1.buffers")}, ("0547",), "no `part`"),
    "reduced twice": Fault({5: Reduce("s", "b1.g", (0, 0))}, ("0557", "0543"), "once"),
    "reduced loss": Fault({5: Reduce("s", "b1.loss", (0, 1))}, ("0547", "0543"), "`reduce`"),
    "correction that is none": Fault({5: Correct("b1", ("b1.g",))}, ("0560",), "b1"),
    "shift without a correction": Fault({5: Shift("b1")}, ("0560",), "b1"),
    "offset of a loss": Fault({5: Offset("b1", ("b1.loss",), ("b1.g",))}, ("0560", "0547")),
    "sum of a loss": Fault({5: Clip(("b1.loss",), 1.0)}, ("0547",)),
    "repeat that never runs": Fault({5: Repeat(0, ())}, ("0557",)),
    "repeats without end": Fault({5: Repeat(10**4, (Repeat(10**4, (Update("b1", ("b1.g",)),)),))}, ("0557",)),
}


def check(plan: Plan, codes: tuple[str, ...], part: str) -> list[Diagnostic]:
    found = verify(plan)
    shown = "\n".join(problem.render() for problem in found)
    assert tuple(problem.code for problem in found) == codes, shown
    assert part in shown
    assert all(problem.place for problem in found)
    return found


def test_a_sound_plan_has_no_problems(plan: Plan) -> None:
    assert verify(plan) == []


@pytest.mark.parametrize("fault", STEP_FAULTS)
def test_faults_in_a_section(plan: Plan, with_step: WithStep, fault: str) -> None:
    seeded = STEP_FAULTS[fault]
    check(with_step(plan, seeded.changes), seeded.codes, seeded.part)


def test_the_place_and_the_line_are_told(plan: Plan, with_step: WithStep) -> None:
    inner = Repeat(1, (Write("u9"),))
    (found,) = verify(with_step(plan, {3: Repeat(1, (inner,)), 6: Free(FREE_ALL)}))
    assert found.place == "step[3].body[0].body[0]"
    assert "in `write u9`" in found.notes


def test_sums_outlive_their_repeat(plan: Plan, with_step: WithStep) -> None:
    """Gradient accumulation: four micro-batches, one update."""
    body = tuple(i for i in plan.program.step[:6] if not isinstance(i, Update))
    changes: Steps = dict.fromkeys(range(16), None)
    changes[0] = Repeat(4, (*body, Accumulate("s", "b1.g", 0.25), Free((*FREE_ALL, "h1", "label"))))
    changes[1] = Clip(("s",), 1.0)
    changes[2] = Update("b1", ("s",))
    changes[3] = Free(("s",))
    assert verify(with_step(plan, changes)) == []
    changes[3] = None
    check(with_step(plan, changes), ("0543",), "`s` is never freed")


def test_deep_nesting_is_told(plan: Plan, with_step: WithStep) -> None:
    body: Instruction = Repeat(1, ())
    for _ in range(DEPTH + 1):
        body = Repeat(1, (body,))
    check(with_step(plan, {5: body}), ("0521",), "")


def with_kernel(plan: Plan, name: str, **changes: Any) -> Plan:
    kernel = replace(plan.kernels["native"][name], **changes)
    return replace(plan, kernels={**plan.kernels, "native": {**plan.kernels["native"], name: kernel}})


def with_link(plan: Plan, link: str) -> Plan:
    edges = [dict(edge) for edge in plan.partition["edges"]]
    edges[1]["link"] = link
    return replace(plan, partition={**plan.partition, "edges": edges})


def test_a_gradient_across_stop(plan: Plan) -> None:
    (found,) = check(with_link(plan, "stop"), ("0553",), "b2 -> b3 is `stop`")
    assert "d_h2" in found.message


def test_gradient_links_with_options_let_gradients_through(plan: Plan) -> None:
    assert verify(with_link(plan, "gradient(reach=1)")) == []
    check(with_link(plan, "gradientless"), ("0553",), "")


def test_a_gradient_without_a_boundary(plan: Plan) -> None:
    cut = replace(plan, partition={**plan.partition, "edges": plan.partition["edges"][:1]})
    check(cut, ("0553",), "b2 -> b3 does not exist")


def test_residuals_of_another_block(plan: Plan) -> None:
    check(with_kernel(plan, "b2.backward", block="b1"), ("0547", "0553"), "residuals of block `b2`")


def changed(kernel: Kernel, index: int, **changes: Any) -> tuple[Node, ...]:
    nodes = list(kernel.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return tuple(nodes)


@pytest.mark.parametrize(
    ("index", "changes", "code"),
    [
        (1, {"args": ({"ref": "n7"}, {"ref": "n0"})}, "0532"),
        (1, {"op": "aten.from_file.default"}, "0530"),
        (1, {"name": "x"}, "0533"),
        (0, {"args": ({"ref": "w"}, "text")}, "0531"),
    ],
)
def test_faults_in_a_kernel(plan: Plan, index: int, changes: dict[str, Any], code: str) -> None:
    kernel = plan.kernels["native"]["b3.eval"]
    found = verify(with_kernel(plan, "b3.eval", nodes=changed(kernel, index, **changes)))
    assert found[0].code == code
    assert found[0].place is not None
    assert "b3.eval" in found[0].place


def test_a_result_that_no_node_computes(plan: Plan) -> None:
    kernel = plan.kernels["native"]["b3.eval"]
    check(with_kernel(plan, "b3.eval", nodes=kernel.nodes[:-1]), ("0534",), "n3")


def rebound(plan: Plan, name: str, role: str, **changes: Any) -> Plan:
    """Change the first port of a kernel's bundle."""

    def change(bundles: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            replace(b, ports=(replace(b.ports[0], **changes), *b.ports[1:])) if b.role == role else b
            for b in bundles
        )

    kernel = plan.kernels["native"][name]
    return with_kernel(plan, name, arguments=change(kernel.arguments), results=change(kernel.results))


def test_state_that_does_not_exist(plan: Plan) -> None:
    check(rebound(plan, "b3.eval", "state", source="fc9.weight"), ("0556",), "fc9.weight")


def test_state_of_another_type(plan: Plan) -> None:
    check(rebound(plan, "b3.eval", "state", type=TensorType("float64", (4, 4))), ("0548",), "float64")


def test_a_gradient_of_a_buffer(plan: Plan) -> None:
    check(rebound(plan, "b1.local", "gradients", source="fc1.count"), ("0556", "0551"), "not trainable")


def test_an_input_of_another_shape(plan: Plan) -> None:
    check(
        rebound(plan, "b3.eval", "input", type=TensorType("float32", ("B", 5))),
        ("0548", "0548"),
        "float32[B, 5]",
    )


def test_symbols_may_differ_in_spelling(plan: Plan) -> None:
    assert verify(rebound(plan, "b3.eval", "input", type=TensorType("float32", ("B*1", 4)))) == []


def test_a_loss_that_is_no_number(plan: Plan) -> None:
    check(
        rebound(plan, "b3.local", "loss", type=TensorType("float32", ("B",))), ("0548",), "no single number"
    )


def test_several_tensors_for_one(plan: Plan) -> None:
    kernel = plan.kernels["native"]["b2.forward"]
    ports = (*kernel.results[1].ports, Port("n0", TensorType("float32", (4, 4)), "r1"))
    results = (kernel.results[0], replace(kernel.results[1], ports=ports))
    check(with_kernel(plan, "b2.forward", results=results), ("0548",), "2 tensors")


def test_the_native_kernels_are_needed(plan: Plan) -> None:
    found = verify(replace(plan, kernels={"portable": {}}))
    assert found[0].code == "0545"


def test_targets_with_other_signatures(plan: Plan) -> None:
    other = replace(plan.kernels["native"]["b1.eval"], results=())
    found = verify(replace(plan, kernels={**plan.kernels, "portable": {"b1.eval": other}}))
    assert {problem.code for problem in found} == {"0559", "0546"}


def test_weights_that_are_missing_or_of_another_type(plan: Plan) -> None:
    state = dict(plan.program.state)
    state["fc9"] = replace(state["fc1.weight"], name="fc9")
    check(replace(plan, program=replace(plan.program, state=state)), ("0558",), "`fc9` is float32[4, 3]")


@pytest.mark.parametrize(
    "weights", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x03" + bytes(7) + b"{,}"]
)
def test_weights_that_are_no_image(plan: Plan, weights: bytes) -> None:
    check(replace(plan, weights=weights), ("0558",), "no safetensors image")


def test_truncated_weights(plan: Plan) -> None:
    check(replace(plan, weights=plan.weights[:-1]), ("0558",), "fc3.weight")


def test_a_partition_that_is_none(plan: Plan) -> None:
    check(replace(plan, partition={"edges": [{"source": "b1"}]}), ("0503",), "edges[0]")
    check(replace(plan, partition={"edges": 3}), ("0503",), "edges")


def test_an_optimizer_of_unknown_parameters(plan: Plan) -> None:
    optimizers = dict(plan.program.optimizers)
    group = replace(optimizers["b1"].groups[0], parameters=("fc1.weight", "fc1.wait"))
    optimizers["b1"] = replace(optimizers["b1"], groups=(group,))
    check(replace(plan, program=replace(plan.program, optimizers=optimizers)), ("0556",), "fc1.wait")


def test_a_phase_that_changes_what_it_does_not_train(plan: Plan) -> None:
    """The sample's step updates b1, b2 and b3, and writes buffers of b1."""
    step = plan.program.step

    def told(*trains: str) -> list[Diagnostic]:
        return verify(replace(plan, program=replace(plan.program, step=(), phases=(Phase(trains, step),))))

    assert told("b1", "b2", "b3") == []
    assert [(d.code, d.place) for d in told("b1", "b3")] == [("0561", "phase 1")]
    quiet = tuple(i for i in step if not (isinstance(i, Update) and i.block == "b1"))
    frozen = replace(plan, program=replace(plan.program, step=(), phases=(Phase(("b2", "b3"), quiet),)))
    assert [d.message for d in verify(frozen)] == ["the phase changes `b1`, and trains b2, b3"]


def test_every_code_of_plans_has_help() -> None:
    codes = {code: row for code, row in CODES.items() if code.startswith("05")}
    assert len(codes) >= 30
    assert all(row.title and row.help for row in codes.values())
