"""Is contrastive learning of a LocalMixer what its definition says? Ren et al. 2023, equation 6 and section 5.2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc

State = Mapping[str, Tensor]
TEMPERATURE = 0.5
SAMPLES = 5


def spec(**more: Any) -> dict[str, Any]:
    """LG-BP: each block contrasts two views of its projected features; the readout learns from detached ones."""
    args = {"image": [3, 4, 4], "side": 2, "blocks": 2, "channels": 8, "groups": 2, "classes": 3}
    loss = f"nt_xent(temperature={TEMPERATURE}, keys=detached, reduction=pairs)"
    return {
        "network": {"zoo": "localmixer", "args": args},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"*": 'each("blocks.*")', "readout": "readout"}, "links": "stop"},
        "learn": [
            {"blocks": "blocks.*", "head": "linear(pool=patches, norm=last, out=6)", "loss": loss},
            {"blocks": "*", "optimizer": 'module("pytorch_optimizer:LARS", lr=0.1, weight_decay=1e-4)'},
            {"params": "*.bias", "weight_decay": 0},
            {"params": "heads.*", "weight_decay": 0},
            {"params": "readout.*", "weight_decay": 0, "lr_factor": 0.1},
        ],
        "run": {"dtype": "float64", "target": "cpu"},
        **more,
    }


# By hand: patches as a loop, norms and groups written out


def norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def dense(p: State, name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def grouped(p: State, name: str, x: Tensor) -> Tensor:
    """[..., channels] -> [..., groups, channels of a group], normalised before and after."""
    parts = x.unflatten(-1, (2, 4))
    made = [norm(parts[..., g, :]) @ p[f"{name}.weight"][g].T + p[f"{name}.bias"][g] for g in range(2)]
    return torch.stack([norm(m) for m in made], -2)


def first(p: State, image: Tensor) -> Tensor:
    patches = [image[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] for i in range(2) for j in range(2)]
    x = torch.stack([patch.permute(0, 2, 3, 1).flatten(1) for patch in patches], 1)
    return F.relu(grouped(p, "blocks.0.group_fc", F.relu(norm(dense(p, "blocks.0.fc", norm(x))))))


def second(p: State, x: Tensor) -> Tensor:
    h = dense(p, "blocks.1.token", norm(x.flatten(2)).mT).mT
    h = F.relu(norm(dense(p, "blocks.1.fc", norm(F.relu(norm(h))))))
    return F.relu(grouped(p, "blocks.1.group_fc", h) + x)


def contrast(a: Tensor) -> tuple[float, Tensor]:
    """The loss of all rows' views, and its gradient by the published formula r / N; keys are constants."""
    size, unit = len(a), [row / row.norm() for row in a]
    total, gradient = 0.0, torch.zeros_like(a)
    for i, anchor in enumerate(unit):
        partner = (i + size // 2) % size
        odds = {j: math.exp(float(anchor @ unit[j]) / TEMPERATURE) for j in range(size) if j != i}
        total -= math.log(odds[partner] / sum(odds.values())) / (size / 2)
        q = sum(((o / sum(odds.values()) - (j == partner)) * unit[j] for j, o in odds.items()), torch.zeros(6))
        r = (q - anchor * (anchor @ q)) / TEMPERATURE / a[i].norm()
        gradient[i] = r / (size / 2)
    return total, gradient


def by_hand(state: State, batch: Mapping[str, Tensor]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Losses by block, and gradients by name."""
    p = {name: w.clone().requires_grad_() for name, w in state.items()}
    losses, gradients, x = {}, {}, batch["image"]
    for index, block in enumerate((first, second)):
        x = block(p, x)
        own = [n for n in p if n.startswith((f"blocks.{index}.", f"heads.blocks.{index}."))]
        a = dense(p, f"heads.blocks.{index}", norm(x).mean(1).flatten(1))
        losses[f"blocks.{index}"], cotangent = contrast(a.detach())
        gradients |= dict(zip(own, torch.autograd.grad(a, [p[n] for n in own], cotangent), strict=True))
        x = x.detach()
    scores = dense(p, "readout.fc", norm(x.mean(1).flatten(1)))
    loss = F.cross_entropy(scores, batch["label"])
    names = ["readout.fc.weight", "readout.fc.bias"]
    gradients |= dict(zip(names, torch.autograd.grad(loss, [p[n] for n in names]), strict=True))
    return losses | {"readout": loss.item()}, gradients


def test_two_views_through_local_heads(built: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 2, 1, 1, 0])
    batch = {
        "image": torch.randn(2 * SAMPLES, 3, 4, 4, generator=generator, dtype=torch.float64),
        "label": torch.cat([labels, labels]),
    }
    t = lpc.Trainer(built(spec()), device="cpu")
    losses, gradients = by_hand(t.state_dict(), batch)
    found = t.gradients(batch)
    assert set(found) == set(gradients)
    for name, wanted in gradients.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-9, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")
    metrics = t.step(batch)
    for block, value in losses.items():
        assert abs(float(metrics[f"{block}.loss"]) - value) < 1e-12 * abs(value), block


def test_a_readout_of_contrasted_features_learns_digits() -> None:
    """Two random crops of each sample; no block sees a label. With the blocks as they begin it reads 60 % right."""
    args = {"image": [1, 8, 8], "side": 1, "blocks": 2, "channels": 64, "groups": 4, "classes": 10}
    data = {"source": "digits", "batch": 128, "views": 2, "transforms": ["crop(8, padding=1)"]}
    learn = [
        *spec()["learn"],
        {"blocks": "blocks.*", "optimizer": 'module("pytorch_optimizer:LARS", lr=1.0, trust_coefficient=0.02)'},
        {"blocks": "readout", "optimizer": "adam(lr=0.1)"},  # with its factor 0.01
    ]
    said = spec(network={"zoo": "localmixer", "args": args}, data=data, learn=learn,
                run={"epochs": 10, "target": "cpu", "validate": "none", "log": "none"})  # fmt: skip
    del said["fields"]
    t = lpc.Trainer(lpc.build(said), device="cpu")
    before = t.evaluate()
    t.fit()
    after = t.evaluate()
    for block in ("blocks.0", "blocks.1"):
        assert after[f"{block}.loss"] < 0.95 * before[f"{block}.loss"]
    assert after["readout.accuracy"] > 0.66


def perturbed(**options: Any) -> dict[str, Any]:
    """LG-FG-A of the same losses, one for each patch and group."""
    said = spec()
    said["decompose"] |= {"units": {"patches": "auto", "groups": 2}}
    estimator = {"forward": {"site": "after_norm", **options}}
    said["learn"].append({"blocks": "blocks.*", "aggregate": "replicated", "estimator": estimator})
    return said


def two_views() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2 * SAMPLES, 3, 4, 4, generator=generator, dtype=torch.float64)
    return {"image": image, "label": torch.arange(2 * SAMPLES) % SAMPLES % 3}


def test_estimates_of_views_that_share_noise_are_unbiased(hand: Any, built: Any) -> None:
    """Each view earns from its own loss alone, whose keys are constants: that another one moves does not matter."""
    plan, exact = built(perturbed(noise="views")), lpc.Trainer(built(spec()), device="cpu")
    t, batch = lpc.Trainer(plan, device="cpu"), two_views()
    exact.load_state_dict(t.state_dict())
    found, wanted = hand.expectation(plan, t, batch), exact.gradients(batch)
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12 * largest, msg=name)
    assert lpc.verify(plan).ok


def test_the_second_view_sees_the_noise_of_the_first(built: Any) -> None:
    batch, generator = two_views(), torch.Generator().manual_seed(2)
    plan = built(perturbed(noise="views"))
    t, sites = lpc.Trainer(plan, device="cpu"), plan.data.program.noise
    shapes = {site: [2 * SAMPLES, *map(int, n.type.shape[1:])] for site, n in sites.items()}
    drawn = {site: torch.randn(s, generator=generator, dtype=torch.float64) for site, s in shapes.items()}
    alike = {site: torch.cat([u[:SAMPLES], u[:SAMPLES]]) for site, u in drawn.items()}
    swapped = {site: torch.cat([u[SAMPLES:], u[:SAMPLES]]) for site, u in drawn.items()}
    found = [t.gradients(batch, noise=u)["blocks.0.fc.weight"] for u in (drawn, alike, swapped)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"noise": "views", "perturb": "weight"}, "draws one direction for the whole batch"),
        ({"noise": "independent", "perturb": "weight"}, "draws one direction for the whole batch"),
        ({"noise": "views"}, "`data.views` is 1"),
    ],
)
def test_noise_that_cannot_be_shared_is_refused(options: dict[str, str], text: str) -> None:
    said = perturbed(**options) | {"data": {"source": "digits", "batch": 4}, "fields": {}}
    said["run"]["epochs"] = 1
    said["network"]["args"] |= {"image": [1, 8, 8], "classes": 10}
    with pytest.raises(lpc.LpcError, match="LPC0420") as caught:
        lpc.build(said)
    assert text in str(caught.value)
