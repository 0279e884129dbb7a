"""A small plan, written by hand: b1 -stop-> b2 -gradient-> b3, with a mask, a buffer, a loss and a metric."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lpc.specs.plan.instructions import Call, Free, Instruction, Load, Random, Record, Return, Update, Write
from lpc.specs.plan.kernel import Bundle, Kernel, Node, Port, Role, TensorType
from lpc.specs.plan.plan import Noise, Optimizer, ParameterGroup, Plan, Program, StateEntry

SPEC = "lpc: 1\nname: small\n"
NUMBER = TensorType("float32", ())
IMAGE = TensorType("float32", ("B", 3))
LABEL = TensorType("int64", ("B",))
HIDDEN = TensorType("float32", ("B", 4))
STATE = {
    "fc1.weight": ("b1", TensorType("float32", (4, 3))),
    "fc1.count": ("b1", TensorType("int64", ())),
    "fc2.weight": ("b2", TensorType("float32", (4, 4))),
    "fc3.weight": ("b3", TensorType("float32", (4, 4))),
}


def one(name: str, role: Role, value: str, kind: TensorType, source: str | None = None) -> Bundle:
    return Bundle(name, role, (Port(value, kind, source or name),))


def state(**values: str) -> Bundle:
    """`state(w="fc1.weight")`: tensors of the state by their names inside the kernel."""
    return Bundle("state", "state", tuple(Port(v, STATE[source][1], source) for v, source in values.items()))


def gradient(value: str, source: str) -> Bundle:
    return one("gradients", "gradients", value, STATE[source][1], source)


def node(name: str, op: str, *args: Any, **kwargs: Any) -> Node:
    """A node in which arguments such as `%n1` are references."""
    refs = tuple({"ref": a[1:]} if isinstance(a, str) and a[:1] == "%" else a for a in args)
    return Node(name, op, refs, kwargs)


def kernels() -> dict[str, Kernel]:
    x, label, h1, h2 = (
        one(name, "input", name, kind)
        for name, kind in (("x", IMAGE), ("label", LABEL), ("h1", HIDDEN), ("h2", HIDDEN))
    )
    mask = one("mask", "random", "mask", HIDDEN, "fc1.dropout")
    seed = one("seed_loss", "seed", "seed", NUMBER, "loss")
    linear = (node("n0", "aten.t.default", "%w"), node("n1", "aten.mm.default", "%x", "%n0"))
    local1 = Kernel(
        "b1.local",
        "b1",
        (state(w="fc1.weight", count="fc1.count"), seed, x, label, mask),
        (
            *linear,
            node("n2", "aten.mul.Tensor", "%n1", "%mask"),
            node("n3", "aten.mean.default", "%n2"),
            node("n4", "aten.sym_size.int", "%x", 0),
            Node("n5", "aten.expand.default", ({"ref": "seed"}, [{"ref": "n4"}, 4])),
            node("n6", "mul", "%n4", 4),
            node("n7", "aten.div.Scalar", "%n5", "%n6"),
            node("n8", "aten.mul.Tensor", "%n7", "%mask"),
            node("n9", "aten.t.default", "%n8"),
            node("n10", "aten.mm.default", "%n9", "%x"),
            node("n11", "aten.add.Tensor", "%count", 1),
        ),
        (
            one("h1", "output", "n2", HIDDEN),
            one("loss", "loss", "n3", NUMBER),
            gradient("n10", "fc1.weight"),
            one("buffers", "buffers", "n11", STATE["fc1.count"][1], "fc1.count"),
        ),
    )
    forward2 = Kernel(
        "b2.forward",
        "b2",
        (state(w="fc2.weight"), replace(h1, ports=(Port("x", HIDDEN, "h1"),))),
        linear,
        (one("h2", "output", "n1", HIDDEN), one("residuals", "residuals", "x", HIDDEN, "r0")),
    )
    backward2 = Kernel(
        "b2.backward",
        "b2",
        (
            one("residuals", "residuals", "r0", HIDDEN),
            one("d_h2_b3", "cotangent", "d", HIDDEN, "h2@b3"),
        ),
        (node("n0", "aten.t.default", "%d"), node("n1", "aten.mm.default", "%n0", "%r0")),
        (gradient("n1", "fc2.weight"),),
    )
    local3 = Kernel(
        "b3.local",
        "b3",
        (state(w="fc3.weight"), seed, replace(h2, ports=(Port("x", HIDDEN, "h2"),)), label),
        (
            *linear,
            node("n2", "aten.sum.default", "%n1"),
            node("n3", "aten.expand_as.default", "%seed", "%n1"),
            node("n4", "aten.mm.default", "%n3", "%w"),
            node("n5", "aten.t.default", "%n3"),
            node("n6", "aten.mm.default", "%n5", "%x"),
        ),
        (
            one("loss", "loss", "n2", NUMBER),
            gradient("n6", "fc3.weight"),
            one("d_h2_b3", "cotangent", "n4", HIDDEN, "h2@b3"),
        ),
    )
    plain = {
        "b1": Kernel(
            "b1.eval", "b1", (state(w="fc1.weight"), x), linear, (one("h1", "output", "n1", HIDDEN),)
        ),
        "b2": replace(forward2, name="b2.eval", results=forward2.results[:1]),
        "b3": Kernel(
            "b3.eval",
            "b3",
            (state(w="fc3.weight"), replace(h2, ports=(Port("x", HIDDEN, "h2"),))),
            (
                *linear,
                node("n2", "aten.gelu.default", "%n1", approximate="tanh"),
                node("n3", "aten.sum.default", "%n2"),
            ),
            (one("h3", "output", "n2", HIDDEN), one("loss", "loss", "n3", NUMBER)),
        ),
    }
    found = [local1, forward2, backward2, local3, *plain.values()]
    return {kernel.name: kernel for kernel in found}


STEP: tuple[Instruction, ...] = (
    Load(("x", "label"), ("x", "label")),
    Random("b1.mask", "fc1.dropout"),
    Call(("h1", "b1.loss", "b1.g", "b1.buffers"), "b1.local", ("x", "label", "b1.mask")),
    Write("b1.buffers"),
    Record("b1.loss", "b1.loss"),
    Update("b1", ("b1.g",)),
    Free(("x", "b1.mask", "b1.loss", "b1.g", "b1.buffers")),
    Call(("h2", "b2.r"), "b2.forward", ("h1",)),
    Free(("h1",)),
    Call(("b3.loss", "b3.g", "d_h2"), "b3.local", ("h2", "label")),
    Record("b3.loss", "b3.loss"),
    Update("b3", ("b3.g",)),
    Free(("b3.g", "b3.loss", "h2", "label")),
    Call(("b2.g",), "b2.backward", ("b2.r", "d_h2")),
    Update("b2", ("b2.g",)),
    Free(("b2.g", "b2.r", "d_h2")),
)
FORWARD: tuple[Instruction, ...] = (
    Load(("x",), ("x",)),
    Call(("h1",), "b1.eval", ("x",)),
    Free(("x",)),
    Call(("h2",), "b2.eval", ("h1",)),
    Free(("h1",)),
    Call(("h3", "loss"), "b3.eval", ("h2",)),
)


def image(tensors: dict[str, TensorType]) -> bytes:
    """A safetensors image of zeros."""
    header: dict[str, Any] = {}
    end = 0
    for name, kind in tensors.items():
        width, start = {"float32": 4, "int64": 8}[kind.dtype], end
        for length in kind.shape:
            width *= int(length)
        end = start + width
        dtype = {"float32": "F32", "int64": "I64"}[kind.dtype]
        header[name] = {"dtype": dtype, "shape": list(kind.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def optimizer(block: str, weight: str) -> Optimizer:
    return Optimizer(
        block, "sgd", {"lr": 0.1, "betas": [0.9, 1.0]}, (ParameterGroup((weight,)),), {"warmup": 2}
    )


def small_plan() -> Plan:
    program = Program(
        step=STEP,
        evaluate=(*FORWARD, Record("b3.loss", "loss"), Free(("h2", "h3", "loss"))),
        predict=(*FORWARD, Return("output", "h3"), Free(("h2", "h3", "loss"))),
        fields={"x": IMAGE, "label": LABEL},
        noise={"fc1.dropout": Noise("fc1.dropout", "bernoulli", (0.9,), HIDDEN)},
        optimizers={b: optimizer(b, f"fc{b[1]}.weight") for b in ("b1", "b2", "b3")},
        state={
            name: StateEntry(name, "buffer" if name.endswith("count") else "parameter", block, kind)
            for name, (block, kind) in STATE.items()
        },
        metrics={"b3.loss": "mean", "b1.loss": "mean"},
    )
    return Plan(
        spec=SPEC,
        target="cpu",
        program=program,
        partition={
            "directed": True,
            "nodes": [{"id": "b1"}, {"id": "b2"}, {"id": "b3"}],
            "edges": [
                {"source": "b1", "target": "b2", "link": "stop"},
                {"source": "b2", "target": "b3", "link": "gradient"},
            ],
        },
        kernels={"native": kernels(), "portable": {"b1.eval": kernels()["b1.eval"]}},
        weights=image({name: kind for name, (_, kind) in STATE.items()}),
        torch="2.13.0",
        report={"rung": "layers", "libraries": ["torch"], "obstacles": [], "threshold": float("inf")},
    )


@pytest.fixture(scope="session")
def plan() -> Plan:
    return small_plan()


@pytest.fixture(scope="session")
def with_step() -> Callable[[Plan, dict[int, Instruction | None]], Plan]:
    """Replace instructions of the step by their index; None drops one."""

    def change(plan: Plan, changes: dict[int, Instruction | None]) -> Plan:
        body = [changes.get(index, instruction) for index, instruction in enumerate(plan.program.step)]
        step = tuple(instruction for instruction in body if instruction is not None)
        return replace(plan, program=replace(plan.program, step=step))

    return change
