"""Does every local loss work in a plan? Captured gradients against autograd, names, weights, mistakes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import lpc

LABEL = {"label": {"shape": [], "dtype": "int64"}}
BASE: dict[str, Any] = {
    "network": {
        "inputs": {"image": [2, 6, 6]},
        "layers": [
            {"c1": "conv(4, 3, padding=1)"}, "relu", {"c2": "conv(8, 3, padding=1)"}, "relu",
            {"pooled": "global_avg_pool"}, {"out": "linear(4)"},
        ],
    },
    "data": None,
    "fields": LABEL,
    "loss": "cross_entropy(target=label)",
    "decompose": {"blocks": {"b1": "c1", "b2": "c2", "b3": ["pooled", "out"]}},
    "run": {"target": "cpu"},
}  # fmt: skip


HALVES: dict[str, Any] = {"blocks": {"b1": "c1", "b3": ["c2", "pooled", "out"]}}
OVER_BLOCKS = ("infopro", "infonce")  # a law over blocks, and negatives of a step each
ONE_TARGET: dict[str, Any] = BASE["decompose"] | {"links": {"b1->b2": "target(step=1)", "*": "stop"}}


def spec(loss: Any, head: str | None = None, **more: Any) -> dict[str, Any]:
    rule = {"blocks": "*", "loss": loss, "optimizer": "sgd(lr=0.1)"} | ({"head": head} if head else {})
    return BASE | {"learn": [rule, *more.pop("learn", [])]} | more


CASES: dict[str, tuple[Any, str | None]] = {
    "pred": ("cross_entropy", "pool_linear(8)"),
    "predsim": (["cross_entropy(weight=0.1, head=gap_linear)", "sim(weight=0.9)"], None),
    "mlp_sr": ("cross_entropy", "mlp_sr"),
    "infopro": (["recon(weight=linear(5, 1))", "cross_entropy(weight=linear(0, 1))"], "convs_fcs"),
    "supcon": ("supcon", "convs_fcs(features=6)"),
    "nt_xent": ("nt_xent", "simclr_mlp(out=5)"),
    "infonce": ("infonce(head=nce_maps(2), negatives=3, skip=1)", None),
    "infonce_within": ("infonce(head=nce_maps(2), negatives=3, within=sample, eps=1e-6)", None),
    "cwc": ("cwc", None),
    "sim_x": (["cross_entropy(head=gap_linear)", "sim_x"], None),
    "goodness": (["ff_bce(target=positive)", "peer"], None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_has_the_gradients_of_autograd(case: str) -> None:
    """Exact influence as well: each loss reaches its own head, and no other's."""
    loss, head = CASES[case]
    fields = LABEL | ({"positive": {"shape": [], "dtype": "bool"}} if case == "goodness" else {})
    blocks = BASE["decompose"] if case in OVER_BLOCKS else HALVES
    report = lpc.verify(lpc.build(spec(loss, head, fields=fields, decompose=blocks)))
    assert report.ok
    assert report.worst < 1e-9
    heads = {n: s for n, s in report.declared.items() if n.startswith("heads.")}
    assert {n: report.influence[n] for n in heads} == heads


def trainer(loss: Any, head: str | None = None, decompose: Any = HALVES, **more: Any) -> lpc.Trainer:
    return lpc.Trainer(lpc.build(spec(loss, head, decompose=decompose, **more)), device="cpu")


def batch(size: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(size, 2, 6, 6, generator=generator),
        "label": torch.randint(0, 4, (size,), generator=generator),
    }


def test_names_follow_block_and_loss() -> None:
    names = [n for n in trainer(["cross_entropy", "sim"], "gap_linear").state_dict() if n.startswith("heads.b1")]
    assert names == ["heads.b1.weight", "heads.b1.bias", "heads.b1.sim1.weight"]
    alone = trainer("sim").state_dict()
    assert "heads.b1.loss.weight" in alone


def test_the_blocks_head_is_the_same_whatever_stands_beside_it() -> None:
    alone, beside = (trainer(loss, "gap_linear").state_dict() for loss in ("cross_entropy", ["cross_entropy", "sim"]))
    assert torch.equal(alone["heads.b1.weight"], beside["heads.b1.weight"])


def test_a_head_that_serves_two_losses_runs_once() -> None:
    both = trainer(["cross_entropy(weight=0.25)", "supcon(weight=0.75)"], "convs_fcs(features=4)")
    metrics = both.step(batch())
    state = both.state_dict()
    assert state["heads.b1.2.num_batches_tracked"] == 1  # the batch norm after a view and a convolution
    assert torch.isclose(metrics["b1.loss"], metrics["b1.cross_entropy0"] + metrics["b1.supcon1"])


def test_weights_run_over_the_blocks_before_the_last() -> None:
    thirds = BASE["decompose"]
    flat = trainer(["cross_entropy(head=gap_linear)", "sim_x"], decompose=thirds)
    laws = trainer(["cross_entropy(weight=linear(2, 0.5), head=gap_linear)", "sim_x"], decompose=thirds)
    laws.load_state_dict(flat.state_dict())
    plain, weighted = flat.step(batch()), laws.step(batch())
    assert torch.isclose(weighted["b1.cross_entropy0"], 2.0 * plain["b1.cross_entropy0"])
    assert torch.isclose(weighted["b2.cross_entropy0"], 0.5 * plain["b2.cross_entropy0"])
    assert weighted["b3.loss"] == plain["b3.loss"]


def test_accuracy_is_that_of_the_loss_that_classifies() -> None:
    found = trainer(["sim", "cross_entropy(head=gap_linear)"]).step(batch())
    assert {"b1.accuracy", "b3.accuracy"} <= set(found)
    assert "b1.accuracy" not in trainer("sim").step(batch())


def test_perplexity_is_of_one_cross_entropy_alone() -> None:
    run = {"target": "cpu", "metrics": ["perplexity"]}
    assert "b1.perplexity" in trainer("cross_entropy", "gap_linear", run=run).step(batch())
    assert "b1.perplexity" not in trainer(["cross_entropy", "sim"], "gap_linear", run=run).step(batch())


def test_negatives_are_noise_that_can_be_fixed() -> None:
    t = trainer("infonce(head=nce_maps(2), negatives=3, skip=1)")
    sites = [(b, k, site) for b in ("b1",) for k, site in enumerate(("loss", "loss:1"))]
    noise = {f"{b}.{site}": torch.rand((4 - k) * 6 * 4, 3) for b, k, site in sites}
    first, again, other = t.gradients(batch(), noise=noise), t.gradients(batch(), noise=noise), t.gradients(batch())
    assert torch.equal(first["c1.weight"], again["c1.weight"])
    assert not torch.equal(first["c1.weight"], other["c1.weight"])


MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "head": (spec("cross_entropy(head=token)"), "0404", "it reads tokens"),
    "idle head": (spec("cwc", "linear"), "0417", "serves no loss"),
    "steps": (spec("infonce(head=nce_maps(6))"), "0416", "more rows"),
    "scores": (spec("nt_xent", "linear"), "0404", "does not read"),
    "channels": (spec("recon(mean=[0.5, 0.5, 0.5])"), "0416", "2 channels"),
    "target": (spec("ff_bce"), "0402", "`positive`"),
    "maps": (spec("infonce(head=identity)"), "0416", "infonce"),
    "unknown head": (spec("sim(head=lniear_map)"), "0120", "linear_map"),
    "head's argument": (spec("sim(head=pool_linear(dim=0))"), "0123", "dim"),
    "weight's law": (spec("sim(weight=cosine(1, 2))"), "0120", "cosine"),
    "offset": (spec("sim", learn=[{"blocks": "b1", "correct": "bp_offset(period=2)"}]), "0415", "couples its samples"),
    "no target's": (spec("squared", decompose=ONE_TARGET), "0434", "no link `target` leaves block `b2`"),
    "split": (spec("sim", run={"target": "cpu", "accumulate": 2}), "0144", "couples"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_where_they_are_written(mistake: str) -> None:
    wrong, code, says = MISTAKES[mistake]
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(json.dumps(wrong))
    found = next(d for d in caught.value.diagnostics if d.code == code)
    assert says in str(caught.value)
    assert found.span is not None


def test_a_split_batch_may_be_allowed() -> None:
    t = trainer("sim(split=allowed)", run={"target": "cpu", "accumulate": 2})
    assert "b1.loss" in t.step([batch(), batch()])


def test_odd_views_are_infinitely_bad() -> None:
    assert trainer("nt_xent", "simclr_mlp").step(batch(5))["b1.loss"] == torch.inf
