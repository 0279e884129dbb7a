"""Do losses and metrics equal torch's? Every argument, on flat scores, tokens and maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.losses import LOSSES, METRICS, Sight
from lpc.compiler.setting import Setting
from lpc.specs.signatures import LOSSES as SIGNATURES
from lpc.specs.term import Term

torch.manual_seed(0)
FLAT, LABELS = torch.randn(6, 4).double(), torch.tensor([0, 3, 1, 2, 2, 0])
TOKENS, WORDS = torch.randn(2, 5, 4).double(), torch.randint(0, 4, (2, 5))
MAP, PIXELS = torch.randn(2, 4, 3, 5).double(), torch.randint(0, 4, (2, 3, 5))
SQUARE, SQUARE_LABELS = torch.randn(2, 4, 4).double(), torch.randint(0, 4, (2, 4))


def options(name: str, **arguments: Any) -> dict[str, Any]:
    return SIGNATURES[name].bind(Term(name, (), arguments))


def loss(name: str, prediction: Tensor, target: Tensor, **arguments: Any) -> Tensor:
    setting = Setting(prediction.shape[1:], target.shape[1:], prediction.shape[1:])
    return LOSSES[name].make(options(name, **arguments), setting)(Sight(prediction, prediction, target))


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == ()
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_cross_entropy(reduction: str, smoothing: float, ignored: int) -> None:
    words = {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": ignored}
    close(loss("cross_entropy", FLAT, LABELS, **words), F.cross_entropy(FLAT, LABELS, **words))
    close(loss("cross_entropy", MAP, PIXELS, **words), F.cross_entropy(MAP, PIXELS, **words))
    wanted = F.cross_entropy(TOKENS.transpose(1, 2), WORDS, **words)
    close(loss("cross_entropy", TOKENS, WORDS, **words), wanted)


def test_tokens_as_many_as_classes_have_their_classes_last() -> None:
    close(loss("cross_entropy", SQUARE, SQUARE_LABELS), F.cross_entropy(SQUARE.transpose(1, 2), SQUARE_LABELS))


def test_shift_pairs_a_position_with_the_next_label() -> None:
    rows = [(TOKENS[b, t], WORDS[b, t + 1]) for b in range(2) for t in range(4)]
    wanted = torch.stack([-torch.log_softmax(scores, 0)[label] for scores, label in rows]).mean()
    close(loss("cross_entropy", TOKENS, WORDS, shift=1), wanted)
    rows = [(s, label) for s, label in rows if label != 1]
    wanted = torch.stack([-torch.log_softmax(scores, 0)[label] for scores, label in rows]).sum()
    close(loss("cross_entropy", TOKENS, WORDS, shift=1, ignore_index=1, reduction="sum"), wanted)


def test_scale_is_on_the_prediction() -> None:
    close(loss("cross_entropy", FLAT, LABELS, scale=0.25), F.cross_entropy(FLAT / 4, LABELS))
    close(loss("mse", FLAT, FLAT * 2, scale=2.0), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 24), ("sum", 1), ("batchmean", 6)])
def test_mse(reduction: str, divisor: int) -> None:
    target = torch.randn(6, 2, 2)
    wanted = ((FLAT - target.double().view(6, 4)) ** 2).sum() / divisor
    close(loss("mse", FLAT, target, reduction=reduction), wanted)


@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 24), ("sum", 1), ("batchmean", 6)])
def test_binary_cross_entropy(reduction: str, divisor: int) -> None:
    target = torch.rand(6, 4)
    p, y = torch.sigmoid(FLAT), target.double()
    wanted = -(y * p.log() + (1 - y) * (1 - p).log()).sum() / divisor
    close(loss("binary_cross_entropy", FLAT, target, reduction=reduction), wanted)
    close(loss("binary_cross_entropy", p, target, reduction=reduction, logits=False), wanted)


@pytest.mark.parametrize(
    ("name", "target", "output", "width"),
    [
        ("cross_entropy", (), (10,), 10),
        ("cross_entropy", (7,), (7, 100), 100),
        ("cross_entropy", (8, 9), (21, 8, 9), 21),
        ("cross_entropy", ("T",), ("T", 100), 100),
        ("cross_entropy", (4,), (4, 4), 4),
        ("mse", (3, 4), (10,), 12),
        ("binary_cross_entropy", (), (1,), 1),
    ],
)
def test_width_of_a_head(name: str, target: Any, output: Any, width: int) -> None:
    width_of = LOSSES[name].width
    assert width_of is not None
    assert width_of(target, output) == width


def test_a_symbolic_width_is_refused() -> None:
    with pytest.raises(ValueError, match="symbolic"):
        Setting((3,), ("T",), (3,), LOSSES["mse"].width).outputs()


def test_a_blocks_input_is_a_constant() -> None:
    target = torch.randn(6, 2, 2).double().requires_grad_()
    prediction = FLAT.reshape(6, 2, 2).clone().requires_grad_()
    found = loss("recon_input", prediction, target)
    close(found.detach(), ((prediction - target) ** 2).detach().sum() / 24)
    found.backward()
    assert target.grad is None


# Metrics


def metric(name: str, prediction: Tensor, target: Tensor, **arguments: Any) -> float:
    return METRICS[name](Sight(prediction, prediction, target), options("cross_entropy", **arguments)).item()


def test_accuracy_counts_hits() -> None:
    right = float((FLAT.argmax(1) == LABELS).double().mean())
    assert metric("accuracy", FLAT, LABELS) == pytest.approx(right)
    assert metric("error", FLAT, LABELS) == pytest.approx(1 - right)
    assert metric("accuracy", MAP, PIXELS) == pytest.approx(float((MAP.argmax(1) == PIXELS).double().mean()))
    shifted = float((TOKENS[:, :-1].argmax(2) == WORDS[:, 1:]).double().mean())
    assert metric("accuracy", TOKENS, WORDS, shift=1) == pytest.approx(shifted)


def test_accuracy_leaves_out_what_does_not_count() -> None:
    counted = LABELS != 2
    right = float((FLAT.argmax(1) == LABELS)[counted].double().mean())
    assert metric("accuracy", FLAT, LABELS, ignore_index=2) == pytest.approx(right)


def test_top5_is_a_hit_among_five() -> None:
    scores, labels = torch.randn(50, 12), torch.randint(0, 12, (50,))
    ranks = (scores > scores.gather(1, labels[:, None])).sum(1)
    assert metric("top5", scores, labels) == pytest.approx(float((ranks < 5).double().mean()))
