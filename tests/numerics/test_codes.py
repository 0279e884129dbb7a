"""Is alternating minimisation of codes what was published? Trajectories against a loop by hand, in all its variants.

The loop is written from the released code's definition (Choromanska et al. 2019, `updateCodes`, `updateWeights`), and
for `experiments` from that of the authors' experiments: it shares nothing with the plan, nor with `verify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc

INPUTS, WIDTHS, CLASSES, BATCH, STEPS = 4, (6, 5), 3, 6, 3
Batch = dict[str, Tensor]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Method:
    """The settings of a variant; the weights of the codes' terms are those of the published formulas."""

    mu: float = 0.05
    grows: tuple[float, float] | None = None  # (d_mu, mult_mu): mu <- (mu + d_mu) * mult_mu after every batch
    rate: float = 0.02
    momentum: float = 0.9
    steps: int = 3
    anchor: bool = False
    shrink_codes: float = 0.0  # lambda_c / mu of the formula is this over mu
    shrink_weights: float = 0.0
    experiments: bool = False  # the hidden codes' terms carry a factor 1 / mu of their own
    norm: bool = False
    weight_steps: int = 1

    def mu_at(self, step: int) -> float:
        mu = self.mu
        for _ in range(step if self.grows else 0):
            mu = (mu + self.grows[0]) * self.grows[1] if self.grows else mu
        return mu

    def spec(self) -> str:
        law = f"grow({self.mu}, add={self.grows[0]}, factor={self.grows[1]})" if self.grows else f"{self.mu}"
        weight = "1.0" if self.experiments else law
        scale = f", scale={1 / self.mu!r}" if self.experiments else ", divide_by_weight=true"
        codes = f"steps={self.steps}, anchor={str(self.anchor).lower()}, l1={self.shrink_codes}, buffers=every{scale}"
        norm = "batch_norm, " if self.norm else ""
        momentum = f", momentum={self.momentum}, nesterov=true" if self.momentum else ""
        bias = "false" if self.norm else "true"
        layers = "".join(f"f{i}: linear({w}, bias={bias}), {norm}relu, " for i, w in enumerate(WIDTHS))
        return f"""
network: {{inputs: {{x: [{INPUTS}]}}, layers: [{layers}f2: linear({CLASSES})]}}
data: none
fields: {{y: {{shape: [], dtype: int64}}}}
loss: cross_entropy
decompose:
  blocks: per_layer
  at: preactivation
  links:
    "*": variable(penalty=squared(weight={weight}, reduction=mean), optimizer=sgd(lr={self.rate}{momentum}), {codes})
learn:
  - {{blocks: "*", loss: consistency(weight=1.0, l1={self.shrink_weights}), optimizer: adam(lr=0.01)}}
  - {{blocks: "*", steps: {self.weight_steps}}}
run: {{dtype: float64, epochs: 1}}
"""


@cache
def plan_of(method: Method) -> lpc.Plan:
    return lpc.build(method.spec())


def trainer(method: Method) -> lpc.Trainer:
    return lpc.Trainer(plan_of(method), device="cpu")


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    return [
        {
            "x": torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64),
            "y": torch.randint(0, CLASSES, (BATCH,), generator=generator),
        }
        for _ in range(STEPS)
    ]


class ByHand:
    """The released loop: weights, an Adam of each layer, and codes of the last batch."""

    def __init__(self, method: Method, state: State) -> None:
        self.method = method
        self.state = {n: t.detach().clone() for n, t in state.items() if t.is_floating_point()}
        self.layers = [
            {n: t.requires_grad_() for n, t in self.state.items() if self.layer(n) == i and "running" not in n}
            for i in range(3)
        ]
        self.adams = [torch.optim.Adam(list(own.values()), lr=0.01) for own in self.layers]
        self.codes: list[Tensor] = []
        self.step_count = 0

    @staticmethod
    def layer(name: str) -> int:
        module = name.split(".")[0]
        return int(module[-1]) - (1 if module.startswith("batch_norm") else 0)

    def made(self, index: int, below: Tensor) -> Tensor:
        """What a layer computes of the input, or of the code below."""
        a = below if index == 0 else below.relu()
        z = F.linear(a, self.state[f"f{index}.weight"], self.state.get(f"f{index}.bias"))
        if not self.method.norm or index == 2:
            return z
        scaled = (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()
        return scaled * self.state[f"batch_norm{index + 1}.weight"] + self.state[f"batch_norm{index + 1}.bias"]

    def step(self, batch: Batch) -> None:
        mu = self.method.mu_at(self.step_count)
        self.step_count += 1
        first = self.made(0, batch["x"]).detach()
        codes = [first, self.made(1, first).detach()]
        forward = list(codes)
        for index in (1, 0):
            codes[index] = self.solved(index, codes, forward[index], batch["y"], mu)
        self.codes = codes
        inputs, targets = [batch["x"], *codes], [*codes, batch["y"]]
        for index, adam in enumerate(self.adams):
            for _ in range(self.method.weight_steps):
                adam.zero_grad()
                made = self.made(index, inputs[index])
                if index == 2:
                    loss = F.cross_entropy(made, targets[index])
                else:
                    weights = [w for n, w in self.layers[index].items() if n.startswith("f") and w.dim() > 1]
                    loss = F.mse_loss(made, targets[index])
                    loss = loss + self.method.shrink_weights * sum(w.abs().mean() for w in weights)
                loss.backward()
                adam.step()

    def solved(self, index: int, codes: list[Tensor], before: Tensor, y: Tensor, mu: float) -> Tensor:
        method = self.method
        code = codes[index].clone().requires_grad_()
        velocity = None
        for _ in range(method.steps):
            above = self.made(index + 1, code)
            objective = F.cross_entropy(above, y) / mu if index == 1 else F.mse_loss(above, codes[1])
            objective = objective / mu if method.experiments and index == 0 else objective
            if method.anchor:
                objective = objective + F.mse_loss(code, before)
            objective = objective + method.shrink_codes / mu * code.abs().mean()
            (slope,) = torch.autograd.grad(objective, [code])
            velocity = slope if velocity is None else method.momentum * velocity + slope
            with torch.no_grad():
                code -= method.rate * (slope + method.momentum * velocity)
        return code.detach()


VARIANTS = {
    "released": Method(),
    "anchored": Method(anchor=True),
    "l1": Method(shrink_codes=0.01, shrink_weights=0.02),
    "mu grows": Method(grows=(0.01, 1.5), steps=2),
    "norms": Method(norm=True),
    "experiments": Method(experiments=True, momentum=0.0, steps=1),
    "several weight steps": Method(weight_steps=3),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_codes_and_weights_follow_the_published_loop(name: str) -> None:
    """Three batches; A5 is `anchored` beside `released`: the anchor pulls, or its gradient is exactly zero."""
    method = VARIANTS[name]
    run = trainer(method)
    hand = ByHand(method, run.state_dict())
    for batch in batches():
        run.step(batch)
        hand.step(batch)
        for found, wanted in zip(run.variables().values(), hand.codes, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)
        state = run.state_dict()
        for own in hand.layers:
            for parameter, wanted in own.items():
                # Adam's first steps are the gradient's sign where it is nothing but rounding
                torch.testing.assert_close(state[parameter], wanted.detach(), rtol=1e-9, atol=1e-8)


def test_an_anchor_pulls_once_a_code_has_moved() -> None:
    """A5: one step from the forward value is the same with it; further steps are not."""
    for steps, same in ((1, True), (3, False)):
        found = []
        for anchor in (False, True):
            run = trainer(Method(steps=steps, anchor=anchor))
            run.step(batches()[0])
            found.append(list(run.variables().values()))
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True)) == same


def test_mu_and_the_codes_rate_share_a_scale() -> None:
    """A9, one step: (mu, lr) -> (k mu, k lr) leaves the last code, and multiplies the moves below by k per layer."""
    moves, factor = [], 3.0
    for k in (1.0, factor):
        run = trainer(Method(mu=0.05 * k, rate=0.02 * k, steps=1))
        hand = ByHand(Method(), run.state_dict())
        first = hand.made(0, batches()[0]["x"]).detach()
        forward = [first, hand.made(1, first).detach()]
        run.step(batches()[0])
        moves.append([c - f for c, f in zip(run.variables().values(), forward, strict=True)])
    torch.testing.assert_close(moves[1][1], moves[0][1], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(moves[1][0], factor * moves[0][0], rtol=1e-7, atol=1e-15)


def test_with_adam_the_first_layer_follows_backpropagation() -> None:
    """A3: one code step scales its gradients by a constant, which Adam does not see."""
    method = Method(steps=1)
    spec = method.spec().replace("adam(lr=0.01)", "adam(lr=0.01, eps=1e-300)")
    run = lpc.Trainer(lpc.build(spec), device="cpu")
    hand = ByHand(method, run.state_dict())
    weight = hand.state["f0.weight"].detach().clone()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for t, batch in enumerate(batches(), 1):
        hand.state |= {n: v.clone().requires_grad_() for n, v in run.state_dict().items()}
        logits = hand.made(2, hand.made(1, hand.made(0, batch["x"])))
        (slope,) = torch.autograd.grad(F.cross_entropy(logits, batch["y"]), hand.state["f0.weight"])
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        weight = weight - 0.01 * (mean / (1 - 0.9**t)) / (square / (1 - 0.999**t)).sqrt()
        run.step(batch)
        alive = square.sqrt() > 1e-6
        torch.testing.assert_close(run.state_dict()["f0.weight"][alive], weight[alive], rtol=1e-6, atol=1e-8)
