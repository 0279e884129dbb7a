"""Do the local losses equal their formulas? Each against one written differently, in value and gradient."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lpc.compiler.heads import HEADS
from lpc.compiler.losses import LOSSES, Sight
from lpc.compiler.losses.goodness import SIDES, Peer
from lpc.compiler.setting import Setting
from lpc.specs.signatures import LOSSES as SIGNATURES
from lpc.specs.term import Term

Formula = Callable[[Tensor, Tensor], Tensor]
CLASSES = 4


def loss(name: str, feature: Tensor, target: Tensor, **arguments: Any) -> Callable[[Tensor], Tensor]:
    """The loss as a function of what it reads."""
    options = SIGNATURES[name].bind(Term(name, (), arguments))
    made = LOSSES[name].make(options, Setting(feature.shape[1:], target.shape[1:], (CLASSES,)))
    made = made.double() if isinstance(made, nn.Module) else made
    return lambda x: made(Sight(x, x, target))


def agree(found: Callable[[Tensor], Tensor], wanted: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """The same value and the same gradient."""
    results = []
    for function in (found, wanted):
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        assert value.shape == ()
        results.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-11, atol=1e-12)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(batch: int, count: int = CLASSES, seed: int = 1) -> Tensor:
    return torch.randint(0, count, (batch,), generator=torch.Generator().manual_seed(seed))


# Forward-Forward


def goodness_by_hand(x: Tensor, positive: Tensor, mean: bool, threshold: float) -> Tensor:
    total = 0.0 * x.sum()
    for row, mark in zip(x, positive, strict=True):
        g = sum(v * v for v in row.flatten()) / (row.numel() if mean else 1)
        p = 1 / (1 + torch.exp(threshold - g))
        total = total - (torch.log(p) if mark else torch.log(1 - p))
    return total / len(x)


@pytest.mark.parametrize("name", ["ff_bce", "ff_softplus"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 2)])
def test_goodness(name: str, shape: tuple[int, ...]) -> None:
    x, positive = 0.7 * numbers(6, *shape), torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.bool)
    width = math.prod(shape)
    summed = loss(name, x, positive, goodness="sum", threshold="width")
    agree(summed, lambda x: goodness_by_hand(x, positive, False, width), x)
    meant = loss(name, x, positive.float(), goodness="mean", threshold=0.5)
    agree(meant, lambda x: goodness_by_hand(x, positive, True, 0.5), x)


def test_accuracy_of_goodness_is_the_share_on_the_right_side() -> None:
    x, positive = torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    options = SIGNATURES["ff_bce"].bind(Term("ff_bce"))
    sight = Sight(x, x, positive)
    assert SIDES["accuracy"](sight, options) == 0.5
    assert SIDES["error"](sight, options) == 0.5


def test_peer_term_keeps_a_running_mean() -> None:
    peer = Peer(3, 0.9, 0.5).double()
    x, positive = numbers(4, 3).abs(), torch.tensor([True, False, True, False])
    means = 0.45 + 0.1 * (x[0] + x[2]) / 2
    value = peer(Sight(x, x, positive))
    torch.testing.assert_close(value, means.var(unbiased=False))
    torch.testing.assert_close(peer.mean, means)
    peer.eval()
    peer(Sight(x, x, positive))
    torch.testing.assert_close(peer.mean, means)
    peer.train()
    peer(Sight(x, x, positive & False))
    torch.testing.assert_close(peer.mean, means)


def test_peer_gradient_passes_through_the_batch() -> None:
    x, positive = numbers(5, 4), torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    agree(
        loss("peer", x, positive, momentum=0.7, init=0.2),
        lambda x: (0.7 * 0.2 + 0.3 * x[[0, 1, 3]].mean(0)).var(unbiased=False),
        x,
    )


def test_cwc_on_energies() -> None:
    x, y = numbers(6, CLASSES).square(), labels(6)
    agree(loss("cwc", x, y), lambda x: -F.log_softmax(x, 1)[range(6), y].mean(), x)
    plain = lambda x: -torch.log((x[range(6), y].exp() + 1e-3) / (x.exp().sum(1) + 1e-3)).mean()  # noqa: E731
    agree(loss("cwc", x, y, eps=1e-3), plain, x)
    huge = torch.full((2, CLASSES), 1e4, dtype=torch.float64)
    assert torch.isfinite(loss("cwc", huge, labels(2), eps=1e-9)(huge))


# Similarity


def similarity_by_hand(x: Tensor) -> Tensor:
    if x.dim() == 4 and x.shape[1] > 3 and x.shape[2] > 1:
        x = torch.stack([torch.stack([c.flatten().std() for c in sample]) for sample in x])
    rows = [row.flatten() - row.flatten().mean() for row in x]
    cosines = [torch.dot(a, b) / ((a.norm() + 1e-8) * (b.norm() + 1e-8)) for a in rows for b in rows]
    return torch.stack(cosines).view(len(rows), len(rows)).clamp(-1, 1)


@settings(deadline=None, max_examples=20)
@given(
    batch=st.integers(2, 5),
    shape=st.sampled_from([(2,), (6,), (3, 4), (3, 2, 3), (4, 2, 2), (5, 1, 4), (4, 3, 1)]),
    seed=st.integers(0, 99),
)
def test_sim(batch: int, shape: tuple[int, ...], seed: int) -> None:
    x, y = numbers(batch, *shape, seed=seed), labels(batch, seed=seed)
    onehot = torch.eye(CLASSES, dtype=torch.float64)[y]
    agree(loss("sim", x, y), lambda x: (similarity_by_hand(x) - similarity_by_hand(onehot)).square().mean(), x)
    source = numbers(batch, 7, seed=seed + 1)
    agree(
        loss("sim_x", x, source),
        lambda x: (similarity_by_hand(x) - similarity_by_hand(source)).square().mean(),
        x,
    )


def test_sim_x_is_not_differentiated_in_its_input() -> None:
    x, source = numbers(3, 4), numbers(3, 5).requires_grad_()
    assert torch.autograd.grad(loss("sim_x", x, source)(x.requires_grad_()), source, allow_unused=True)[0] is None


# Reconstruction


def test_recon() -> None:
    x, image = numbers(3, 2, 4, 4), torch.rand(3, 2, 4, 4, dtype=torch.float64)
    p = torch.sigmoid
    wanted = lambda x: -(image * p(x).log() + (1 - image) * (1 - p(x)).log()).mean()  # noqa: E731
    agree(loss("recon", x, image), wanted, x)
    normalised = torch.stack([(image[:, 0] - 0.1) / 0.5, (image[:, 1] - 0.3) / 0.5], 1)
    agree(loss("recon", x, normalised, mean=[0.1, 0.3], std=0.5), wanted, x)
    agree(loss("recon", x, image, distance="mse"), lambda x: ((x - image) ** 2).sum() / x.numel(), x)
    with pytest.raises(ValueError, match="2 channels"):
        loss("recon", x, image, mean=[0.0, 0.0, 0.0])(x)


# Contrastive


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm())


def nt_xent_by_hand(x: Tensor, temperature: float) -> Tensor:
    half, total = len(x) // 2, 0.0 * x.sum()
    for i in range(len(x)):
        partner = i + half if i < half else i - half
        others = [torch.exp(cosine(x[i], x[j]) / temperature) for j in range(len(x)) if j != i]
        total = total - torch.log(torch.exp(cosine(x[i], x[partner]) / temperature) / torch.stack(others).sum())
    return total / len(x)


@settings(deadline=None, max_examples=15)
@given(
    half=st.integers(1, 4), width=st.integers(1, 5), temperature=st.sampled_from([0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_nt_xent(half: int, width: int, temperature: float, seed: int) -> None:
    x = numbers(2 * half, width, seed=seed)
    agree(loss("nt_xent", x, x, temperature=temperature), lambda x: nt_xent_by_hand(x, temperature), x)


@pytest.mark.parametrize(("reduction", "factor"), [("mean", 1.0), ("sum", 6.0), ("pairs", 2.0)])
def test_nt_xent_reductions(reduction: str, factor: float) -> None:
    x = numbers(6, 4)
    agree(loss("nt_xent", x, x, temperature=0.5, reduction=reduction), lambda x: factor * nt_xent_by_hand(x, 0.5), x)


def test_detached_keys_of_nt_xent() -> None:
    """Of an anchor a the gradient is (q - a (a . q)) / |a|, q the mean key less its partner (Ren et al. 2023)."""
    x, temperature = numbers(6, 4).requires_grad_(), 0.5
    value = loss("nt_xent", x, x, temperature=temperature, keys="detached", reduction="pairs")(x)
    torch.testing.assert_close(value, 2 * nt_xent_by_hand(x.detach(), temperature), rtol=1e-12, atol=0)
    (found,) = torch.autograd.grad(value, x)
    rows = [row / row.norm() for row in x.detach()]
    for i, a in enumerate(rows):
        others = [j for j in range(6) if j != i]
        odds = [math.exp(float(a @ rows[j]) / temperature) for j in others]
        mean = sum(o * rows[j] for o, j in zip(odds, others, strict=True)) / sum(odds)
        q = (mean - rows[(i + 3) % 6]) / temperature
        wanted = (q - a * (a @ q)) / x[i].detach().norm() / 3
        torch.testing.assert_close(found[i], wanted, rtol=1e-11, atol=1e-13)


def test_an_odd_batch_has_no_two_views() -> None:
    x = numbers(5, 3)
    assert loss("nt_xent", x, x)(x) == math.inf


def supcon_by_hand(x: Tensor, y: Tensor, temperature: float, base: float) -> Tensor:
    total = 0.0 * x.sum()
    for i in range(len(x)):
        others = torch.stack([torch.exp(cosine(x[i], x[j]) / temperature) for j in range(len(x)) if j != i]).sum()
        own = [j for j in range(len(x)) if j != i and y[j] == y[i]]
        for j in own:
            total = total - torch.log(torch.exp(cosine(x[i], x[j]) / temperature) / others) / len(own)
    return temperature / base * total / len(x)


@settings(deadline=None, max_examples=15)
@given(batch=st.integers(2, 6), width=st.integers(2, 4), classes=st.integers(1, 4), seed=st.integers(0, 99))
def test_supcon(batch: int, width: int, classes: int, seed: int) -> None:
    x, y = numbers(batch, width, seed=seed), labels(batch, classes, seed)
    agree(loss("supcon", x, y, temperature=0.3), lambda x: supcon_by_hand(x, y, 0.3, 0.07), x)


def infonce_by_hand(x: Tensor, uniform: list[Tensor], skip: int, eps: float, within: str) -> Tensor:
    batch, steps, _, rows, columns = x.shape
    losses = []
    for k in range(1, steps):
        first, total = k + skip, 0.0 * x.sum()
        grid = [(r, c, b) for r in range(first, rows) for c in range(columns) for b in range(batch)]
        for place, (r, c, b) in enumerate(grid):
            context = x[b, 0, :, r - first, c]
            candidates = grid if within == "batch" else [g for g in grid if g[2] == b]
            picked = [candidates[int(u * len(candidates))] for u in uniform[k - 1][place]]
            scores = [torch.dot(context, x[j, k, :, i, d]) for i, d, j in [(r, c, b), *picked]]
            total = total - torch.log(torch.stack(scores).softmax(0)[0] + eps)
        losses.append(total / len(grid))
    return torch.stack(losses).mean()


@settings(deadline=None, max_examples=15)
@given(
    batch=st.integers(1, 3), steps=st.integers(1, 2), skip=st.integers(0, 1), rows=st.integers(4, 5),
    columns=st.integers(1, 2), negatives=st.integers(1, 3), within=st.sampled_from(["batch", "sample"]),
    eps=st.sampled_from([0.0, 1e-3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_infonce(
    batch: int, steps: int, skip: int, rows: int, columns: int, negatives: int, within: str, eps: float, seed: int
) -> None:
    x = numbers(batch, 1 + steps, 3, rows, columns, seed=seed)
    sizes = [(rows - k - skip) * columns * batch for k in range(1, steps + 1)]
    torch.manual_seed(seed)
    uniform = [torch.rand(size, negatives) for size in sizes]

    def found(x: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return loss("infonce", x, x, negatives=negatives, skip=skip, within=within, eps=eps)(x)

    agree(found, lambda x: infonce_by_hand(x, uniform, skip, eps, within), x)


def test_too_many_steps_are_refused() -> None:
    x = numbers(2, 4, 3, 4, 2)
    with pytest.raises(ValueError, match="3 steps"):
        loss("infonce", x, x, skip=1)(x)


# The table


def test_every_loss_of_the_language_has_one_implementation() -> None:
    assert list(LOSSES) == list(SIGNATURES)


@pytest.mark.parametrize("name", LOSSES)
def test_what_the_language_says_of_a_loss_is_what_it_is(name: str) -> None:
    kind, signature = LOSSES[name], SIGNATURES[name]
    assert kind.separable == (signature.parameter("split") is None)
    assert (kind.reads in ("field", "image")) == (signature.parameter("target") is not None)
    head = signature.parameter("head")
    assert kind.heads == (head is not None and head.default is None)


def test_the_reference_page_says_what_the_table_says() -> None:
    """Formula and source of every loss, and a star where it couples the samples of a batch."""
    page = (Path(__file__).parents[2] / "docs" / "language.md").read_text("utf-8")
    rows = {m[1]: m.groups() for m in re.finditer(r"^\| `(\w+)`( \*)? \| (.*?) \| (.*?) ?\|$", page, re.MULTILINE)}
    for name, kind in LOSSES.items():
        _, star, formula, source = rows[name]
        assert (star is None, formula) == (kind.separable, kind.formula)
        assert source == kind.source.partition(",")[0]
    assert all(f"`{name}" in page for name in HEADS)


@settings(deadline=None, max_examples=10)
@given(
    name=st.sampled_from(sorted(n for n, k in LOSSES.items() if k.separable and k.reads != "variable")),
    seed=st.integers(0, 99),
)
def test_separable_losses_are_means_over_parts(name: str, seed: int) -> None:
    x = numbers(4, CLASSES, seed=seed)
    near, share = x + 1, x.sigmoid()
    known = {"mse": near, "recon_input": near, "inverse": near, "recon": share, "binary_cross_entropy": share}
    y = known.get(name, labels(4, 2))
    whole = loss(name, x, y)(x)
    parts = [loss(name, x[rows], y[rows])(x[rows]) for rows in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(whole, torch.stack(parts).mean())
