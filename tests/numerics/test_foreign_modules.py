"""Do modules as people write them go through every method? More outputs than are needed, masks, padding, tuples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lpc

NETWORKS = str(Path(__file__).with_name("sample_networks.py"))
WORDS = {"shape": [4], "dtype": "int64"}
CAUSAL = {"embed": ["embed"], "mix": ["depth", "mix"], "out": ["out"]}


def spec(name: str, inputs: Any, blocks: dict[str, list[str]], recipe: str, **more: Any) -> dict[str, Any]:
    label = {"shape": [4] if name == "Causal" else [], "dtype": "int64"}
    return {
        "network": {"module": f"sample_networks:{name}", "inputs": {"x": inputs}, **more.pop("network", {})},
        "data": None,
        "fields": {"label": label},
        "loss": "cross_entropy",
        "decompose": {"blocks": blocks},
        "recipe": recipe,
        **more,
    }


def built(said: dict[str, Any]) -> lpc.Plan:
    return lpc.build(said, allow=[NETWORKS])


def test_a_module_is_verified_that_computes_more_than_its_output_needs() -> None:
    blocks = {"b1": ["fc0", "norm"], "b2": ["fc1"], "out": ["out"]}
    plan = built(spec("TwoTails", [4], blocks, "greedy", network={"output": 0}))
    report = lpc.verify(plan, allow=[NETWORKS])
    assert report.ok, report  # its norms divide numbers so small that eps, which depends on the dtype, counts
    assert not any(name.startswith("beside") for name in plan.data.program.state)
    assert any("`beside`" in note for note in plan.data.report["notes"])


@pytest.mark.parametrize("recipe", ["altmin", "blockprop", "direct_feedback", "backprop"])
def test_what_no_weight_moves_passes_every_link(recipe: str) -> None:
    """A mask has no variable, no error fed back and no gradient; it is neither solved for nor fitted."""
    plan = built(spec("Causal", WORDS, CAUSAL, recipe, run={"dtype": "float64"}))
    report = lpc.verify(plan, allow=[NETWORKS])
    assert report.ok, report
    trainer = lpc.Trainer(plan, device="cpu")
    losses = trainer.step({"x": torch.randint(0, 5, (3, 4)), "label": torch.randint(0, 5, (3, 4))})
    assert all(loss.isfinite() for loss in losses.values())
    if recipe in ("altmin", "blockprop"):
        assert sorted(trainer.variables()) == ["embed->mix", "mix->out"]


def test_weights_of_words_and_of_channels_are_perturbed() -> None:
    """By hand: the derivative of the output's loss along the noise, times the noise; padding has no derivative."""
    said = spec("Causal", WORDS, CAUSAL, "forward_gradient(perturb=weight)", run={"dtype": "float64", "seed": 3})
    trainer = lpc.Trainer(built(said), device="cpu")
    batch = {"x": torch.tensor([[0, 1, 2, 3], [4, 0, 1, 1], [2, 2, 3, 4]]), "label": torch.randint(0, 5, (3, 4))}
    state = {n: t.clone() for n, t in trainer.state_dict().items()}
    sites = trainer.plan.program.noise
    noise = {s: torch.randn(list(map(int, n.type.shape)), dtype=torch.float64) for s, n in sites.items()}
    found = trainer.gradients(batch, noise)
    along = {n: next(v for s, v in noise.items() if n in s) for n in state if not n.startswith("out.")}
    expected = _along(state, along, batch)
    for name, direction in along.items():
        torch.testing.assert_close(found[name], expected * direction, rtol=1e-12, atol=1e-13, msg=name)


def _along(state: dict[str, Tensor], along: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
    """Return the derivative of the loss along the noise, of a network written out."""
    still = along | {"embed.weight": along["embed.weight"] * (torch.arange(5) > 0).unsqueeze(1)}

    def loss(moved: dict[str, Tensor]) -> Tensor:
        weights = torch.full((4, 4), -torch.inf, dtype=torch.float64).triu(1).softmax(-1)
        h = moved["embed.weight"][batch["x"]]
        padded = nn.functional.pad((weights @ h).mT, (1, 1)).unfold(2, 3, 1)
        h = (torch.einsum("bctk,ck->btc", padded, moved["depth.weight"][:, 0]) + moved["depth.bias"]).tanh()
        h = (weights @ (h @ moved["mix.weight"].T + moved["mix.bias"])).tanh()
        return nn.functional.cross_entropy((h @ moved["out.weight"].T + moved["out.bias"]).mT, batch["label"])

    leaves = {n: state[n].requires_grad_() for n in still}
    slopes = torch.autograd.grad(loss(state | leaves), list(leaves.values()))
    return torch.stack([(slope * still[n]).sum() for n, slope in zip(leaves, slopes, strict=True)]).sum()


def test_a_loop_in_float32_is_verified_in_float64() -> None:
    blocks = {"first": ["embed", "loop"], "out": ["out"]}
    plan = built(spec("Hidden", [3, 4], blocks, "backprop"))
    assert any(node.op == "sym_max" for kernel in plan.data.kernels["native"].values() for node in kernel.nodes)
    report = lpc.verify(plan, allow=[NETWORKS])
    assert report.ok, report
    assert max(report.gradients.values()) < 1e-12


def test_a_layer_of_several_tensors_has_no_target() -> None:
    with pytest.raises(lpc.LpcError, match=r"0434.*`gru`, hands on several tensors"):
        built(spec("Recurrent", [3, 4], {"gru": ["gru"], "out": ["out"]}, "locoprop(variant=s)"))
