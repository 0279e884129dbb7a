"""Do optimizer classes named by their package step a plan, and are those refused that cannot?"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import lpc


def spec(optimizer: Any) -> dict[str, Any]:
    return {
        "network": {"inputs": {"x": [6]}, "layers": [{"fc": "linear(5)"}, "relu", {"out": "linear(3)"}]},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"b": "fc", "out": "out"}},
        "learn": [
            {"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": optimizer,
             "schedule": {"warmup": 2, "then": "step(3)", "unit": "step"}},
            {"params": "*.bias", "weight_decay": 0},
            {"params": "out.*", "lr_factor": 0.1},
        ],
        "run": {"dtype": "float64", "target": "cpu"},
    }  # fmt: skip


def batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"x": torch.randn(4, 6, generator=generator, dtype=torch.float64), "label": torch.tensor([0, 2, 1, 1])}
        for _ in range(6)
    ]


def test_a_class_by_its_path_is_that_class(tmp_path: Path) -> None:
    """torch's own SGD under both names, with groups and a schedule, and through a saved plan: bitwise the same."""
    states = []
    options = "lr=0.1, momentum=0.9, weight_decay=0.1, fused=false"  # for which a class by its path is not asked
    for optimizer in (f"sgd({options})", f'module("torch.optim:SGD", {options})'):
        plan = lpc.build(spec(optimizer))
        plan.save(tmp_path / "p.plan")
        t = lpc.Trainer(lpc.load(tmp_path / "p.plan"), device="cpu")
        for batch in batches():
            t.step(batch)
        states.append(t.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_lars_in_a_plan() -> None:
    """You et al. 2017: matrices by the ratio of norms, biases by plain momentum; rates by groups and the schedule."""
    plan = lpc.build(
        spec('module("pytorch_optimizer:LARS", lr=0.5, momentum=0.9, weight_decay=0.1, trust_coefficient=0.02)')
    )
    assert plan.data.report["libraries"] == ["pytorch_optimizer"]
    t = lpc.Trainer(plan, device="cpu")
    momenta = {name: torch.zeros_like(w) for name, w in t.state_dict().items()}
    for step, batch in enumerate(batches()):
        before = {name: w.clone() for name, w in t.state_dict().items()}
        gradients = {name: g.clone() for name, g in t.gradients(batch).items()}
        t.step(batch)
        after = t.state_dict()
        factor = step / 2 if step < 2 else 0.1 ** ((step - 2) // 3)
        for name, g in gradients.items():
            w = before[name]
            matrix, decay = w.dim() > 1, 0.0 if name.endswith("bias") else 0.1
            scaled = 0.02 * w.norm() / (g.norm() + decay * w.norm()) * (g + decay * w) if matrix else g
            momenta[name] = 0.9 * momenta[name] + scaled
            rate = 0.5 * factor * (0.1 if name.startswith("out.") else 1.0)
            torch.testing.assert_close(after[name], w - rate * momenta[name], rtol=1e-12, atol=1e-14)


MISTAKES = {
    "no class": ('module("pytorch_optimizer:LARSS")', "0652", "no `LARSS`"),
    "no optimizer": ('module("torch:load")', "0652", "no subclass"),
    "package that plans may not name": ('module("os:system")', "0652", "none of the packages"),
    "missing package": ('module("timm.optim:Lars")', "0652", "not installed: pip install timm"),
    "closure": ('module("torch.optim:LBFGS")', "0653", "gradients alone"),
    "option that vanishes": ('module("pytorch_optimizer:LARS", trust=0.1)', "0654", "no option `trust`"),
    "groups of its own kind": ('module("pytorch_optimizer:Muon", lr=0.1)', "0654", "refuses the options"),
    "option that is refused": ('module("pytorch_optimizer:LARS", lr=-1.0)', "0654", "refuses the options"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_what_cannot_step_is_refused_where_it_is_written(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    optimizer, code, says = MISTAKES[what]
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec(optimizer))
    found = caught.value.diagnostics[0]
    assert found.code == code
    assert says in found.message


OTHERS = (
    "Shampoo, lr=0.01",
    "ScalableShampoo, lr=0.01, start_preconditioning_step=2, preconditioning_compute_steps=1",
    "SOAP, lr=0.01, precondition_frequency=2",
    "Lion, lr=0.001",
    "Adan, lr=0.01",
    "Lamb, lr=0.01",
    "Prodigy",
)


@pytest.mark.parametrize("other", OTHERS)
def test_others_step_and_resume_as_by_hand(other: str) -> None:
    """Six steps of the class on plain parameters, and three with three more after all that it keeps was put back."""
    name, _, options = other.partition(", ")
    learn = {"blocks": "*", "loss": "none", "optimizer": f'module("pytorch_optimizer:{name}", {options})'}
    text = spec("adam") | {"decompose": {"blocks": {"b": ["fc", "out"]}}, "learn": [learn]}
    plan = lpc.build(text)
    first, second = (lpc.Trainer(plan, device="cpu") for _ in range(2))
    leaves = {n: torch.nn.Parameter(w.clone()) for n, w in first.state_dict().items()}
    kind = getattr(importlib.import_module("pytorch_optimizer"), name)
    torch.manual_seed(0)
    by_hand = kind(list(leaves.values()), **plan.data.program.optimizers["b"].options)
    for batch in batches():
        h = torch.relu(F.linear(batch["x"], leaves["fc.weight"], leaves["fc.bias"]))
        loss = F.cross_entropy(F.linear(h, leaves["out.weight"], leaves["out.bias"]), batch["label"])
        for leaf, g in zip(leaves.values(), torch.autograd.grad(loss, list(leaves.values())), strict=True):
            leaf.grad = g
        by_hand.step()
    torch.manual_seed(0)
    for batch in batches()[:3]:
        first.step(batch)
    second.load_state_dict(first.state_dict())
    (own,), (other_own,) = first.machine.optimizers.values(), second.machine.optimizers.values()
    held: dict[str, dict[str, Any]] = {}
    for parameter, entry, value in own.state():
        held.setdefault(parameter, {})[entry] = value.clone() if isinstance(value, torch.Tensor) else value
    other_own.load_state(held)
    for batch in batches()[3:]:
        second.step(batch)
    found = second.state_dict()
    for n, leaf in leaves.items():
        torch.testing.assert_close(found[n], leaf.detach(), rtol=1e-12, atol=1e-14)
