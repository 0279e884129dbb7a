"""Does the machine let go of values when they are read last, and run what is periodic when it is due?"""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lpc.runtime.machine import count_loads
from lpc.runtime.trainer import Trainer
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.flow import used_last
from lpc.specs.plan.instructions import (
    Accumulate,
    Call,
    Every,
    Free,
    Instruction,
    Load,
    Record,
    Repeat,
    Update,
)

CALL, FREE = Call(("y",), "k", ("x", "h")), Free(("x", "h"))


@pytest.mark.parametrize(
    ("after", "taken"),
    [
        ([FREE], {"x", "h"}),
        ([Record("m", "h"), FREE], {"x"}),
        ([Repeat(2, (Call(("z",), "k", ("x",)),)), FREE], {"h"}),
        ([Update("b", ("g",)), FREE], {"x", "h"}),
        ([], set()),  # inside a body that others free after
    ],
)
def test_a_call_takes_what_nothing_else_reads(after: Any, taken: set[str]) -> None:
    assert used_last([CALL, *after], 0) == taken


def test_a_kernels_argument_dies_inside_the_kernel(trainer_of: Any, batch_of: Any) -> None:
    """b1's output is b2's argument; b2's bias gradient, a sum, comes after the last node that reads it."""
    made: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    class Ledger(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.mul.Tensor and not made:
                made.append(weakref.ref(out))
            if func is torch.ops.aten.sum.dim_IntList:
                alive.append(made[0]() is not None)
            return out

    with Ledger():
        trainer_of().step(batch_of())
    assert alive == [True, False]  # in b1 it is a result, in b2 an argument


def with_step(plan: Any, step: tuple[Instruction, ...]) -> Trainer:
    return Trainer(replace(plan, program=replace(plan.program, step=step)), "cpu")


def test_every_runs_at_steps_that_the_period_divides(plan_of: Any, batch_of: Any) -> None:
    step = plan_of().program.step
    update = next(i for i in step if isinstance(i, Update) and i.block == "b2")
    trainer = with_step(plan_of(), tuple(Every(2, (i,)) if i is update else i for i in step))
    moved = []
    for _ in range(4):
        before = trainer.state_dict()["fc2.bias"].clone()
        trainer.step(batch_of())
        moved.append(not torch.equal(before, trainer.state_dict()["fc2.bias"]))
    assert moved == [True, False, True, False]


def test_loads_are_counted_through_repeats() -> None:
    load = Load(("x",), ("x",))
    assert count_loads((load, Repeat(3, (load, Repeat(2, (load,)))))) == 10


BROKEN: dict[str, tuple[Instruction, str]] = {
    "kernel": (Call((), "b3.local", ()), "b3.local"),
    "optimizer": (Update("b3", ()), "b3"),
    "sum": (Accumulate("g1", "g2", 1.0), "g1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_plan_is_verified_before_it_runs(name: str, plan_of: Any, batch_of: Any) -> None:
    instruction, message = BROKEN[name]
    step = plan_of().program.step
    with pytest.raises(LpcError, match=message) as caught:
        with_step(plan_of(), (*step[:-1], instruction, step[-1]))
    assert all(d.code.startswith("05") for d in caught.value.diagnostics)
