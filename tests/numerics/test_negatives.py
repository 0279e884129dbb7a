"""Are hard negatives drawn from the network's own wrong predictions? By hand, by frequencies, and in whole steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lpc
from lpc.compiler.negatives import HardLabels

CLASSES, SIDE = 10, 64


def spec(negatives: str, predict: str = "readout(digits)") -> dict[str, Any]:
    layers: list[dict[str, str]] = []
    for i in (1, 2):
        layers += [{f"norm{i}": "rms_norm(eps=1e-8, affine=false, outside=true)"}, {f"fc{i}": "linear(12)"}]
        layers += [{f"act{i}": "relu(backward=identity)"}]
    learn = {"blocks": "*", "head": "identity", "loss": "ff_bce(goodness=sum, threshold=width)"}
    return {
        "network": {"inputs": {"image": [SIDE]}, "layers": layers},
        "data": {"source": "digits", "transforms": ["flatten"], "contrast": f"label_overlay(negatives={negatives})"},
        "decompose": {"blocks": {f"l{i}": [f"norm{i}", f"fc{i}", f"act{i}"] for i in (1, 2)}, "links": "stop"},
        "learn": [learn | {"optimizer": "sgd(lr=0.01)"}],
        "readouts": {"digits": {"from": ["l1", "l2"], "with": "label_overlay(neutral)", "optimizer": "sgd(lr=0.1)"}},
        "run": {"steps": 3, "dtype": "float64", "target": "cpu", "predict": predict},
    }


def sample(size: int = 12) -> dict[str, Tensor]:
    """A batch as the data make it: images with their own label, then the same with the next one."""
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(size // 2, SIDE, generator=generator, dtype=torch.float64)
    label = torch.randint(0, CLASSES, (size // 2,), generator=generator)
    halves = [written(image, label), written(image, (label + 1) % CLASSES)]
    positive = torch.arange(size) < size // 2
    return {"image": torch.cat(halves), "label": torch.cat((label, label)), "positive": positive}


def written(image: Tensor, label: Tensor) -> Tensor:
    found = image.clone()
    found[:, :CLASSES] = torch.nn.functional.one_hot(label, CLASSES).double()
    return found


def wrong(scores: Tensor, label: int, u: float) -> int:
    """Inverse of the distribution function of the wrong classes, class by class."""
    chances = [float(torch.exp(s - scores.max())) if c != label else 0.0 for c, s in enumerate(scores)]
    level, total = u * sum(chances), 0.0
    for c, chance in enumerate(chances):
        total += chance
        if total > level:
            return c
    raise AssertionError("the chances end below 1")


@pytest.mark.parametrize("predict", ["readout(digits)", "goodness(skip=0)"])
def test_a_step_draws_from_what_it_predicts(predict: str, built: Any) -> None:
    """The same gradients as of a batch whose negatives were made by hand from `Trainer.predict`."""
    trainer = lpc.Trainer(built(spec("hard", predict)), device="cpu")
    plain = lpc.Trainer(built(spec("wrong_label", predict)), device="cpu")
    batch = sample()
    for _ in range(3):
        half = len(batch["label"]) // 2
        u = torch.rand(2 * half, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        scores = trainer.predict(batch["image"][:half])
        labels = [wrong(s, int(y), float(d)) for s, y, d in zip(scores, batch["label"][half:], u[half:], strict=True)]
        assert labels != ((batch["label"][half:] + 1) % CLASSES).tolist()
        images = torch.cat((batch["image"][:half], written(batch["image"][half:], torch.tensor(labels))))
        plain.load_state_dict(trainer.state_dict())
        wanted = plain.gradients({**batch, "image": images})
        found = trainer.gradients(batch, noise={"negatives": u})
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-14)
        trainer.step(batch)


def test_frequencies() -> None:
    """Of 20,000 draws each wrong class has its share, to five standard deviations; the true one none."""
    scores = torch.tensor([[2.0, 0.0, -1.0, 5.0, 0.5]], dtype=torch.float64)
    count = 20_000
    module = HardLabels(5, 1.0)
    torch.manual_seed(0)
    image, label = torch.zeros(count, 6, dtype=torch.float64), torch.full((count,), 3)
    found = module(image, scores.expand(count // 2, -1), label, torch.zeros(count, dtype=torch.bool))
    assert bool((found[:, :5].sum(1) == 1).all())
    chances = scores[0].softmax(0)
    chances[3] = 0.0
    chances /= chances.sum()
    share = found[:, :5].mean(0)
    assert share[3] == 0.0
    assert bool(((share - chances).abs() <= 5 * (chances * (1 - chances) / count).sqrt()).all())


def test_a_certain_network_still_has_wrong_classes() -> None:
    """Where the true class has all of the probability, the others are drawn as they are among themselves."""
    scores = torch.tensor([[1000.0, 0.0, -1000.0]], dtype=torch.float64)
    positive = torch.tensor([True, False])
    found = HardLabels(3, 0.5)(torch.ones(2, 4, dtype=torch.float64), scores, torch.tensor([0, 0]), positive)
    assert found.tolist() == [[1.0, 1.0, 1.0, 1.0], [0.0, 0.5, 0.0, 1.0]]


@pytest.mark.parametrize("predict", ["readout(digits)", "goodness(skip=1)"])
def test_verified(predict: str, built: Any) -> None:
    report = lpc.verify(built(spec("hard", predict)))
    assert report.ok
    assert report.worst < 1e-12


def test_runs_and_evaluates_with_any_wrong_label(built: Any) -> None:
    """Evaluation compares with the data's own negatives, so that it does not depend on the readout."""
    trainer = lpc.Trainer(built(spec("hard")), device="cpu")
    plain = lpc.Trainer(built(spec("wrong_label")), device="cpu")
    assert trainer.evaluate("test") == plain.evaluate("test")
    assert trainer.fit()["steps"] == 3


def test_what_predicts_must_not_see_a_label() -> None:
    with pytest.raises(lpc.LpcError, match="the run predicts by `output`") as caught:
        lpc.build(spec("hard", "output"))
    assert caught.value.diagnostics[0].code == "0418"
