"""Does each phase train what it names, and nothing else? Against a loop by hand, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lpc

CLASSES, WIDTH, PIXELS = 3, 5, 4


def spec(phases: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    layers = ["flatten", {"fc1": f"linear({WIDTH})"}, {"n1": "batch_norm"}, {"r1": "relu"}]
    layers += [{"fc2": f"linear({WIDTH})"}, {"n2": "batch_norm"}, {"d2": "dropout(0.0)"}, {"out": f"linear({CLASSES})"}]
    learn = {"blocks": "*", "head": "linear", "loss": "cross_entropy"}
    return {
        "network": {"inputs": {"image": [PIXELS]}, "layers": layers},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"b1": ["fc1", "n1", "r1"], "b2": ["fc2", "n2", "d2"], "head": "out"}},
        "learn": [learn | {"optimizer": "sgd(lr=0.2, momentum=0.9)", "schedule": "linear"}],
        "readouts": {"probe": {"from": ["b1", "b2"], "optimizer": "sgd(lr=0.1)"}},
        "run": {"dtype": "float64", "target": "cpu", "phases": phases},
    } | changes


def batches(count: int, size: int = 6) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        {
            "image": torch.randn(size, PIXELS, generator=generator, dtype=torch.float64),
            "label": torch.randint(0, CLASSES, (size,), generator=generator),
        }
        for _ in range(count)
    ]


class ByHand(nn.Module):
    """The network, its heads and its readout, trained part by part as anybody would."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.b1 = nn.Sequential(nn.Linear(PIXELS, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())
        self.b2 = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)
        self.heads = nn.ModuleDict({"b1": nn.Linear(WIDTH, CLASSES), "b2": nn.Linear(WIDTH, CLASSES)})
        self.probe = nn.Linear(2 * WIDTH, CLASSES)
        self.double().load_state_dict({self.theirs(name): tensor.clone() for name, tensor in state.items()})

    @staticmethod
    def theirs(name: str) -> str:
        first, _, rest = name.partition(".")
        owners = {"fc1": "b1.0", "n1": "b1.1", "fc2": "b2.0", "n2": "b2.1", "out": "head"}
        if first != "heads":
            return f"{owners[first]}.{rest}"
        return name if not rest.startswith("probe.") else rest

    def learn(self, names: list[str], steps: list[dict[str, Tensor]], optimizers: dict[str, Any]) -> None:
        """Train in turn: linear decay from the rate down to 0 within the phase."""
        for i, batch in enumerate(steps):
            self.eval()
            for name in names:
                getattr(self, name).train()
            h1 = self.b1(batch["image"]).detach() if "b1" not in names else self.b1(batch["image"])
            h2 = self.b2(h1.detach())
            losses = {
                "b1": self.heads["b1"](h1), "b2": self.heads["b2"](h2), "head": self.head(h2.detach()),
                "probe": self.probe(torch.cat([h1, h2], 1).detach()),
            }  # fmt: skip
            for name in names:
                optimizer, rate = optimizers[name]
                optimizer.zero_grad()
                F.cross_entropy(losses[name], batch["label"]).backward()
                for group in optimizer.param_groups:
                    group["lr"] = rate if name == "probe" else rate * (1.0 - i / len(steps))
                optimizer.step()


def own(model: ByHand, name: str) -> list[nn.Parameter]:
    parameters = list(getattr(model, name).parameters())
    return parameters + (list(model.heads[name].parameters()) if name in model.heads else [])


def test_phases_in_turn() -> None:
    """A block that has its turn twice keeps its momentum, and its schedule begins anew."""
    turns = [(["b1"], 3), (["b2", "head"], 2), (["probe"], 2), (["b1", "b2"], 3)]
    trainer = lpc.Trainer(lpc.build(spec([{"train": names, "steps": n} for names, n in turns])), device="cpu")
    model = ByHand(trainer.state_dict())
    rates = {"b1": 0.2, "b2": 0.2, "head": 0.2, "probe": 0.1}
    optimizers = {
        name: (torch.optim.SGD(own(model, name), lr=rate, momentum=0.9 if name != "probe" else 0.0), rate)
        for name, rate in rates.items()
    }
    data = batches(sum(n for _, n in turns))
    for names, count in turns:
        steps, data = data[:count], data[count:]
        for batch in steps:
            trainer.step(batch)
        model.learn(names, steps, optimizers)
        wanted = model.state_dict()
        for name, tensor in trainer.state_dict().items():
            told = f"{names}: {name}"
            torch.testing.assert_close(tensor, wanted[model.theirs(name)], rtol=1e-12, atol=1e-13, msg=told)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"memory": "summed"},
        {"clip": 0.5, "accumulate": 2},
    ],
    ids=str,
)
def test_verified(changes: dict[str, Any]) -> None:
    phases = [{"train": "b1", "steps": 1}, {"train": ["b2", "head"], "steps": 1}]
    given = spec(phases)
    if changes:
        given["readouts"] = {}
        given["decompose"] |= {"links": {"b2->head": "gradient", "*": "stop"}}
    else:
        phases.append({"train": "readouts", "steps": 1})
    given["run"] |= changes
    if "clip" in changes:
        given["decompose"] |= {"links": "gradient"}
        given["learn"][0] |= {"loss": "none", "head": "identity"}
        phases[:] = [{"train": "head", "steps": 1}, {"train": "*", "steps": 1}]
    plan = lpc.build(given)
    report = lpc.verify(plan)
    assert report.ok
    assert report.worst < 1e-11
    assert len(plan.data.program.phases) == len(phases)


def test_verification_sees_a_block_in_the_wrong_mode() -> None:
    """With batch norm in evaluation, b2's gradients are others: the reference is not that of the whole step."""
    plan = lpc.build(spec([{"train": "b2", "steps": 1}, {"train": "*", "steps": 1}]))
    trainer = lpc.Trainer(plan, device="cpu")
    (batch,) = batches(1)
    alone = trainer.gradients(batch)
    assert set(alone) == {f"fc2.{n}" for n in ("weight", "bias")} | {f"n2.{n}" for n in ("weight", "bias")} | {
        "heads.b2.weight", "heads.b2.bias",
    }  # fmt: skip
    trainer.step(batch)
    assert not torch.allclose(trainer.gradients(batch)["fc2.weight"], alone["fc2.weight"])


def test_a_block_learns_through_others() -> None:
    given = spec([{"train": "b1", "steps": 1}])
    given["decompose"] |= {"links": "gradient"}
    with pytest.raises(lpc.LpcError, match="learns through `b2`") as caught:
        lpc.build(given)
    assert caught.value.diagnostics[0].code == "0432"


def test_an_offset_goes_through_all_blocks() -> None:
    given = spec([{"train": "*", "steps": 2}, {"train": "b1", "steps": 1}], readouts={})
    given["learn"].append({"blocks": "b1", "correct": "bp_offset(period=2)"})
    with pytest.raises(lpc.LpcError, match=r"corrects `b1`.* does not train `b2`"):
        lpc.build(given)
    given["run"]["phases"] = [{"train": "*", "steps": 3}, {"train": "*", "steps": 3}, {"train": "head", "steps": 1}]
    trainer = lpc.Trainer(lpc.build(given), device="cpu")
    for batch in batches(3):
        trainer.step(batch)
    (late,) = batches(1)
    offset = trainer.machine.corrections["b1"].offset
    trainer.step(late)  # the first step of a phase: a new offset, of an age that counts from there
    assert trainer.machine.corrections["b1"].offset is not offset


def test_what_no_phase_trains_is_told() -> None:
    plan = lpc.build(spec([{"train": ["b*"], "steps": 1}]))
    assert [w for w in plan.data.report["warnings"] if "no phase" in w] == [
        "no phase trains `head`: it keeps the weights that it starts with",
        "no phase trains `probe`: it keeps the weights that it starts with",
    ]




def test_resumed_within_a_phase(tmp_path: Path) -> None:
    """Bitwise as without the cut, at any step; the journal names phases; epochs count data."""
    turns = [{"train": "b1", "epochs": 1}, {"train": ["b2", "head"], "epochs": 2}, {"train": "probe", "steps": 2}]
    given = spec(turns, run={"log": "every(1)", "checkpoint": "every(1)", "phases": turns})
    given["learn"][0]["schedule"] = "cosine"
    given["network"]["inputs"] = {"image": [1, 8, 8]}
    given["fields"] = {}
    given["network"]["layers"][-1] = {"out": "linear(10)"}
    given["data"] = {"source": "digits", "batch": 400}
    plan = lpc.build(given)
    whole = lpc.Trainer(plan, device="cpu")
    per_epoch = whole.steps_per_epoch
    summary = whole.fit(tmp_path / "whole")
    assert [phase["steps"] for phase in summary["phases"]] == [per_epoch, 2 * per_epoch, 2]
    rows = [json.loads(row) for row in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    kept = {row["step"]: row["phase"] for row in rows if row["kind"] == "train"}
    assert kept[per_epoch] == 1
    assert kept[per_epoch + 1] == 2
    assert kept[3 * per_epoch + 2] == 3
    for cut in (per_epoch, per_epoch + 1, 3 * per_epoch + 1):
        stopped = lpc.Trainer(plan, device="cpu")
        advance = stopped.advance

        def limited(parts: Any, stopped: Any = stopped, advance: Any = advance, cut: int = cut) -> Any:
            if stopped.steps_done == cut:
                raise KeyboardInterrupt
            return advance(parts)

        stopped.advance = limited  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            stopped.fit(tmp_path / str(cut))
        resumed = lpc.Trainer(plan, device="cpu")
        resumed.fit(tmp_path / str(cut), resume=True)
        for name, tensor in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], tensor), (cut, name)


def test_epochs_of_a_phase_need_data() -> None:
    trainer = lpc.Trainer(lpc.build(spec([{"train": "*", "epochs": 1}])), device="cpu")
    with pytest.raises(lpc.LpcError, match="phase 1 is as long as some epochs"):
        trainer.step(batches(1)[0])
