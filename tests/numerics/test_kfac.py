"""Does K-FAC do what was published? Factors, damping and steps by numpy; verify, memory, checkpoints and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc
from lpc.runtime.kfac import KFAC
from lpc.runtime.ledger import Ledger
from lpc.specs.plan.instructions import Update
from lpc.specs.plan.verify import verify
from lpc.specs.signatures import OPTIMIZERS

OPTIONS = {"lr": 0.05, "momentum": 0.8, "damping": 0.03, "decay": 0.7, "interval": 2, "trust": 0.01}
Array = np.ndarray[Any, Any]
NETWORKS: dict[str, dict[str, Any]] = {
    "dense": {"inputs": {"x": [6]}, "layers": [{"fc": "linear(5)"}, "tanh", {"out": "linear(3)"}]},
    "no bias": {"inputs": {"x": [6]}, "layers": [{"fc": "linear(5, bias=false)"}, "relu", {"out": "linear(3)"}]},
    "conv": {
        "inputs": {"x": [2, 6, 7]},
        "layers": [
            {"conv": "conv(3, 3, stride=2, padding=1)"}, "relu", "flatten", {"out": "linear(3)"},
        ],
    },
}  # fmt: skip


def spec(network: str, optimizer: str, links: str = "gradient", **more: Any) -> dict[str, Any]:
    return {
        "network": NETWORKS[network],
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer", "links": links},
        "learn": [{"blocks": "*", "optimizer": optimizer, **more}],
        "run": {"dtype": "float64", "target": "cpu"},
    }


def batches(network: str, count: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shape = NETWORKS[network]["inputs"]["x"]
    return [
        {
            "x": torch.randn(4, *shape, generator=generator, dtype=torch.float64),
            "label": torch.randint(0, 3, (4,), generator=generator),
        }
        for _ in range(count)
    ]


# By hand, in numpy


def network_by_hand(network: str, state: dict[str, Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return the layers' inputs as [samples, positions, size], their outputs, and the logits."""
    first = next(iter(state)).partition(".")[0]
    w, b = state[f"{first}.weight"], state.get(f"{first}.bias")
    if network == "conv":
        a = F.conv2d(x, w, b, stride=2, padding=1)
        wide = F.pad(x, (1, 1, 1, 1))
        places = [(2 * i, 2 * j) for i in range(a.shape[2]) for j in range(a.shape[3])]
        first_input = torch.stack([wide[:, :, i : i + 3, j : j + 3].flatten(1) for i, j in places], 1)
        h = torch.relu(a).flatten(1)
    else:
        a, first_input = F.linear(x, w, b), x[:, None]
        h = torch.tanh(a) if network == "dense" else torch.relu(a)
    logits = F.linear(h, state["out.weight"], state["out.bias"])
    return [first_input, h.detach()[:, None]], [a, logits], logits


class ByHand:
    """Factors from single samples' gradients, inverses by numpy, plain momentum."""

    def __init__(self, network: str, state: dict[str, Tensor], **options: float) -> None:
        self.network, self.state = network, {n: t.clone() for n, t in state.items()}
        self.rule = options
        self.factors: dict[str, tuple[Array, Array]] = {}
        self.inverses: dict[str, tuple[Array, Array]] = {}
        self.velocity: dict[str, Array] = {}
        self.count = self.limited = 0

    def step(self, batch: dict[str, Tensor]) -> None:
        leaves = {n: t.clone().requires_grad_() for n, t in self.state.items()}
        inputs, outputs, logits = network_by_hand(self.network, leaves, batch["x"])
        losses = F.cross_entropy(logits, batch["label"], reduction="none")
        errors = torch.autograd.grad(losses.sum(), outputs, retain_graph=True)  # of each sample's own loss
        gradients = dict(zip(leaves, torch.autograd.grad(losses.mean(), list(leaves.values())), strict=True))
        names = list(dict.fromkeys(n.partition(".")[0] for n in self.state))
        for name, x, g in zip(names, inputs, errors, strict=True):
            rows = g.flatten(2).transpose(1, 2) if g.dim() > 2 else g[:, None]
            self.layer(name, x.numpy(), rows.numpy(), gradients)
        self.count += 1

    def layer(self, name: str, x: Array, g: Array, gradients: dict[str, Tensor]) -> None:
        bias = f"{name}.bias" in gradients
        x = np.concatenate([x, np.ones_like(x[..., :1])], -1) if bias else x
        new = (np.einsum("npi,npj->ij", x, x) / len(x), np.einsum("npi,npj->ij", g, g) / (g.shape[0] * g.shape[1]))
        keep = min(1.0 - 1.0 / (self.count + 1), self.rule["decay"])
        old = self.factors.get(name, new)
        self.factors[name] = tuple(keep * a + (1 - keep) * b for a, b in zip(old, new, strict=True))  # type: ignore[assignment]
        if self.count % int(self.rule["interval"]) == 0:
            a, s = self.factors[name]
            pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(s) / len(s)))
            root = np.sqrt(self.rule["damping"])
            damped = (a + pi * root * np.eye(len(a)), s + root / pi * np.eye(len(s)))
            self.inverses[name] = (np.linalg.inv(damped[0]), np.linalg.inv(damped[1]))
        weight = gradients[f"{name}.weight"]
        joined = weight.flatten(1).numpy()
        joined = np.concatenate([joined, gradients[f"{name}.bias"].numpy()[:, None]], 1) if bias else joined
        way = self.inverses[name][1] @ joined @ self.inverses[name][0]
        change = self.rule["lr"] ** 2 * (way * joined).sum()
        self.limited += int(change > self.rule["trust"])
        way = way * min(1.0, np.sqrt(self.rule["trust"] / change))
        self.velocity[name] = self.rule["momentum"] * self.velocity.get(name, np.zeros_like(way)) + way
        moved = torch.from_numpy(-self.rule["lr"] * self.velocity[name])
        size = weight[0].numel()
        self.state[f"{name}.weight"] += moved[:, :size].reshape(weight.shape)
        if bias:
            self.state[f"{name}.bias"] += moved[:, size]


@pytest.mark.parametrize("network", NETWORKS)
def test_as_published(network: str) -> None:
    plan = lpc.build(spec(network, f"kfac({', '.join(f'{name}={value}' for name, value in OPTIONS.items())})"))
    t = lpc.Trainer(plan, device="cpu")
    wanted = ByHand(network, t.state_dict(), **OPTIONS)
    for batch in batches(network, 6):
        t.step(batch)
        wanted.step(batch)
    for name, tensor in t.state_dict().items():
        torch.testing.assert_close(tensor, wanted.state[name], rtol=1e-12, atol=1e-13)
    assert 0 < wanted.limited < 12  # of two layers' steps
    assert lpc.verify(plan).ok


def test_natural_gradient_where_the_factors_are_exact() -> None:
    """One linear layer whose inputs and errors are independent: the Fisher matrix is their Kronecker product.

    Every input comes with every label, and outputs begin at 0, so that errors do not depend on inputs.
    """
    text = spec("dense", "kfac(lr=1, momentum=0, damping=1e-12, interval=1, trust=none)") | {
        "network": {"inputs": {"x": [2]}, "layers": [{"out": "linear(3, bias=false)"}], "init": {"*": "zeros"}},
        "loss": "mse(target=y, reduction=batchmean)",
        "fields": {"y": {"shape": [3], "dtype": "float64"}},
    }
    t = lpc.Trainer(lpc.build(text), device="cpu")
    x, y = torch.randn(5, 2).double(), torch.randn(4, 3).double()
    pairs = {"x": x.repeat_interleave(4, 0), "y": y.repeat(5, 1)}
    single = [-2.0 * torch.outer(b, a).flatten() for a, b in zip(pairs["x"], pairs["y"], strict=True)]
    fisher = torch.stack([torch.outer(g, g) for g in single]).mean(0)
    natural = torch.linalg.solve(fisher, torch.stack(single).mean(0))
    t.step(pairs)
    torch.testing.assert_close(t.state_dict()["out.weight"].flatten(), -natural, rtol=1e-4, atol=1e-5)


def test_other_parameters_follow_their_gradients_and_the_plan_says_so() -> None:
    plan = lpc.build(spec("conv", "kfac(lr=0.1, momentum=0)", "stop", head="linear", loss="cross_entropy"))
    assert any("kfac" in note and "heads.conv" in note for note in plan.data.report["notes"])
    t = lpc.Trainer(plan, device="cpu")
    (batch,) = batches("conv", 1)
    before, g = {n: w.clone() for n, w in t.state_dict().items()}, t.gradients(batch)
    t.step(batch)
    heads = [n for n in before if n.startswith("heads.")]
    assert heads
    for name in heads:
        torch.testing.assert_close(t.state_dict()[name], before[name] - 0.1 * g[name], rtol=0, atol=1e-15)


def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    text = spec("conv", "kfac(lr=0.05, interval=3)")
    plan = lpc.build(text)
    plan.save(tmp_path / "k.plan")
    whole = lpc.Trainer(lpc.load(tmp_path / "k.plan"), device="cpu")
    for batch in (given := batches("conv", 5)):
        whole.step(batch)
    first, second = lpc.Trainer(plan, device="cpu"), lpc.Trainer(plan, device="cpu")
    for batch in given[:2]:
        first.step(batch)
    second.load_state_dict(first.state_dict())
    for block, optimizer in first.machine.optimizers.items():
        held: dict[str, dict[str, Any]] = {}
        for name, entry, value in optimizer.state():
            held.setdefault(name, {})[entry] = value.clone()
        second.machine.optimizers[block].load_state(held)
    for batch in given[2:]:
        second.step(batch)
    assert all(torch.equal(w, second.state_dict()[n]) for n, w in whole.state_dict().items())


def test_memory_is_predicted() -> None:
    """State to the byte; what a step makes, but for a few single numbers."""
    from lpc.specs.memory.optimizers import kept, made

    plan = lpc.build(spec("dense", "kfac(interval=1)"))
    t = lpc.Trainer(plan, device="cpu")
    for batch in batches("dense", 2):
        t.step(batch)
    types = {n: e.type for n, e in plan.data.program.state.items()}
    for block, optimizer in t.machine.optimizers.items():
        state = sum(v.untyped_storage().nbytes() for _, _, v in optimizer.state() if isinstance(v, Tensor))
        assert kept(plan.data.program.optimizers[block], types) == state
        layer = optimizer.plan.factors[0]
        a, s = (torch.eye(n, dtype=torch.float64) for n in (layer.inputs, layer.outputs))
        gradients = [torch.randn_like(p) for p in optimizer.parameters]
        with torch.inference_mode(), Ledger() as ledger:
            optimizer.observe([a, s])
            optimizer.step(list(gradients), 0)
        assert abs(made(plan.data.program.optimizers[block], types) - ledger.peak) <= 64


def test_defaults_are_those_of_the_language() -> None:
    made = KFAC([torch.nn.Parameter(torch.ones(2))])
    assert made.defaults == {p.name: p.default for p in OPTIMIZERS["kfac"].parameters}


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "target": ({"links": "target", "loss": "squared"}, "make a target"),
    "variable": ({"links": "variable"}, "auxiliary variables"),
    "steps": ({"steps": 3}, "further steps"),
    "estimator": ({"estimator": "feedback_alignment"}, "exact derivatives"),
    "reach": ({"links": "gradient(reach=1)", "head": "linear", "loss": "cross_entropy"}, "limited `reach`"),
    "outer": ({"outer": "kfac", "optimizer": "sgd(lr=0.1)", "steps": 2}, "there are none here"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_where_there_are_no_factors_it_is_refused(what: str) -> None:
    more, says = REFUSALS[what]
    own = {"optimizer": "kfac"} | more
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec("dense", **own))
    (found,) = caught.value.diagnostics
    assert found.code == "0437"
    assert says in found.message


def test_a_singular_factor_is_told() -> None:
    t = lpc.Trainer(lpc.build(spec("dense", "kfac(damping=1e-300)")), device="cpu")
    (batch,) = batches("dense", 1)
    with pytest.raises(lpc.LpcError, match="0659"):
        t.step(batch)


def test_a_plan_without_its_factors_is_refused() -> None:
    """An update that lacks one, and one that gets those of another optimizer's kind."""
    plan = lpc.build(spec("dense", "kfac")).data
    lacking = [replace(i, gradients=i.gradients[:1]) if isinstance(i, Update) else i for i in plan.program.step]
    found = verify(replace(plan, program=replace(plan.program, step=tuple(lacking))))
    assert {d.code for d in found} == {"0551"}
    assert "lacks factor `fc.weight@errors`" in str([d.message for d in found])
    plain = {b: replace(o, factors=()) for b, o in plan.program.optimizers.items()}
    found = verify(replace(plan, program=replace(plan.program, optimizers=plain)))
    assert {d.code for d in found} == {"0551"}
