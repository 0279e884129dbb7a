"""Which plan do the runtime's tests run? A two-block linear net with local losses, written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from lpc.runtime.data import Splits, open_data
from lpc.runtime.trainer import Trainer
from lpc.specs.loader import load_spec
from lpc.specs.plan.instructions import (
    Accumulate,
    Call,
    Clip,
    Free,
    Instruction,
    Load,
    Random,
    Record,
    Repeat,
    Return,
    Update,
    Write,
)
from lpc.specs.plan.kernel import Bundle, Json, Kernel, Node, Port, TensorType
from lpc.specs.plan.plan import Noise, Optimizer, ParameterGroup, Plan, Program, StateEntry

torch.set_num_threads(1)

SHAPES: dict[str, tuple[int, ...]] = {
    "fc1.weight": (5, 4),
    "fc1.bias": (5,),
    "heads.b1.weight": (3, 5),
    "fc2.weight": (3, 5),
    "fc2.bias": (3,),
}
BLOCKS = {"b1": ("fc1.weight", "fc1.bias", "heads.b1.weight"), "b2": ("fc2.weight", "fc2.bias")}

LOSS = """
d = aten.sub.Tensor p t
sq = aten.mul.Tensor d d
l = aten.mean.default sq
"""
COTANGENT = """
s0 = aten.sym_size.int x 0
n = mul s0 3
d2 = aten.mul.Tensor d 2.0
d3 = aten.div.Tensor d2 n
dp = aten.mul.Tensor d3 seed
dpt = aten.t.default dp
"""
FORWARD1 = """
wt = aten.t.default w
a = aten.addmm.default b x wt
h0 = aten.relu.default a
"""
HEAD1 = """
vt = aten.t.default v
p = aten.mm.default h vt
"""
BACKWARD1 = """
dv = aten.mm.default dpt h
dh = aten.mm.default dp v
"""
BACKWARD1_END = """
da = aten.threshold_backward.default dm h0 0
dat = aten.t.default da
dw = aten.mm.default dat x
db = aten.sum.dim_IntList da [0]
c1 = aten.add.Tensor c 1
"""
FORWARD2 = """
wt = aten.t.default w
p = aten.addmm.default b x wt
"""
BACKWARD2 = """
dw = aten.mm.default dpt x
db = aten.sum.dim_IntList dp [0]
"""
KEEP = "h = aten.mul.Tensor h0 mask\n"
PASS = "h = aten.mul.Tensor h0 1.0\n"
UNMASK = "dm = aten.mul.Tensor dh mask\n"
UNPASS = "dm = aten.mul.Tensor dh 1.0\n"


def nodes(text: str) -> tuple[Node, ...]:
    """Return nodes written as `name = op arg arg`; words are references, the rest is JSON."""
    return tuple(_node(*line.split(" = ", 1)) for line in text.splitlines() if line)


def _node(name: str, rest: str) -> Node:
    op, *args = rest.split()
    decoded = tuple({"ref": a} if re.fullmatch(r"[a-z]\w*", a) else json.loads(a) for a in args)
    return Node(name, op, decoded, origin=f"test.{name}")


def bundle(
    name: str, role: Any, *ports: tuple[str, str, tuple[int | str, ...]], dtype: str = "float64"
) -> Bundle:
    """Return a bundle of (value, source, shape) ports."""
    found = tuple(Port(v, TensorType("int64" if v[0] == "c" else dtype, s), n) for v, n, s in ports)
    return Bundle(name, role, found)


def kernels(dropout: bool) -> dict[str, Kernel]:
    state1 = bundle(
        "state",
        "state",
        ("w", "fc1.weight", (5, 4)),
        ("b", "fc1.bias", (5,)),
        ("v", "heads.b1.weight", (3, 5)),
        ("c", "fc1.count", ()),
    )
    state2 = bundle("state", "state", ("w", "fc2.weight", (3, 5)), ("b", "fc2.bias", (3,)))
    x1, x2 = bundle("x", "input", ("x", "x", ("B", 4))), bundle("h", "input", ("x", "h", ("B", 5)))
    t, seed = bundle("t", "input", ("t", "t", ("B", 3))), bundle("seed", "seed", ("seed", "loss", ()))
    mask = bundle("mask", "random", ("mask", "fc1.dropout", ("B", 5)))
    loss, out = bundle("loss", "loss", ("l", "loss", ())), bundle("out", "output", ("p", "out", ("B", 3)))
    gradients1 = bundle(
        "gradients",
        "gradients",
        ("dw", "fc1.weight", (5, 4)),
        ("db", "fc1.bias", (5,)),
        ("dv", "heads.b1.weight", (3, 5)),
    )
    gradients2 = bundle("gradients", "gradients", ("dw", "fc2.weight", (3, 5)), ("db", "fc2.bias", (3,)))
    buffers = bundle("buffers", "buffers", ("c1", "fc1.count", ()))
    h = bundle("h", "output", ("h", "h", ("B", 5)))
    one = FORWARD1 + (KEEP if dropout else PASS) + HEAD1 + LOSS + COTANGENT + BACKWARD1
    one += (UNMASK if dropout else UNPASS) + BACKWARD1_END
    plain = Bundle("state", "state", state1.ports[:2])
    every = [
        Kernel(
            "b1.local",
            "b1",
            (state1, x1, t, seed, *([mask] if dropout else [])),
            nodes(one),
            (h, loss, gradients1, buffers),
        ),
        Kernel(
            "b2.local",
            "b2",
            (state2, x2, t, seed),
            nodes(FORWARD2 + LOSS + COTANGENT + BACKWARD2),
            (loss, gradients2),
        ),
        Kernel("b1.eval", "b1", (plain, x1), nodes(FORWARD1 + PASS), (h,)),
        Kernel("b2.eval", "b2", (state2, x2, t), nodes(FORWARD2 + LOSS), (loss,)),
        Kernel("b2.predict", "b2", (state2, x2), nodes(FORWARD2), (out,)),
    ]
    return {kernel.name: kernel for kernel in every}


def step_section(dropout: bool, accumulate: int, clip: float | None) -> tuple[Instruction, ...]:
    """Return the step: immediate updates, or a repeated body that sums gradients first."""
    random = [Random("mask", "fc1.dropout")] if dropout else []
    masks = ("mask",) if dropout else ()
    one = [
        *random,
        Call(("h", "l1", "g1", "u1"), "b1.local", ("x", "t", *masks)),
        Record("b1.loss", "l1"),
        Write("u1"),
    ]
    two = [Call(("l2", "g2"), "b2.local", ("h", "t")), Record("b2.loss", "l2")]
    load = Load(("x", "t"), ("x", "t"))
    if accumulate == 1 and clip is None:
        return (
            load,
            *one,
            Update("b1", ("g1",)),
            Free(("x", "l1", "g1", "u1", *masks)),
            *two,
            Free(("h", "t")),
            Update("b2", ("g2",)),
            Free(("l2", "g2")),
        )
    share = 1.0 / accumulate
    body = (
        load,
        *one,
        Accumulate("s1", "g1", share),
        Free(("x", "l1", "g1", "u1", *masks)),
        *two,
        Accumulate("s2", "g2", share),
        Free(("h", "t", "l2", "g2")),
    )
    clips = [] if clip is None else [Clip(("s1", "s2"), clip)]
    return (
        Repeat(accumulate, body),
        *clips,
        Update("b1", ("s1",)),
        Update("b2", ("s2",)),
        Free(("s1", "s2")),
    )


def spec_text(run: dict[str, Any], data: str) -> str:
    layers = "[{fc1: linear(5)}, relu, {fc2: linear(3)}]"
    learn = '[{blocks: "*", head: linear, loss: mse, optimizer: sgd(lr=0.1)}]'
    return (
        f"network: {{inputs: {{x: [4]}}, layers: {layers}}}\n{data}loss: mse\n"
        f"decompose: {{blocks: {{b1: fc1, b2: fc2}}, links: stop}}\nlearn: {learn}\n"
        f"run: {json.dumps({'epochs': 3, 'dtype': 'float64'} | run)}\n"
    )


def initial(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = {n: torch.randn(s, dtype=torch.float64, generator=generator) / 2 for n, s in SHAPES.items()}
    return values | {"fc1.count": torch.tensor(0)}


def make_plan(
    *,
    optimizer: str = "sgd",
    options: dict[str, Any] | None = None,
    groups: dict[str, Sequence[ParameterGroup]] | None = None,
    schedule: dict[str, Any] | None = None,
    block_clip: float | None = None,
    dropout: bool = False,
    accumulate: int = 1,
    clip: float | None = None,
    run: dict[str, Any] | None = None,
    data: str = "",
    target: str = "cpu",
) -> Plan:
    """Return the plan of x -> relu(fc1) -> fc2 in two stop-gradient blocks, both with squared errors."""
    default = {"lr": 0.1} if options is None else options
    optimizers = {
        block: Optimizer(
            block,
            optimizer,
            default,
            tuple((groups or {}).get(block, [ParameterGroup(names)])),
            schedule or {},
            block_clip,
        )
        for block, names in BLOCKS.items()
    }
    state = {
        name: StateEntry(name, "parameter", block, TensorType("float64", SHAPES[name]))
        for block, names in BLOCKS.items()
        for name in names
    }
    state["fc1.count"] = StateEntry("fc1.count", "buffer", "b1", TensorType("int64", ()), trainable=False)
    inference = (Load(("x",), ("x",)), Call(("h",), "b1.eval", ("x",)), Free(("x",)))
    program = Program(
        step=step_section(dropout, accumulate, clip),
        evaluate=(
            Load(("x", "t"), ("x", "t")),
            Call(("h",), "b1.eval", ("x",)),
            Free(("x",)),
            Call(("l2",), "b2.eval", ("h", "t")),
            Record("b2.loss", "l2"),
            Free(("h", "t", "l2")),
        ),
        predict=(
            *inference,
            Call(("out",), "b2.predict", ("h",)),
            Return("output", "out"),
            Free(("h", "out")),
        ),
        fields={"x": TensorType("float64", ("B", 4)), "t": TensorType("float64", ("B", 3))},
        noise={"fc1.dropout": Noise("fc1.dropout", "bernoulli", (0.5,), TensorType("float64", ("B", 5)))}
        if dropout
        else {},
        optimizers=optimizers,
        state=state,
        metrics={"b1.loss": "mean", "b2.loss": "mean"},
    )
    spec = spec_text(run or {}, data)
    load_spec(spec)
    partition: dict[str, Json] = {
        "directed": True,
        "multigraph": False,
        "graph": {},
        "nodes": [{"id": "b1"}, {"id": "b2"}],
        "edges": [{"source": "b1", "target": "b2", "link": "stop"}],
    }
    return Plan(
        spec, target, program, partition, {"native": kernels(dropout)}, save(initial()), torch.__version__
    )


def make_batch(size: int = 8, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(size, 4, dtype=torch.float64, generator=generator),
        "t": torch.randn(size, 3, dtype=torch.float64, generator=generator),
    }


class Reference:
    """The same net in plain PyTorch with autograd."""

    def __init__(self) -> None:
        values = initial()
        self.parameters = {n: torch.nn.Parameter(values[n]) for n in SHAPES}

    def losses(self, batch: dict[str, Tensor], mask: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        p = self.parameters
        h = torch.relu(torch.nn.functional.linear(batch["x"], p["fc1.weight"], p["fc1.bias"])) * mask
        first = torch.nn.functional.mse_loss(h @ p["heads.b1.weight"].t(), batch["t"])
        out = torch.nn.functional.linear(h.detach(), p["fc2.weight"], p["fc2.bias"])
        return first, torch.nn.functional.mse_loss(out, batch["t"])

    def gradients(self, batch: dict[str, Tensor], mask: Tensor | float = 1.0) -> dict[str, Tensor]:
        found = torch.autograd.grad(sum(self.losses(batch, mask)), list(self.parameters.values()))
        return dict(zip(self.parameters, found, strict=True))


@pytest.fixture(name="plan_of")
def plan_of_fixture() -> Callable[..., Plan]:
    return make_plan


@pytest.fixture(name="batch_of")
def batch_of_fixture() -> Callable[..., dict[str, Tensor]]:
    return make_batch


@pytest.fixture
def reference() -> Reference:
    return Reference()


@pytest.fixture(name="nodes_of")
def nodes_of_fixture() -> Callable[[str], tuple[Node, ...]]:
    return nodes


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """An archive of 70 samples whose targets are a fixed linear function."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    x = generator.standard_normal((70, 4))
    np.savez(folder / "train.npz", x=x, t=x @ generator.standard_normal((4, 3)))
    return folder


@pytest.fixture
def data_text(data_file: Path) -> str:
    """The `data` section that reads the archive: 42 samples to train on, batches of 8."""
    return (
        f"data: {{source: npz, root: {json.dumps(str(data_file))}, batch: 8, validation: 0.2, test: 0.2}}\n"
    )


@pytest.fixture
def splits(data_text: str) -> Splits:
    plan = make_plan(data=data_text)
    data = load_spec(plan.spec).data
    assert data is not None
    return open_data(data, plan.program.fields, 0)


@pytest.fixture(name="trainer_of")
def trainer_of_fixture() -> Callable[..., Trainer]:
    return lambda **options: Trainer(make_plan(**options), device="cpu")
