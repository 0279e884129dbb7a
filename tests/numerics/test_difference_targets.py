"""Does `target(rule=difference)` do difference target propagation (arXiv 1412.7525)? The definition, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lpc

Array = NDArray[np.float64]
State = dict[str, Array]

STEP, NOISE, RATE = 30.0, 0.3, 0.02
LEARN: dict[str, Any] = {
    "blocks": "*", "loss": ["distance", f"inverse(noise={NOISE}, head=back_map(sign=true))"],
    "reduction": "batchmean", "optimizer": f"sgd(lr={RATE})",
}  # fmt: skip
LINK = f"target(rule=difference, step={STEP})"


def spec(layers: list[Any], blocks: Any, learn: list[dict[str, Any]], links: Any = LINK, **more: Any) -> dict[str, Any]:
    return {
        "network": {"inputs": {"x": {"shape": more.pop("shape", [6]), "dtype": "float64"}}, "layers": layers},
        "fields": {"y": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": blocks, "links": links},
        "learn": learn,
        "run": {"dtype": "float64", "target": "cpu"},
    } | more


# Layers talk in signs, as in the paper's discrete network; b3 hears numbers.
LAYERS: list[Any] = [
    {"c1": "linear(5)"}, {"t1": "tanh"}, {"s1": "sign"}, {"c2": "linear(4)"}, {"t2": "tanh"}, {"c3": "linear(4)"},
    {"t3": "tanh"}, {"out": "linear(3)"},
]  # fmt: skip
BLOCKS = {"b1": ["c1", "t1"], "b2": ["s1", "c2", "t2"], "b3": ["c3", "t3"], "out": "out"}
HEARD = {"b1": lambda x: x, "b2": lambda x: np.where(x > 0, 1.0, -1.0), "b3": lambda x: x}
INNER = {"b1": "c1", "b2": "c2", "b3": "c3"}


@pytest.fixture(scope="module")
def plan() -> lpc.Plan:
    return lpc.build(spec(LAYERS, BLOCKS, [LEARN]))


def batches(count: int, size: int, shape: tuple[int, ...] = (6,)) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "x": torch.randn(size, *shape, generator=generator, dtype=torch.float64),
            "y": torch.randint(0, 3, (size,), generator=generator),
        }
        for _ in range(count)
    ]


def layer(state: State, block: str, x: Array) -> Array:
    name = INNER[block]
    return np.tanh(HEARD[block](x) @ state[f"{name}.weight"].T + state[f"{name}.bias"])


def inverse(state: State, block: str, h: Array) -> Array:
    prefix = f"heads.{block}.inverse1"
    return np.tanh(np.where(h > 0, 1.0, -1.0) @ state[f"{prefix}.weight"].T + state[f"{prefix}.bias"])


def by_hand(state: State, x: Array, y: Array, noise: dict[str, Array]) -> State:
    """Return all gradients of one step, by the paper's equations and derivatives written out."""
    size, inputs = len(x), {"b1": x}
    for block, after in (("b1", "b2"), ("b2", "b3"), ("b3", "out")):
        inputs[after] = layer(state, block, inputs[block])
    logits = inputs["out"] @ state["out.weight"].T + state["out.bias"]
    error = np.exp(logits - logits.max(1, keepdims=True))
    error = error / error.sum(1, keepdims=True)
    error[np.arange(size), y] -= 1.0
    error /= size
    found = {"out.weight": error.T @ inputs["out"], "out.bias": error.sum(0)}
    target = inputs["out"] - STEP * error @ state["out.weight"]
    for block, after in (("b3", "out"), ("b2", "b3"), ("b1", "b2")):
        h, heard = inputs[after], HEARD[block](inputs[block])
        slope = 2.0 / size * (h - target) * (1.0 - h**2)
        found |= {f"{INNER[block]}.weight": slope.T @ heard, f"{INNER[block]}.bias": slope.sum(0)}
        if block == "b1":
            break
        noisy = inputs[block] + NOISE * noise[f"{block}.inverse1"]
        read = np.where(layer(state, block, noisy) > 0, 1.0, -1.0)
        back = inverse(state, block, layer(state, block, noisy))
        slope = 2.0 / size * (back - noisy) * (1.0 - back**2)
        prefix = f"heads.{block}.inverse1"
        found |= {f"{prefix}.weight": slope.T @ read, f"{prefix}.bias": slope.sum(0)}
        target = inputs[block] - inverse(state, block, h) + inverse(state, block, target)
    return found


def test_the_definition_over_some_steps(plan: lpc.Plan) -> None:
    """Targets, gradients of weights and of inverses, at weights that these gradients made."""
    trainer = lpc.Trainer(plan, device="cpu")
    state: State = {n: t.numpy().copy() for n, t in trainer.state_dict().items()}
    for number, batch in enumerate(batches(3, 7)):
        generator = torch.Generator().manual_seed(number)
        sizes = {"b2.inverse1": 5, "b3.inverse1": 4}
        noise = {s: torch.randn(7, n, generator=generator, dtype=torch.float64) for s, n in sizes.items()}
        found = trainer.gradients(batch, noise=noise)
        drawn = {site: t.numpy() for site, t in noise.items()}
        wanted = by_hand(state, batch["x"].numpy(), batch["y"].numpy(), drawn)
        assert set(found) == set(wanted)
        for name, gradient in wanted.items():
            largest = np.abs(gradient).max()
            assert largest > 1e-3, "signs differ between h and its target"
            np.testing.assert_allclose(found[name].numpy(), gradient, rtol=0, atol=1e-12 * largest)
        state = {n: t - RATE * wanted[n] for n, t in state.items()}
        trainer.load_state_dict({n: torch.from_numpy(t) for n, t in state.items()})


def test_noise_is_drawn_and_its_loss_is_recorded(plan: lpc.Plan) -> None:
    assert {site: (n.law, n.type.shape) for site, n in plan.data.program.noise.items()} == {
        "b2.inverse1": ("normal", ("B", 5)),
        "b3.inverse1": ("normal", ("B", 4)),
    }
    batch = batches(1, 7)[0]
    first, second = (lpc.Trainer(plan, device="cpu").step(batch) for _ in range(2))
    assert {"b2.inverse1", "b3.inverse1", "out.loss"} <= set(first)
    assert torch.equal(first["b2.inverse1"], second["b2.inverse1"])


def test_influence_is_told_apart(plan: lpc.Plan) -> None:
    """Weights learn from their distance, whose target the output's loss makes; inverses from their own loss alone."""
    report = lpc.verify(plan)
    assert report.ok
    assert report.worst < 1e-12
    assert report.influence["c1.weight"] == {"b1.distance"}
    assert report.targets == {f"{n}.{what}": {"out.loss"} for n in INNER.values() for what in ("weight", "bias")}
    assert report.declared_targets["c1.bias"] == {"out.loss"}
    head = "heads.b2.inverse1.weight"
    assert report.influence[head] == report.declared[head] == {"b2.inverse1"}


@pytest.fixture(scope="module")
def linear() -> lpc.Trainer:
    layers = [{f"c{i}": f"linear({n})"} for i, n in enumerate((5, 6, 4), 1)] + [{"out": "linear(3)"}]
    loss = ["distance", "inverse(noise=0, head=back_map(activation=none))"]
    return lpc.Trainer(lpc.build(spec(layers, "per_layer", [LEARN | {"loss": loss}])), device="cpu")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(2, 6))
def test_transposed_weights_for_inverses_are_backpropagation(linear: lpc.Trainer, seed: int, size: int) -> None:
    """In a linear net d is then the gradient, times `step`: all blocks get 2 step / B times its gradients.

    Weights are divided by the root of their inputs' number: where a softmax is saturated, h and h - d differ in their
    last digits only, and no difference of what is made of them has any.
    """
    torch.manual_seed(seed)
    state = {n: torch.randn_like(t) / t.shape[-1] ** 0.5 for n, t in linear.state_dict().items()}
    state |= {f"heads.c{i}.inverse1.weight": state[f"c{i}.weight"].T.contiguous() for i in (2, 3)}
    linear.load_state_dict(state)
    batch = batches(1, size)[0]
    own = {n: t.clone().requires_grad_() for n, t in state.items() if not n.startswith("heads.")}
    h = batch["x"]
    for name in ("c1", "c2", "c3", "out"):
        h = torch.nn.functional.linear(h, own[f"{name}.weight"], own[f"{name}.bias"])
    torch.nn.functional.cross_entropy(h, batch["y"]).backward()
    found = linear.gradients(batch)
    for name, tensor in own.items():
        assert tensor.grad is not None
        factor = 1.0 if name.startswith("out") else 2.0 * STEP / size
        size_of = factor * tensor.grad.abs().max().item()
        torch.testing.assert_close(found[name], factor * tensor.grad, rtol=0, atol=1e-11 * max(size_of, 1e-3))


def test_masks_and_statistics_belong_to_the_step() -> None:
    """Both runs of a block drop the same elements, and statistics move once; ranks and memory know of all."""
    layers = [
        {"c1": "conv(4, 3, padding=1)"}, "batch_norm", "relu", {"c2": "conv(4, 3, stride=2, padding=1)"}, "batch_norm",
        "dropout(0.3)", "relu", {"c3": "conv(3, 3, padding=1)"}, "relu", "flatten", {"out": "linear(3)"},
    ]  # fmt: skip
    rule = LEARN | {"loss": ["distance", "inverse(head=transposed_decoder)"], "optimizer": "adam(lr=0.01)"}
    plan = lpc.build(spec(layers, "per_layer", [rule], shape=[1, 6, 6]))
    assert lpc.verify(plan).ok
    found = lpc.Trainer(plan, device="cpu").measure(batches(1, 8, (1, 6, 6))[0])
    assert found["predicted"] == found["measured"]


INVERSE = "inverse(noise=0.5)"


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"learn": [LEARN | {"loss": ["distance"]}]}, "its losses are `distance`"),
        ({"learn": [LEARN | {"loss": [INVERSE]}]}, "its losses are `inverse`"),
        ({"learn": [LEARN | {"loss": ["distance", INVERSE, "mse"]}]}, "its losses are `distance`, `inverse` or `mse`"),
        ({"learn": [LEARN | {"loss": ["squared"]}]}, "its losses are `squared`"),
        ({"learn": [LEARN | {"steps": 3}]}, "`steps: 3` of block `b1`"),
        ({"learn": [LEARN | {"estimator": "feedback_alignment"}]}, "`estimator: feedback_alignment` of block `b1`"),
        ({"links": LINK[:-1] + ", every=2)"}, "`every=2`"),
        (
            {"links": {"*": LINK, "b2->b3": "gradient"}, "learn": [LEARN, {"blocks": "b2", "loss": "none"}]},
            "the link `b2->b3` is `gradient`",
        ),
        ({"links": "target(step=3)"}, "expected `squared` or `matching`"),
        ({"links": "gradient"}, "is for the problem of a link `target`"),
        ({"blocks": BLOCKS | {"b1": ["c1"], "t": ["t1"]}}, "block `t`, which learns nothing"),
    ],
)
def test_what_does_not_fit_is_refused(said: dict[str, Any], says: str) -> None:
    given = spec(LAYERS, said.get("blocks", BLOCKS), said.get("learn", [LEARN]), said.get("links", LINK))
    with pytest.raises(lpc.LpcError) as refusal:
        lpc.build(given)
    (problem, *_) = refusal.value.diagnostics
    assert problem.code in ("0434", "0147")
    assert says in problem.message
