"""Do readouts learn from detached features alone? Forward-Forward whole, against recorded arrays and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc

GOLDEN = np.load(Path(__file__).with_name("golden") / "ff_mlp_peer_f64.npz")
WIDTH, CLASSES = 8, 10


def network(pixels: int, width: int) -> dict[str, Any]:
    layers: list[dict[str, Any]] = []
    for i in (1, 2, 3):
        layers += [{f"norm{i}": "rms_norm(eps=1e-8, affine=false, outside=true)"}]
        layers += [{f"fc{i}": f"linear({width})"}, {f"act{i}": "relu(backward=identity)"}]
    return {"inputs": {"image": {"shape": [pixels]}}, "layers": layers}


def spec(pixels: int = 784, predict: str = "readout(digits)", **readout: Any) -> dict[str, Any]:
    local = {"head": "identity", "loss": ["ff_bce(goodness=sum, threshold=width)", "peer(weight=0.03)"]}
    sgd = "sgd(lr={}, momentum=0.9, weight_decay={})"
    return {
        "network": network(pixels, WIDTH),
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}, "positive": {"shape": [], "dtype": "bool"}},
        "decompose": {"blocks": {f"l{i}": [f"norm{i}", f"fc{i}", f"act{i}"] for i in (1, 2, 3)}, "links": "stop"},
        "learn": [{"blocks": "*", **local, "optimizer": sgd.format(1e-3, 3e-4)}],
        "readouts": {
            "digits": {
                "from": ["l2", "l3"],
                "with": "label_overlay(neutral)",
                "head": "linear(bias=false)",
                "loss": "cross_entropy",
                "optimizer": sgd.format(0.01, 3e-3),
                **readout,
            }
        },
        "run": {"dtype": "float64", "target": "cpu", "predict": predict},
    }


def batch(step: int) -> dict[str, Tensor]:
    """Both halves of a recorded batch; later batches have only the raw images."""
    raw = torch.from_numpy(GOLDEN[f"s{step}/raw"]).flatten(1)
    labels = [torch.from_numpy(GOLDEN[f"s{step}/{name}"]) for name in ("labels", "neg_labels")]
    halves = []
    for label in labels:
        image = raw.clone()
        image[:, :CLASSES] = F.one_hot(label, CLASSES).double()
        halves.append(image)
    return {
        "image": torch.cat(halves),
        "label": torch.cat([labels[0]] * 2),
        "positive": torch.arange(2 * len(raw)) < len(raw),
    }


def with_contrast(said: dict[str, Any]) -> dict[str, Any]:
    """The spec as with data whose batches have two halves: readouts see the first."""
    data = {"source": "digits", "transforms": ["flatten"], "contrast": "label_overlay"}
    return said | {"data": data, "fields": {}, "run": {**said["run"], "epochs": 1}}


def test_recorded_steps() -> None:
    """Layers and classifier, two steps; the neutral label makes the halves alike, so the readout may see both."""
    trainer = lpc.Trainer(lpc.build(spec()), device="cpu")
    names = {f"layer{i}": f"fc{i + 1}" for i in range(3)} | {"classifier": "heads.digits"}
    start = {key: key.split("/")[1].split(".") for key in GOLDEN.files if key.startswith("init/")}
    state = {f"{names[layer]}.{name}": torch.from_numpy(GOLDEN[key]) for key, (layer, name) in start.items()}
    trainer.load_state_dict(state, strict=False)
    for step in (0, 1):
        found = trainer.gradients(batch(step))
        trainer.step(batch(step))
        for key in (k for k in GOLDEN.files if k.startswith(f"s{step}/grad_")):
            layer, name = key.split("grad_")[1].split(".")
            close(found[f"{names[layer]}.{name}"], GOLDEN[key], key)
        for key in (k for k in GOLDEN.files if k.startswith(f"s{step}/after_")):
            layer, name = key.split("after_")[1].split(".")
            close(trainer.state_dict()[f"{names[layer]}.{name}"], GOLDEN[key], key)


def close(found: Tensor, wanted: Any, what: str) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted), rtol=1e-12, atol=1e-14, msg=what)


# Against formulas by hand


def sample(size: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    label = torch.randint(0, CLASSES, (size // 2,), generator=generator)
    return {
        "image": torch.rand(size, 64, generator=generator, dtype=torch.float64),
        "label": torch.cat((label, label)),
        "positive": torch.arange(size) < size // 2,
    }


def hidden(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The activities of the three layers."""
    found, h = [], image
    for i in (1, 2, 3):
        x = h / (h.square().mean(1, keepdim=True).sqrt() + 1e-8)
        h = F.relu(F.linear(x, state[f"fc{i}.weight"], state[f"fc{i}.bias"]))
        found.append(h)
    return found


@pytest.mark.parametrize(
    ("change", "contrast"),
    [
        ({}, True),
        ({"with": None, "normalize": "rms"}, True),
        ({"with": None, "from": ["l1", "l3"]}, False),
        ({"normalize": "none"}, False),
    ],
)
def test_a_readout_by_hand(change: dict[str, Any], contrast: bool) -> None:
    said = spec(64, **{"classes": 10, **change})
    said["readouts"]["digits"] = {k: v for k, v in said["readouts"]["digits"].items() if v is not None}
    trainer = lpc.Trainer(lpc.build(with_contrast(said) if contrast else said), device="cpu")
    data, state = sample(), trainer.state_dict()
    rows = len(data["label"]) // 2 if contrast else len(data["label"])
    image = data["image"][:rows].clone()
    overlaid = "with" in said["readouts"]["digits"]
    if overlaid:
        image[:, :CLASSES] = 1 / CLASSES
    layers = hidden(state, image)
    joined = [layers[int(block[1]) - 1] for block in said["readouts"]["digits"]["from"]]
    if said["readouts"]["digits"].get("normalize", "rms" if overlaid else "none") == "rms":
        joined = [h / (h.square().mean(1, keepdim=True).sqrt() + 1e-8) for h in joined]
    weight = state["heads.digits.weight"].clone().requires_grad_()
    loss = F.cross_entropy(F.linear(torch.cat(joined, 1), weight), data["label"][:rows])
    (wanted,) = torch.autograd.grad(loss, weight)
    close(trainer.gradients(data)["heads.digits.weight"], wanted, "readout")
    shown = trainer.predict({"image": data["image"][:rows]})
    if overlaid:
        close(shown, F.linear(torch.cat(joined, 1), weight).detach(), "prediction")


@pytest.mark.parametrize("normalize", ["none", "rms"])
def test_the_output_of_one_block_keeps_its_shape(normalize: str) -> None:
    """A head that pools over positions sees channels, not one long row."""
    layers = [{"conv": "conv(3, kernel=3)"}, {"act": "relu"}, {"pool": "global_avg_pool"}, {"out": "linear(2)"}]
    probe = {"from": ["trunk"], "head": "gap_linear", "normalize": normalize, "optimizer": "sgd(lr=0.1)"}
    said = {
        "network": {"inputs": {"image": [1, 6, 6]}, "layers": layers},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"trunk": ["conv", "act"], "head": ["pool", "out"]}, "links": "gradient"},
        "learn": [{"blocks": "*", "optimizer": "sgd(lr=0.1)"}],
        "readouts": {"probe": probe},
        "run": {"dtype": "float64", "target": "cpu"},
    }
    trainer = lpc.Trainer(lpc.build(said), device="cpu")
    state, label = trainer.state_dict(), torch.tensor([0, 1, 1])
    image = torch.randn(3, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    maps = F.relu(F.conv2d(image, state["conv.weight"], state["conv.bias"]))
    if normalize == "rms":
        maps = maps / (maps.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-8)
    weight = next(value for name, value in state.items() if name.startswith("heads.probe") and value.ndim == 2)
    bias = next(value for name, value in state.items() if name.startswith("heads.probe") and value.ndim == 1)
    assert weight.shape == (2, 3)
    weight = weight.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(F.cross_entropy(F.linear(maps.mean((2, 3)), weight, bias), label), weight)
    found = trainer.gradients({"image": image, "label": label})
    close(next(g for name, g in found.items() if name.startswith("heads.probe") and g.ndim == 2), wanted, "probe")


@pytest.mark.parametrize(("skip", "reduction"), [(1, "sum"), (0, "mean")])
def test_goodness_of_every_label_by_hand(skip: int, reduction: str) -> None:
    trainer = lpc.Trainer(
        lpc.build(spec(64, predict=f"goodness(skip={skip}, reduction={reduction})")), device="cpu"
    )
    data = sample()
    scores = []
    for label in range(CLASSES):
        image = data["image"].clone()
        image[:, :CLASSES] = F.one_hot(torch.tensor(label), CLASSES).double()
        squares = [h.square() for h in hidden(trainer.state_dict(), image)[skip:]]
        scores.append(sum(s.sum(1) if reduction == "sum" else s.mean(1) for s in squares))
    found = trainer.predict({"image": data["image"]})
    close(found, torch.stack(scores, 1), "goodness")
    values = trainer.evaluate([data])
    assert values["goodness.accuracy"] == pytest.approx(float((found.argmax(1) == data["label"]).double().mean()))


def test_verify_knows_readouts() -> None:
    for said in (spec(64), with_contrast(spec(64))):
        report = lpc.verify(lpc.build(said))
        assert report.ok, report.worst
        assert report.influence["heads.digits.weight"] == {"digits.loss"}
        assert all("digits.loss" not in losses for name, losses in report.influence.items() if name.startswith("fc"))


def test_contrast_makes_halves_that_depend_on_the_epoch_alone() -> None:
    said = with_contrast(spec(64))
    splits = lpc.Trainer(lpc.build(said), device="cpu").splits
    rows = torch.arange(20)
    first = splits.train.at(0, 0)[rows]
    again, later = splits.train.at(0, 0)[rows], splits.train.at(0, 1)[rows]
    assert first["image"].shape == (40, 64)
    assert first["positive"].tolist() == [True] * 20 + [False] * 20
    written = first["image"][:, :CLASSES]
    assert torch.equal(written.sum(1), torch.ones(40))
    assert torch.equal(written.argmax(1)[:20], first["label"][:20])
    assert not (written.argmax(1)[20:] == first["label"][20:]).any()
    assert torch.equal(first["image"][:20, CLASSES:], first["image"][20:, CLASSES:])
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], later["image"])


def test_mixed_images_are_two_images_under_a_mask() -> None:
    said = with_contrast(spec(64))
    said["data"] = {**said["data"], "contrast": "mixed_images(blur=2)"}
    batch = lpc.Trainer(lpc.build(said), device="cpu").splits.train[torch.arange(16)]
    image, mixed = batch["image"][:16], batch["image"][16:]
    for row in range(16):
        others = [j for j in range(16) if bool(((mixed[row] == image[row]) | (mixed[row] == image[j])).all())]
        assert others
    assert not torch.equal(image, mixed)


def test_mistakes_are_told() -> None:
    cases = [
        ({"from": ["l9"]}, "readout(digits)", "0132"),
        ({}, "readout(digit)", "0145"),
        ({"loss": "sim"}, "output", "0418"),
        ({"loss": "cross_entropy(head=linear)"}, "output", "0418"),
        ({"loss": "cross_entropy(weight=linear(0, 1))"}, "output", "0418"),
        ({"with": "label_overlay(neutral, classes=100)"}, "output", "0418"),
        ({}, "goodness(skip=3)", "0418"),
    ]
    for change, predict, code in cases:
        with pytest.raises(lpc.LpcError) as caught:
            lpc.build(spec(64, predict, **change))
        assert [d.code for d in caught.value.diagnostics] == [code]


def test_what_cannot_go_together_is_told() -> None:
    """Nothing is left out in silence: several batches a step, or views and contrast."""
    for section, key, value, code in (("run", "accumulate", 2, "0418"), ("data", "views", 2, "0616")):
        said = with_contrast(spec(64))
        said = {**said, section: {**said[section], key: value}}
        if section == "run":
            said["learn"][0]["loss"] = "ff_bce"
        with pytest.raises(lpc.LpcError) as caught:
            lpc.build(said)
        assert [d.code for d in caught.value.diagnostics] == [code]


def test_a_frozen_block_that_is_read_stays_a_block() -> None:
    said = spec(64, predict="output", **{"from": ["l1"], "normalize": "rms"})
    said["learn"] += [{"params": "fc1.*", "train": False}]
    said["learn"][0]["loss"] = ["ff_bce(goodness=sum, threshold=width)"]
    plan = lpc.build(said)
    assert list(plan.partition) == ["l1", "l2", "l3"]
    assert lpc.verify(plan).ok
