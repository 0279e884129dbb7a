"""Do several steps on one batch go as a loop by hand does? Laws, pulls, memory and the outer optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc
from lpc.runtime.rmsprop import TensorFlowRMSprop

STEPS = 4
State = dict[str, Tensor]


def spec(rule: dict[str, Any], links: str = "stop", **run: Any) -> dict[str, Any]:
    head = {} if links == "gradient" else {"head": "linear", "loss": "cross_entropy"}
    return {
        "network": {"inputs": {"x": [5]}, "layers": [{"fc1": "linear(6)"}, "tanh", {"out": "linear(3)"}]},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer", "links": links},
        "learn": [{"blocks": "*", **head, "loss": head.get("loss", "none"), **rule}],
        "run": {"dtype": "float64", "target": "cpu", **run},
    }


def batches(count: int = 3) -> list[State]:
    generator = torch.Generator().manual_seed(3)
    return [
        {
            "x": torch.randn(7, 5, generator=generator, dtype=torch.float64),
            "label": torch.randint(0, 3, (7,), generator=generator),
        }
        for _ in range(count)
    ]


def first(p: State, batch: State) -> Tensor:
    return torch.tanh(F.linear(batch["x"], p["fc1.weight"], p["fc1.bias"]))


def problems(p: State, batch: State) -> dict[str, Any]:
    """Every block's local loss, on the inputs of the batch's first weights."""
    frozen = first(p, batch).detach()

    def hidden() -> Tensor:
        return F.cross_entropy(
            F.linear(first(p, batch), p["heads.fc1.weight"], p["heads.fc1.bias"]), batch["label"]
        )

    def output() -> Tensor:
        return F.cross_entropy(F.linear(frozen, p["out.weight"], p["out.bias"]), batch["label"])

    return {"fc1": hidden, "out": output}


def owned(p: State, block: str) -> list[Tensor]:
    return [t for n, t in p.items() if n.startswith((f"{block}.", f"heads.{block}."))]


def by_hand(
    state: State, make: Any, *, prox: float | None = None, floor: float = 1.0, reset: bool = False, outer: Any = None
) -> State:
    p = {n: t.detach().clone().requires_grad_() for n, t in state.items()}
    optimizers = {b: make(owned(p, b)) for b in ("fc1", "out")}
    outers = {b: outer(owned(p, b)) for b in ("fc1", "out")} if outer else {}
    for batch in batches():
        for block, objective in problems(p, batch).items():
            own, origin = owned(p, block), [t.detach().clone() for t in owned(p, block)]
            if reset:
                optimizers[block] = make(own)
            rate = optimizers[block].defaults["lr"]
            for k in range(STEPS):
                found = torch.autograd.grad(objective(), own)
                for t, g, w0 in zip(own, found, origin, strict=True):
                    t.grad = g if prox is None else g + (t.detach() - w0) / prox
                optimizers[block].param_groups[0]["lr"] = rate * max(1 - k / STEPS, floor)
                optimizers[block].step()
            if outer:
                with torch.no_grad():
                    for t, w0 in zip(own, origin, strict=True):
                        t.grad = w0 - t
                        t.copy_(w0)
                outers[block].step()
    return {n: t.detach() for n, t in p.items()}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "prox": ({"prox": 0.5}, {"prox": 0.5}),
    "law": ({"schedule": {"inner": "linear(floor=0.25)"}}, {"floor": 0.25}),
    "reset": ({"state": "reset"}, {"reset": True}),
    "outer": (
        {"outer": "adam(lr=0.03)", "prox": 2.0},
        {"outer": lambda p: torch.optim.Adam(p, lr=0.03), "prox": 2.0},
    ),
}
OPTIMIZERS = {
    "sgd(lr=0.1, momentum=0.9)": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "rmsprop(lr=0.01, decay=0.9, momentum=0.5)": lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.5),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_steps_equal_a_loop_by_hand(case: str, optimizer: str, hand: Any) -> None:
    rule, more = CASES[case]
    plan = lpc.build(spec({"optimizer": optimizer, "steps": STEPS, **rule}))
    trainer = lpc.Trainer(plan, device="cpu")
    wanted = by_hand(trainer.state_dict(), OPTIMIZERS[optimizer], **more)
    for batch in batches():
        trainer.step(batch)
    hand.same(trainer.state_dict(), wanted)
    assert lpc.verify(plan).ok


def test_a_cotangent_stays_as_it_was(hand: Any) -> None:
    """Behind a gradient link the frozen problem is the cotangent's product with the block's output."""
    plan = lpc.build(spec({"optimizer": "sgd(lr=0.1)", "steps": STEPS}, "gradient"))
    trainer, batch = lpc.Trainer(plan, device="cpu"), batches(1)[0]
    p = {n: t.detach().clone().requires_grad_() for n, t in trainer.state_dict().items()}
    h = first(p, batch)
    loss = F.cross_entropy(F.linear(h, p["out.weight"], p["out.bias"]), batch["label"])
    (cotangent,) = torch.autograd.grad(loss, [h], retain_graph=True)
    frozen = h.detach()
    objectives = {
        "fc1": lambda: (first(p, batch) * cotangent).sum(),
        "out": lambda: F.cross_entropy(F.linear(frozen, p["out.weight"], p["out.bias"]), batch["label"]),
    }
    found = trainer.gradients(batch)
    hand.same(found, dict(zip(p, torch.autograd.grad(loss, list(p.values())), strict=True)))
    for block, objective in objectives.items():
        for _ in range(STEPS):
            own = owned(p, block)
            for t, g in zip(own, torch.autograd.grad(objective(), own), strict=True):
                t.data -= 0.1 * g
    trainer.step(batch)
    hand.same(trainer.state_dict(), {n: t.detach() for n, t in p.items()})


def test_tensorflow_arithmetic() -> None:
    """s from 1, eps inside the root, the rate inside the velocity."""
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = TensorFlowRMSprop([w], lr=0.1, alpha=0.9, momentum=0.5, eps=1e-3)
    s, m, wanted = torch.ones(2).double(), torch.zeros(2).double(), w.detach().clone()
    for k in range(3):
        g = torch.tensor([0.3, -0.7], dtype=torch.float64) * (k + 1)
        optimizer.param_groups[0]["lr"] = rate = 0.1 / (k + 1)
        w.grad = g.clone()
        optimizer.step()
        s = 0.9 * s + 0.1 * g**2
        m = 0.5 * m + rate * g / torch.sqrt(s + 1e-3)
        wanted -= m
    torch.testing.assert_close(w.detach(), wanted, rtol=1e-14, atol=1e-15)


def test_the_flavor_is_another_optimizer_in_the_plan() -> None:
    rule = {"optimizer": "rmsprop(lr=0.01, flavor=tensorflow)", "steps": 2}
    assert lpc.build(spec(rule)).data.program.optimizers["fc1"].name == "rmsprop_tensorflow"
    with pytest.raises(lpc.LpcError, match=r"LPC0654[^`]*`rmsprop_tensorflow`[^`]*`[^`]*`[^`]*`centered`"):
        lpc.build(spec({"optimizer": "rmsprop(lr=0.01, flavor=tensorflow, centered=true)"}))


def test_outer_state_survives(hand: Any) -> None:
    """What the outer optimizer keeps is part of the state that checkpoints hold."""
    rule = {"optimizer": "sgd(lr=0.1)", "steps": 2, "outer": "sgd(lr=1.0, momentum=0.9)"}
    plan = lpc.build(spec(rule))
    one, two = lpc.Trainer(plan, device="cpu"), lpc.Trainer(plan, device="cpu")
    start, then, *_ = batches()
    one.step(start)
    two.load_state_dict(one.state_dict())
    for block, optimizer in one.machine.optimizers.items():
        entries: dict[str, dict[str, Any]] = {}
        for parameter, entry, value in optimizer.state():
            entries.setdefault(parameter, {})[entry] = value.clone()
        assert {e for held in entries.values() for e in held} == {"outer.momentum_buffer"}
        two.machine.optimizers[block].load_state(entries)
    one.step(then)
    two.step(then)
    hand.same(two.state_dict(), one.state_dict(), 0.0)


REFUSED = {
    "accumulate": ({"steps": 2}, {"accumulate": 2}),
    "correct": ({"steps": 2, "correct": "bp_offset(period=2)"}, {}),
    "noise": ({"steps": 2, "estimator": "forward"}, {}),
    "prox": ({"prox": 1.0}, {}),
    "inner": ({"schedule": {"inner": "linear"}}, {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_speaks_of_one_step_is_refused(case: str) -> None:
    rule, run = REFUSED[case]
    with pytest.raises(lpc.LpcError, match="LPC0433"):
        lpc.build(spec({"optimizer": "sgd(lr=0.1)", **rule}, **run))
