"""Does the BP-modified rule do what its definition says? Recorded trajectories, its identities, and eager autograd."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lpc
from lpc.runtime import checkpoint

GOLDEN = np.load(Path(__file__).with_name("golden") / "bpmod_ref_f64.npz")
CASES: dict[str, dict[str, Any]] = json.loads(str(GOLDEN["meta_json"]))["cases"]
STEPS = 6
NAMES = {f"{kind}{i}": name for i in range(3) for kind, name in (("block", f"fc{i}"), ("head", f"heads.b{i}"))}
NAMES["head2"] = "out"


def golden_spec(correct: str, links: str = "stop") -> dict[str, Any]:
    """The net of the recorded arrays: three tanh blocks, the last one trained through the classifier's block."""
    layers: list[dict[str, Any]] = []
    for index, width in enumerate((7, 8, 5)):
        layers += [{f"fc{index}": f"linear({width})"}, {f"t{index}": "tanh"}]
    local = {"head": "linear", "loss": "cross_entropy"} if links == "stop" else {}
    return {
        "network": {"inputs": {"x": {"shape": [6]}}, "layers": [*layers, {"out": "linear(3)"}]},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {
            "blocks": {**{f"b{i}": [f"fc{i}", f"t{i}"] for i in range(3)}, "top": ["out"]},
            "links": {"*": links, "b2->top": "gradient"},
        },
        "learn": [
            {"blocks": "*", "optimizer": "sgd(lr=0.1, momentum=0.9)"},
            {"blocks": ["b0", "b1"], **local},
            {"blocks": "b*", "correct": correct},
        ],
        "run": {"dtype": "float64", "target": "cpu"},
    }


@cache
def built(said: str) -> lpc.Plan:
    return lpc.build(json.loads(said))


def rule(case: dict[str, Any], **more: Any) -> str:
    options = {"period": case["K"], "batch": case["Bp"], "alpha": case["alpha"], "scale": case["lam"], **more}
    return f"bp_offset({', '.join(f'{key}={value}' for key, value in options.items())})"


def trainer_of(said: dict[str, Any], start: str = "init") -> lpc.Trainer:
    trainer = lpc.Trainer(built(json.dumps(said)), device="cpu")
    known = trainer.state_dict()
    given = {f"{NAMES[n]}.{p}": GOLDEN[f"{start}/{n}.{p}"] for n in NAMES for p in ("weight", "bias")}
    trainer.load_state_dict({n: torch.from_numpy(a) for n, a in given.items() if n in known})
    return trainer


def batch(step: int) -> dict[str, Tensor]:
    return {"x": torch.from_numpy(GOLDEN["X"][step]), "label": torch.from_numpy(GOLDEN["Y"][step]).long()}


@pytest.mark.parametrize(
    ("name", "memory"),
    [(name, "recompute") for name in CASES] + [("K3_half_lam0.5", m) for m in ("plain", "micro_batch, pieces=2")],
)
def test_recorded_trajectories(name: str, memory: str) -> None:
    case = CASES[name]
    plain = {"bp": golden_spec("none", "gradient"), "local": golden_spec("none")}
    trainer = trainer_of(plain.get(name) or golden_spec(rule(case, memory=memory)))
    for step in range(STEPS):
        gradients = trainer.gradients(batch(step))
        trainer.step(batch(step))
        for key in (k for k in GOLDEN.files if k.startswith(f"{name}/t{step}/grad/")):
            layer, parameter = key.rsplit("/", 1)[1].split(".")
            found = gradients.get(f"{NAMES[layer]}.{parameter}")
            if found is not None:  # backpropagation alone has no heads
                close(found, GOLDEN[key], key)
    state = trainer.state_dict()
    for key in (k for k in GOLDEN.files if k.startswith(f"{name}/final/")):
        layer, parameter = key.rsplit("/", 1)[1].split(".")
        if f"{NAMES[layer]}.{parameter}" in state:
            close(state[f"{NAMES[layer]}.{parameter}"], GOLDEN[key], key)


def test_recorded_offsets_are_kept_between_refreshes() -> None:
    trainer = trainer_of(golden_spec(rule(CASES["K3_half_lam0.5"], memory="recompute")))
    for step in range(STEPS):
        trainer.step(batch(step))
        kept = dict(trainer.machine.corrections["b1"].state())
        refreshed = step - step % 3
        close(kept["offset.fc1.weight"], GOLDEN[f"K3_half_lam0.5/t{refreshed}/offset/block1.weight"], f"step {step}")


def test_offsets_are_in_checkpoints(tmp_path: Path) -> None:
    """A run that is resumed between two refreshes ends with the same bits."""
    said = golden_spec("bp_offset(period=3, batch=0.5, alpha=auto, scale=auto, memory=recompute)")
    first, second = trainer_of(said), trainer_of(said)
    for step in range(4):
        first.step(batch(step))
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, "plan", first.machine, checkpoint.Progress(step=4), {})
    checkpoint.read(path).restore(second.machine, "plan")
    second.steps_done = 4
    for step in range(4, STEPS):
        first.step(batch(step))
        second.step(batch(step))
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


def close(found: Tensor, wanted: Any, what: str) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted), rtol=1e-12, atol=1e-14, msg=what)


# Identities


@pytest.mark.parametrize("alpha", ["0.3", "auto"])
def test_a_full_offset_at_every_step_is_backpropagation(alpha: str) -> None:
    """Whatever alpha is, and with dropout too: both local terms see the same masks."""
    layers = [{"fc": "linear(7)"}, {"a": "relu"}, {"d": "dropout(0.4)"}, {"mid": "linear(6)"}, {"b": "tanh"}]
    said = golden_spec(f"bp_offset(period=1, batch=1, alpha={alpha}, memory=recompute)")
    said["network"]["layers"] = [*layers, {"out": "linear(3)"}]
    said["decompose"] = {"blocks": {"b0": ["fc", "a", "d"], "b1": ["mid", "b"], "top": ["out"]}, "links": "stop"}
    back = {**said, "learn": [{"blocks": "*", "optimizer": "sgd(lr=0.1, momentum=0.9)"}]}
    back["decompose"] = {**said["decompose"], "links": "gradient"}
    one, other = (lpc.Trainer(lpc.build(s), device="cpu") for s in (said, back))
    other.load_state_dict(one.state_dict(), strict=False)
    for step in range(4):
        one.step(batch(step))
        other.step(batch(step))
    wanted = other.state_dict()
    for name, tensor in wanted.items():
        torch.testing.assert_close(one.state_dict()[name], tensor, rtol=1e-11, atol=1e-13, msg=name)


def test_no_scale_is_local_learning() -> None:
    corrected, plain = trainer_of(golden_spec("bp_offset(scale=0)")), trainer_of(golden_spec("none"))
    for step in range(3):
        corrected.step(batch(step))
        plain.step(batch(step))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(corrected.state_dict()[name], tensor), name


def test_where_the_local_gradient_is_the_true_one_there_is_no_offset() -> None:
    """The block before the classifier learns through it (horizon of the whole rest): its offset is zero."""
    trainer = trainer_of(golden_spec("bp_offset(batch=1, memory=recompute)"))
    trainer.step(batch(0))
    values = dict(trainer.machine.corrections["b2"].state()).values()
    assert max(float(v.abs().max()) for v in values) < 1e-15


def test_backpropagation_is_reused_for_a_period() -> None:
    """alpha 0, scale 1: the true gradient of the refresh, at every step until the next one."""
    trainer = trainer_of(golden_spec("bp_offset(period=3, batch=1, alpha=0, memory=recompute)"))
    first = trainer.gradients(batch(0))["fc0.weight"]
    trainer.step(batch(0))
    assert torch.equal(trainer.gradients(batch(1))["fc0.weight"], first)
    trainer.step(batch(1))
    trainer.step(batch(2))
    assert not torch.equal(trainer.gradients(batch(3))["fc0.weight"], first)


def test_the_mean_over_parts_is_the_true_gradient() -> None:
    """Batch-separable losses: offsets of disjoint parts average to the whole batch's true gradient."""
    said = golden_spec("bp_offset(period=1, batch=2, memory=recompute)")
    trainer = trainer_of(said)
    true = trainer_of(golden_spec("none", "gradient")).gradients(batch(0))
    whole, parts = batch(0), []
    for first in range(0, 8, 2):
        turned = {name: torch.roll(value, -first, 0) for name, value in whole.items()}
        parts.append(trainer.gradients(turned)["fc0.weight"])
    torch.testing.assert_close(torch.stack(parts).mean(0), true["fc0.weight"], rtol=1e-12, atol=1e-14)


def test_heads_keep_their_own_gradient() -> None:
    plain = trainer_of(golden_spec("none")).gradients(batch(0))
    found = trainer_of(golden_spec("bp_offset(alpha=0.2, scale=3)")).gradients(batch(0))
    for name in plain:
        assert torch.equal(found[name], plain[name]) == name.startswith(("heads.", "out.")), name


def test_an_update_offset_moves_by_the_learning_rate() -> None:
    """Without momentum, and with plain SGD, it is the same whether the offset enters before or after the step."""
    states = []
    for where in ("gradient", "update"):
        said = golden_spec(f"bp_offset(period=2, batch=0.5, alpha=0.7, decay=0.5, where={where})")
        said["learn"][0]["optimizer"] = "sgd(lr=0.1)"
        trainer = trainer_of(said)
        for step in range(3):
            trainer.step(batch(step))
        states.append(trainer.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-12, atol=1e-14, msg=name)


def test_decay_and_phase() -> None:
    """offset * 0.5^age from step 1 on, every 3 steps; before that the local gradient alone."""
    trainer = trainer_of(golden_spec("bp_offset(period=3, phase=1, batch=1, alpha=0, decay=0.5, memory=recompute)"))
    found = []
    for step in range(4):
        found.append(trainer.gradients(batch(step))["fc0.weight"])
        trainer.step(batch(step))
    assert not found[0].any()
    close(found[2], 0.5 * found[1], "age 1")
    close(found[3], 0.25 * found[1], "age 2")


@settings(
    deadline=None,
    max_examples=2,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.data())
def test_random_corrections(data: st.DataObject) -> None:
    """Any rule on any blocks behind any links, against eager autograd."""
    one = st.sampled_from
    options = {
        "batch": data.draw(one(["0.5", "1", "6"])),
        "alpha": data.draw(one(["0", "0.4", "1", "auto"])),
        "scale": data.draw(one(["0.5", "1", "auto"])),
        "memory": data.draw(one(["recompute", "plain", "micro_batch"])),
        "pieces": data.draw(one(["2", "3"])),
    }
    said = golden_spec(f"bp_offset({', '.join(f'{k}={v}' for k, v in options.items())})")
    said["learn"][-1]["blocks"] = data.draw(one(["*", "b1", ["b0", "b2"]]))
    said["decompose"]["links"] = data.draw(one(["stop", "gradient", {"*": "stop", "b0->b1": "gradient"}]))
    said["learn"][1]["blocks"] = ["b0", "b1", "b2"]
    said["network"]["layers"].insert(1, {"n": "batch_norm"})
    said["network"]["layers"].insert(3, {"d": "dropout(0.3)"})
    said["decompose"]["blocks"]["b0"] = ["fc0", "n", "t0", "d"]
    report = lpc.verify(lpc.build(said))
    assert report.worst < 1e-9
    assert report.ok


def test_the_offset_of_a_linear_network_in_closed_form() -> None:
    """y = W2 W1 x, squared error, the same readout (none) for both: W2' (W2 W1 x - y) x' less (W1 x - y) x'."""
    said = {
        "network": {"inputs": {"x": {"shape": [4]}}, "layers": [{f"fc{i}": "linear(4, bias=false)"} for i in (1, 2)]},
        "data": None,
        "fields": {"y": {"shape": [4], "dtype": "float64"}},
        "loss": "mse",
        "decompose": {"blocks": "per_layer", "links": "stop"},
        "learn": [{"blocks": "*", "head": "identity", "loss": "mse", "optimizer": "sgd(lr=0.1)"}],
        "run": {"dtype": "float64", "target": "cpu"},
    }
    said["learn"] += [{"blocks": "fc1", "correct": "bp_offset(batch=1, memory=recompute)"}]
    trainer = lpc.Trainer(lpc.build(said), device="cpu")
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    first, second = (trainer.state_dict()[f"fc{i}.weight"].clone() for i in (1, 2))
    trainer.step({"x": x, "y": y})
    h = x @ first.T
    wanted = 2 / y.numel() * (((h @ second.T - y) @ second).T @ x - (h - y).T @ x)
    close(dict(trainer.machine.corrections["fc1"].state())["offset.fc1.weight"], wanted, "offset")


@pytest.mark.parametrize("rule", ["alpha=auto, scale=auto", "alpha=linear(floor=0.5), scale=cosine()", "where=update"])
def test_a_saved_plan_has_the_same_correction(rule: str, tmp_path: Path) -> None:
    plan = lpc.build({**golden_spec(f"bp_offset(batch=1, {rule})"), "run": {"dtype": "float64", "steps": 4}})
    plan.save(tmp_path / "offset.plan")
    again = lpc.load(tmp_path / "offset.plan")
    assert again.hash == plan.hash
    assert again.data.program == plan.data.program
    one, other = (lpc.Trainer(p, device="cpu") for p in (plan, again))
    for step in range(3):
        one.step(batch(step))
        other.step(batch(step))
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in one.state_dict().items())


@pytest.mark.parametrize(
    ("rule", "code"),
    [("alpha=linear(flor=0)", "0121"), ("scale=liner()", "0120"), ("batch=0", "0415"), ("alpha=linear", "0123")],
)
def test_mistakes_in_a_rule_are_told(rule: str, code: str) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(golden_spec(f"bp_offset({rule})"))
    assert code in [d.code for d in caught.value.diagnostics]


def test_corrections_that_would_not_be_ones() -> None:
    for change in ({"loss": "cross_entropy(reduction=sum)"}, {"run": {"accumulate": 2}}):
        with pytest.raises(lpc.LpcError) as caught:
            lpc.build({**golden_spec("bp_offset()"), **change})
        assert [d.code for d in caught.value.diagnostics] == ["0415"]
