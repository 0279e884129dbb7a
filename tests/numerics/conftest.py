"""How is a plan compared with PyTorch? A training loop written by hand, with nothing of lpc but its initial weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc

NETWORKS = Path(__file__).with_name("sample_networks.py")
TOLERANCE = 1e-12  # of a tensor's largest value

State = dict[str, Tensor]
Batch = Mapping[str, Tensor]

# word -> the spec's term, and the same optimizer of torch, one plain loop over tensors. Adam's `eps` is not its usual
# 1e-8: a key's bias before a softmax has no gradient but rounding, which Adam divides by nothing but `eps`.
OPTIMIZERS: dict[str, tuple[str, Callable[..., torch.optim.Optimizer]]] = {
    "sgd": ("sgd(lr=0.05, momentum=0.9)", partial(torch.optim.SGD, lr=0.05, momentum=0.9, foreach=False)),
    "adam": ("adam(lr=0.002, eps=1e-5)", partial(torch.optim.Adam, lr=0.002, eps=1e-5, foreach=False)),
    "adamw": (
        "adamw(lr=0.01, weight_decay=0.3)",
        partial(torch.optim.AdamW, lr=0.01, weight_decay=0.3, foreach=False),
    ),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread, so that sums are taken in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Mode:
    """How a hand-written forward runs: the link on each boundary, in training or not, with which masks."""

    links: Mapping[str, str] = field(default_factory=dict)
    training: bool = True
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def cut(self, boundary: str, x: Tensor) -> Tensor:
        return x.detach() if self.links.get(boundary, self.links.get("*")) == "stop" else x

    def drop(self, site: str, x: Tensor, p: float) -> Tensor:
        return x * self.masks[site] / (1.0 - p) if self.training else x


Forward = Callable[[State, Batch, Mode], dict[str, Tensor]]


@dataclass(frozen=True)
class Method:
    """How a network learns: the link on each boundary, and the blocks with a loss of their own."""

    links: Mapping[str, str]
    local: tuple[str, ...] | None = None  # None: every block

    def learns(self, block: str) -> bool:
        return self.local is None or block in self.local


METHODS = {
    "bp": Method({"*": "gradient"}, ()),
    "l_bp": Method({"*": "gradient"}),
    "lg_bp": Method({"*": "stop"}),
}


@dataclass
class Net:
    """A network as a spec and as code of its own.

    `blocks` maps each block to the prefixes of its parameters' names, the last one owning the output; `forward`
    returns what each block's head reads. `modules` are the selectors of blocks where they are not the prefixes.
    """

    network: dict[str, Any]
    blocks: dict[str, tuple[str, ...]]
    forward: Forward
    shape: tuple[int, ...]
    field: str = "x"
    classes: int = 5
    modules: dict[str, tuple[str, ...]] | None = None

    def spec(self, method: Method, optimizers: Sequence[str], **more: Any) -> dict[str, Any]:
        """Return the spec; blocks take the optimizers in turn."""
        names, last = list(self.blocks), list(self.blocks)[-1]
        learn: list[dict[str, Any]] = [{"blocks": "*", "loss": "none"}]
        for index, name in enumerate(names):
            rule = {"blocks": name, "optimizer": OPTIMIZERS[optimizers[index % len(optimizers)]][0]}
            if name != last and method.learns(name):
                rule |= {"head": "linear", "loss": "cross_entropy"}
            learn.append(rule)
        return {
            "network": self.network,
            "data": None,
            "fields": {"label": {"shape": [], "dtype": "int64"}},
            "loss": "cross_entropy",
            "decompose": {
                "blocks": {b: list(s) for b, s in (self.modules or self.blocks).items()},
                "links": dict(method.links),
                **more.pop("decompose", {}),
            },
            "learn": [*learn, *more.pop("learn", [])],
            "run": {"dtype": "float64", "target": "cpu", **more.pop("run", {})},
        }

    def trainer(self, spec: dict[str, Any]) -> lpc.Trainer:
        return lpc.Trainer(lpc.build(spec, allow=[str(NETWORKS)]), device="cpu")

    def batches(self, sizes: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Batch]:
        generator = torch.Generator().manual_seed(seed)
        return [
            {
                self.field: torch.randn(size, *self.shape, generator=generator, dtype=dtype),
                "label": torch.randint(0, self.classes, (size,), generator=generator),
            }
            for size in sizes
        ]


@dataclass
class Loop:
    """A training loop by hand: one forward, the sum of the losses, one backward, a step for every block."""

    net: Net
    method: Method
    optimizers: Sequence[str]
    state: State
    clip: float | None = None
    clip_all: float | None = None
    rules: Callable[[str], dict[str, float]] = lambda name: {}
    steppers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = {n: t.detach().clone() for n, t in self.state.items()}
        for tensor in self.parameters().values():
            tensor.requires_grad_()
        for index, block in enumerate(self.net.blocks):
            make = OPTIMIZERS[self.optimizers[index % len(self.optimizers)]][1]
            self.steppers[block] = make([{"params": [t], **self.rules(n)} for n, t in self.owned(block).items()])

    def parameters(self) -> State:
        return {n: t for n, t in self.state.items() if "running_" not in n and "num_batches" not in n}

    def owned(self, block: str) -> State:
        prefixes = tuple(f"{p}." for p in (*self.net.blocks[block], f"heads.{block}"))
        return {n: t for n, t in self.parameters().items() if n.startswith(prefixes)}

    def losses(self, batch: Batch, mode: Mode) -> dict[str, Tensor]:
        features, found = self.net.forward(self.state, batch, mode), {}
        last = list(self.net.blocks)[-1]
        for block, feature in features.items():
            if block == last:
                found[block] = F.cross_entropy(feature, batch["label"])
            elif self.method.learns(block):
                weight, bias = self.state[f"heads.{block}.weight"], self.state[f"heads.{block}.bias"]
                found[block] = F.cross_entropy(F.linear(feature.flatten(1), weight, bias), batch["label"])
        return found

    def backward(self, *batches: Batch, masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Fill in every `grad`: the mean over the batches. Returns the last batch's losses."""
        losses: dict[str, Tensor] = {}
        for batch in batches:
            losses = self.losses(batch, Mode(self.method.links, True, masks or {}))
            (sum(losses.values(), torch.zeros(())) / len(batches)).backward()
        if self.clip_all is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters().values(), self.clip_all)
        for block in self.net.blocks if self.clip is not None else ():
            torch.nn.utils.clip_grad_norm_(self.owned(block).values(), self.clip)
        return {block: value.detach() for block, value in losses.items()}

    def step(self, *batches: Batch) -> dict[str, Tensor]:
        losses = self.backward(*batches)
        for stepper in self.steppers.values():
            stepper.step()
            stepper.zero_grad()
        return losses

    def gradients(self) -> State:
        return {n: t.grad for n, t in self.parameters().items() if t.grad is not None}

    def evaluated(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's output and every block's loss, in evaluation."""
        with torch.no_grad():
            features = self.net.forward(self.state, batch, Mode(training=False))
            return features[list(features)[-1]], self.losses(batch, Mode(training=False))


def same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float = TOLERANCE) -> None:
    """All names, and every tensor to `tolerance` of its largest value."""
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].shape == tensor.shape, name
        assert found[name].dtype == tensor.dtype, name
        error = (found[name] - tensor).abs().max().item()
        assert error <= tolerance * tensor.abs().max().item(), f"{name}: {error}"


def same_losses(
    metrics: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> None:
    same({n.removesuffix(".loss"): v for n, v in metrics.items() if n.endswith(".loss")}, wanted, tolerance)


def expectation(plan: lpc.Plan, t: lpc.Trainer, batch: Batch, fixed: Batch | None = None) -> State:
    """What the estimates of all gradients are on average, without sampling.

    An estimate is quadratic in its noise, whose elements have mean 0, variance 1 and are independent: its mean is the
    sum of the estimates for all unit vectors. Samples do not share noise, so all of them take the same one at once.
    `fixed` are masks.
    """
    masks, size = dict(fixed or {}), next(iter(batch.values())).shape[0]
    law = {site: n for site, n in plan.data.program.noise.items() if site not in masks}
    still = {site: torch.zeros([size if a == "B" else a for a in n.type.shape]).double() for site, n in law.items()}
    resting = t.gradients(batch, noise={**masks, **still})
    total = {name: gradient.clone() for name, gradient in resting.items()}
    for site, noise in still.items():
        sampled = law[site].type.shape[:1] == ("B",)
        for index in range(noise[0].numel() if sampled else noise.numel()):
            unit = torch.zeros_like(noise)
            (unit.flatten(1)[:, index] if sampled else unit.view(-1)[index]).fill_(1.0)
            for name, gradient in t.gradients(batch, noise={**masks, **still, site: unit}).items():
                total[name] += gradient - resting[name]
    return total


class Tools:
    """What tests of numbers share: importlib mode gives them no way to import this file."""

    Loop, Method, Mode, Net = Loop, Method, Mode, Net
    methods, networks, optimizers = METHODS, NETWORKS, OPTIMIZERS
    same, same_losses = staticmethod(same), staticmethod(same_losses)
    expectation = staticmethod(expectation)


@pytest.fixture(scope="session")
def hand() -> type[Tools]:
    """The hand-written side: `Net`, `Loop`, and the comparison `same`."""
    return Tools
