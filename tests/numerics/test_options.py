"""Do a method's options mean what they do in PyTorch? Links, clipping, accumulation, rules, memory, against a hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc

State = dict[str, Tensor]


def linear(p: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def batch_norm(p: State, name: str, x: Tensor, training: bool) -> Tensor:
    """With the statistics written out: biased ones to normalise with, unbiased ones to remember."""
    mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    if training:
        own_mean, own_variance = x.mean(0), x.var(0, unbiased=False)
        p[f"{name}.num_batches_tracked"] += 1
        mean.copy_(0.9 * mean + 0.1 * own_mean.detach())
        variance.copy_(0.9 * variance + 0.1 * x.var(0, unbiased=True).detach())
        mean, variance = own_mean, own_variance
    return (x - mean) / torch.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def forward(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    """Four blocks; the third reads the first one's output too."""
    a = torch.tanh(batch_norm(p, "norm", F.linear(batch["x"], p["fc1.weight"]), mode.training))
    b = torch.tanh(linear(p, "fc2", mode.cut("a->b", a)))
    c = F.silu(linear(p, "fc3", mode.cut("b->c", b)) * mode.cut("a->c", a))
    return {"a": a, "b": b, "c": c, "d": linear(p, "out", mode.cut("c->d", c))}


NET: dict[str, Any] = {
    "network": {
        "inputs": {"x": [7]},
        "layers": [
            {"fc1": "linear(12, bias=false)"},
            {"norm": "batch_norm"},
            {"a": "tanh"},
            {"fc2": "linear(12)"},
            "tanh",
            {"fc3": "linear(12)"},
            {"gated": "multiply(from=[fc3, a])"},
            "silu",
            {"out": "linear(5)"},
        ],
    },
    "blocks": {"a": ("fc1", "norm"), "b": ("fc2",), "c": ("fc3",), "d": ("out",)},
    "forward": forward,
    "shape": (7,),
}


def train(hand: Any, trainer: Any, loop: Any, steps: int = 8) -> None:
    """Both sides side by side."""
    for batch in loop.net.batches([9, 9, 4] * 3)[:steps]:
        hand.same_losses(trainer.step(batch), loop.step(batch))
        hand.same(trainer.state_dict(), loop.state)


MIXTURES = {
    "borrowed_losses": ({"a->b": "gradient", "a->c": "stop", "b->c": "stop", "c->d": "gradient"}, ("b",)),
    "only_the_skip": ({"*": "stop", "a->c": "gradient"}, ("b", "c")),
    "only_the_chain": ({"*": "gradient", "a->c": "stop"}, ()),
    "half_and_half": ({"*": "gradient", "b->c": "stop"}, ("a", "b", "c")),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_links_mix(hand: Any, name: str) -> None:
    net, how = hand.Net(**NET), hand.Method(*MIXTURES[name])
    trainer = net.trainer(net.spec(how, ["sgd", "adam"]))
    train(hand, trainer, hand.Loop(net, how, ["sgd", "adam"], trainer.state_dict()))


def test_each_block_is_clipped_by_its_own_norm(hand: Any) -> None:
    net, how = hand.Net(**NET), hand.methods["l_bp"]
    trainer = net.trainer(net.spec(how, ["sgd"], learn=[{"blocks": "*", "clip": 0.2}]))
    loop = hand.Loop(net, how, ["sgd"], trainer.state_dict(), clip=0.2)
    loose = hand.Loop(net, how, ["sgd"], trainer.state_dict())
    batch = net.batches([9])[0]
    loose.backward(batch)
    loop.backward(batch)
    assert any(not torch.equal(g, loose.gradients()[n]) for n, g in loop.gradients().items())
    hand.same(trainer.gradients(batch), loop.gradients())
    train(hand, trainer, hand.Loop(net, how, ["sgd"], trainer.state_dict(), clip=0.2))


def test_the_whole_net_is_clipped_where_all_links_are_gradient(hand: Any) -> None:
    net, how = hand.Net(**NET), hand.methods["bp"]
    trainer = net.trainer(net.spec(how, ["adam", "sgd"], run={"clip": 0.1}))
    train(hand, trainer, hand.Loop(net, how, ["adam", "sgd"], trainer.state_dict(), clip_all=0.1))


@pytest.mark.parametrize("method", ["bp", "lg_bp"])
def test_gradients_are_averaged_over_accumulated_batches(hand: Any, method: str) -> None:
    """Every batch has its own statistics and moves the buffers; clipping sees the average."""
    net, how = hand.Net(**NET), hand.methods[method]
    more = {"run": {"accumulate": 3}, "learn": [{"blocks": "*", "clip": 0.3}]}
    trainer = net.trainer(net.spec(how, ["sgd", "adam"], **more))
    loop = hand.Loop(net, how, ["sgd", "adam"], trainer.state_dict(), clip=0.3)
    batches = net.batches([6, 6, 4] * 5)
    for start in range(0, len(batches), 3):
        parts = batches[start : start + 3]
        trainer.step(parts)
        loop.step(*parts)
        hand.same(trainer.state_dict(), loop.state)


def test_one_batch_is_cut_into_accumulated_parts(hand: Any) -> None:
    net, how = hand.Net(**NET), hand.methods["lg_bp"]
    trainer = net.trainer(net.spec(how, ["sgd"], run={"accumulate": 3}))
    loop = hand.Loop(net, how, ["sgd"], trainer.state_dict())
    batch = net.batches([12])[0]
    loop.backward(*parts_of(batch, 3))
    hand.same(trainer.gradients(batch), loop.gradients())


def parts_of(batch: Any, count: int) -> list[dict[str, Tensor]]:
    pieces = {n: t.chunk(count) for n, t in batch.items()}
    return [{n: p[i] for n, p in pieces.items()} for i in range(count)]


def test_rules_on_parameters_reach_the_optimizer(hand: Any) -> None:
    """`weight_decay` replaces the optimizer's, `lr_factor` multiplies its rate; heads have parameters too."""
    net, how = hand.Net(**NET), hand.methods["lg_bp"]
    rules = [{"params": "*.bias", "weight_decay": 0.0}, {"params": ["fc2.*", "heads.a.*"], "lr_factor": 0.25}]
    trainer = net.trainer(net.spec(how, ["adamw"], learn=rules))

    def by_hand(name: str) -> dict[str, float]:
        rule = {"weight_decay": 0.0} if name.endswith(".bias") else {}
        return rule | ({"lr": 0.0025} if name.startswith(("fc2.", "heads.a.")) else {})

    train(hand, trainer, hand.Loop(net, how, ["adamw"], trainer.state_dict(), rules=by_hand))


MEMORY: dict[str, dict[str, Any]] = {
    "immediate": {},
    "summed": {"run": {"memory": "summed"}},
    "recompute": {"learn": [{"blocks": "*", "memory": "recompute"}]},
    "some": {"learn": [{"blocks": ["a", "c"], "memory": "recompute"}]},
}


def test_every_memory_schedule_gives_the_same_bits(hand: Any) -> None:
    """What is saved and when it is computed changes no number, not even in one bit."""
    net, how = hand.Net(**NET), hand.Method({"*": "gradient", "b->c": "stop"})
    trainers = {name: net.trainer(net.spec(how, ["sgd", "adam"], **more)) for name, more in MEMORY.items()}
    loop = hand.Loop(net, how, ["sgd", "adam"], trainers["immediate"].state_dict())
    for batch in net.batches([9, 9, 4, 9]):
        metrics = {name: trainer.step(batch) for name, trainer in trainers.items()}
        loop.step(batch)
        state = trainers["immediate"].state_dict()
        for name, trainer in trainers.items():
            assert all(torch.equal(v, metrics["immediate"][n]) for n, v in metrics[name].items()), name
            assert all(torch.equal(t, state[n]) for n, t in trainer.state_dict().items()), name
        hand.same(state, loop.state)


# Several losses for one block


def test_a_block_minimises_the_weighted_sum_of_its_losses(hand: Any) -> None:
    net, how = hand.Net(**NET), hand.methods["lg_bp"]
    spec = net.spec(how, ["sgd"])
    spec["fields"]["wanted"] = {"shape": [12], "dtype": "float64"}
    losses = [
        "cross_entropy(weight=0.5, label_smoothing=0.1, target=label)",
        "cross_entropy(weight=2.0, scale=0.5, target=label)",
    ]
    spec["learn"] = [*spec["learn"][:-1], {"blocks": "d", "optimizer": "sgd(lr=0.1)"}]
    spec["learn"] += [{"blocks": "a", "loss": losses}]
    spec["learn"] += [{"blocks": "b", "loss": "mse(target=wanted)", "head": "identity"}]
    spec["learn"] += [{"blocks": "c", "loss": "cross_entropy(target=label, reduction=sum)"}]
    spec["loss"] = "cross_entropy(target=label)"
    trainer = net.trainer(spec)
    loop = hand.Loop(net, how, ["sgd"], trainer.state_dict())
    batch = dict(net.batches([9])[0], wanted=torch.linspace(-1, 1, 9 * 12, dtype=torch.float64).view(9, 12))
    feature = forward(loop.state, batch, hand.Mode(how.links))
    total = F.cross_entropy(feature["d"], batch["label"]) + (feature["b"] - batch["wanted"]).square().mean()
    scores = linear(loop.state, "heads.a", feature["a"])
    total = total + 0.5 * F.cross_entropy(scores, batch["label"], label_smoothing=0.1)
    total = total + 2.0 * F.cross_entropy(0.5 * scores, batch["label"])
    scores = linear(loop.state, "heads.c", feature["c"])
    total = total + F.cross_entropy(scores, batch["label"], reduction="sum")
    total.backward()
    hand.same(trainer.gradients(batch), loop.gradients())


# Dropout


def dropped(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    a = mode.drop("drop1", torch.tanh(linear(p, "fc1", batch["x"])), 0.25)
    tokens = linear(p, "embed", mode.cut("a->b", a)[:, :, None])
    rows, length, width = tokens.shape
    parts = linear(p, "mix.qkv", tokens).reshape(rows, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(parts[0] @ parts[1].transpose(-1, -2) / (width // 2) ** 0.5, -1)
    mixed = mode.drop("mix", weights, 0.4) @ parts[2]
    b = linear(p, "mix.out", mixed.transpose(1, 2).reshape(rows, length, width))
    c = mode.drop("drop2", F.relu(linear(p, "fc2", mode.cut("b->c", b).flatten(1))), 0.5)
    return {"a": a, "b": b, "c": linear(p, "out", c)}


DROPPED: dict[str, Any] = {
    "network": {
        "inputs": {"x": [7]},
        "layers": [
            {"fc1": "linear(6)"},
            "tanh",
            {"drop1": "dropout(0.25)"},
            {"column": "reshape([6, 1])"},
            {"embed": "linear(4)"},
            {"mix": "attention(2, dropout=0.4)"},
            {"flat": "flatten"},
            {"fc2": "linear(10)"},
            "relu",
            {"drop2": "dropout(0.5)"},
            {"out": "linear(5)"},
        ],
    },
    "blocks": {"a": ("fc1",), "b": ("embed", "mix"), "c": ("fc2", "out")},
    "modules": {"a": ("fc1", "drop1"), "b": ("column", "embed", "mix"), "c": ("flat", "fc2", "out")},
    "forward": dropped,
    "shape": (7,),
}


@pytest.mark.parametrize(("method", "memory"), [("bp", "immediate"), ("bp", "recompute"), ("lg_bp", "immediate")])
def test_equal_masks_give_equal_gradients(hand: Any, method: str, memory: str) -> None:
    """Dropout on values and on attention weights, with masks that both sides are told."""
    net, how = hand.Net(**DROPPED), hand.methods[method]
    trainer = net.trainer(net.spec(how, ["sgd"], learn=[{"blocks": "*", "memory": memory}]))
    loop = hand.Loop(net, how, ["sgd"], trainer.state_dict())
    batch, generator = net.batches([9])[0], torch.Generator().manual_seed(3)
    shapes = {"drop1": (9, 6), "mix": (9, 2, 6, 6), "drop2": (9, 10)}
    masks = {n: torch.randint(0, 2, s, generator=generator).double() for n, s in shapes.items()}
    loop.backward(batch, masks=masks)
    hand.same(trainer.gradients(batch, noise=masks), loop.gradients())
    flipped = {n: 1.0 - m for n, m in masks.items()}
    assert not torch.allclose(trainer.gradients(batch, noise=flipped)["fc1.weight"], loop.gradients()["fc1.weight"])
    check_evaluation(hand, trainer, loop, net.batches([4], seed=2)[0])


def check_evaluation(hand: Any, trainer: Any, loop: Any, batch: Any) -> None:
    """Nothing is dropped in evaluation."""
    output, losses = loop.evaluated(batch)
    hand.same({"output": trainer.predict(batch["x"])}, {"output": output})
    found = {n: torch.tensor(v, dtype=torch.float64) for n, v in trainer.evaluate([batch]).items()}
    hand.same_losses(found, losses)


def test_masks_of_a_step_are_drawn_by_their_probability(hand: Any) -> None:
    """A plan draws its own masks: new ones at each step, the same ones for the same seed and step."""
    net = hand.Net(**DROPPED)
    plan = lpc.build(net.spec(hand.methods["bp"], ["sgd"]))
    one, other = lpc.Trainer(plan, device="cpu"), lpc.Trainer(plan, device="cpu")
    weights = {n: t.clone() for n, t in one.state_dict().items()}
    batch = net.batches([64])[0]
    first = one.gradients(batch)["fc1.weight"]
    assert torch.equal(one.gradients(batch)["fc1.weight"], first)
    assert torch.equal(one.step(batch)["c.loss"], other.step(batch)["c.loss"])
    one.load_state_dict(weights)
    assert not torch.equal(one.gradients(batch)["fc1.weight"], first)


# bf16


@pytest.mark.parametrize("method", ["bp", "lg_bp"])
def test_bf16_is_autocast(hand: Any, method: str) -> None:
    """Against eager torch.autocast. Both round to 8 bits at the same places, but an operator may sum in another
    order and so round the other way: differences of 2^-8 of the largest value are possible in each tensor."""
    net, how = hand.Net(**BF16), hand.methods[method]
    trainer = net.trainer(net.spec(how, ["sgd"], run={"precision": "bf16", "dtype": "float32"}))
    loop = hand.Loop(net, how, ["sgd"], trainer.state_dict())
    full = hand.Loop(net, how, ["sgd"], trainer.state_dict())
    batch = net.batches([9], dtype=torch.float32)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loop.losses(batch, hand.Mode(how.links))
    sum(losses.values()).backward()
    full.backward(batch)
    found = trainer.gradients(batch)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    hand.same(found, loop.gradients(), 2**-8)
    assert any((g - found[n]).abs().max() > 2**-8 * g.abs().max() for n, g in full.gradients().items())
    hand.same_losses(trainer.step(batch), losses, 2**-8)


def plain(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    a = torch.relu(F.conv1d(batch["x"], p["conv.weight"], p["conv.bias"]))
    b = F.gelu(linear(p, "fc1", F.layer_norm(mode.cut("a->b", a).flatten(1), [40], p["n.weight"], p["n.bias"])))
    return {"a": a, "b": b, "c": linear(p, "out", mode.cut("b->c", b))}


BF16: dict[str, Any] = {
    "network": {
        "inputs": {"x": [2, 12]},
        "layers": [
            {"conv": "conv(4, 3)"},
            "relu",
            {"flat": "flatten"},
            {"n": "layer_norm"},
            {"fc1": "linear(16)"},
            "gelu",
            {"out": "linear(5)"},
        ],
    },
    "blocks": {"a": ("conv",), "b": ("n", "fc1"), "c": ("out",)},
    "modules": {"a": ("conv",), "b": ("flat", "n", "fc1"), "c": ("out",)},
    "forward": plain,
    "shape": (2, 12),
}


# Parameters that blocks share


def tied(owner_only: bool) -> Any:
    def run(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
        weight = p["first.weight"]
        a = torch.tanh(F.linear(batch["x"], weight, p["first.bias"]))
        again = weight.detach() if owner_only else weight
        b = torch.tanh(F.linear(mode.cut("a->b", a), again, p["second.bias"]))
        return {"a": a, "b": b, "c": linear(p, "out", mode.cut("b->c", b))}

    return run


TIED: dict[str, Any] = {
    "network": {"module": "sample_networks:Tied", "inputs": {"x": [8]}},
    "blocks": {"a": ("first",), "b": ("second",), "c": ("out",)},
    "shape": (8,),
}


@pytest.mark.parametrize("method", ["bp", "lg_bp"])
@pytest.mark.parametrize("shared", ["owner", "sum"])
def test_a_shared_weight_learns_by_policy(hand: Any, shared: str, method: str) -> None:
    """`owner`: the borrower reads it as a constant. `sum`: the gradients of both uses are added, as autograd does."""
    net, how = hand.Net(**TIED, forward=tied(shared == "owner")), hand.methods[method]
    trainer = net.trainer(net.spec(how, ["adam", "sgd"], decompose={"shared": shared}))
    state = {n: t for n, t in trainer.state_dict().items() if n != "second.weight"}
    loop = hand.Loop(net, how, ["adam", "sgd"], state)
    for batch in net.batches([9, 9, 4, 9, 9]):
        hand.same_losses(trainer.step(batch), loop.step(batch))
        found = trainer.state_dict()
        again = found.pop("second.weight", found["first.weight"])
        assert torch.equal(again, found["first.weight"])
        hand.same(found, loop.state)


def test_a_shared_weight_needs_a_policy(hand: Any) -> None:
    net = hand.Net(**TIED, forward=tied(False))
    with pytest.raises(lpc.LpcError, match="LPC0305"):
        net.trainer(net.spec(hand.methods["lg_bp"], ["sgd"]))
