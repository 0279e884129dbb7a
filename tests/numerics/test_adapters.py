"""Do adapted networks train as peft's own do, and nothing else of them? Loops by hand, and random selections."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lpc

peft = pytest.importorskip("peft")

NETWORK = Path(__file__).with_name("sample_adapted.py")
PARTS = {"a": ("conv1", "bn1"), "b": ("conv2", "bn2"), "c": ("fc1",), "d": ("out",)}
MLP: dict[str, Any] = {
    "network": {
        "inputs": {"x": [4]},
        "layers": [{"fc1": "linear(6)"}, "tanh", {"fc2": "linear(6)"}, "tanh", {"out": "linear(3)"}],
    },
    "blocks": "per_layer",
}
STEPS = 5

State = dict[str, Tensor]


def spec(adapters: list[str], link: str, **more: Any) -> dict[str, Any]:
    """Every block has a linear head; behind gradient links too, as in deep supervision."""
    return {
        "network": more.pop("network", {"module": "sample_adapted:Adapted", "inputs": {"x": [3, 8, 8]}}),
        "adapters": adapters,
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": more.pop("blocks", {n: list(group) for n, group in PARTS.items()}), "links": link},
        "learn": [
            {"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1, momentum=0.9)"},
            *more.pop("learn", []),
        ],
        "run": {"dtype": "float64", "target": "cpu"},
    }


def trainer(adapters: list[str], link: str, **more: Any) -> lpc.Trainer:
    return lpc.Trainer(lpc.build(spec(adapters, link, **more), allow=[str(NETWORK)]), device="cpu")


def batch(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64)
    return {"x": x, "label": torch.randint(0, 5, (6,), generator=generator)}


def original() -> Any:
    description = importlib.util.spec_from_file_location("sample_adapted", NETWORK)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module.Adapted().double()


def by_hand(model: Any, state: State, trained: set[str], learning: list[str], link: str) -> State:
    """Train a model of peft, whose names begin with `base_model.model.`, from the plan's initial state."""
    prefix = "base_model.model."
    model.load_state_dict({prefix + name: t for name, t in state.items() if not name.startswith("heads.")})
    heads = {name: t.clone().requires_grad_() for name, t in state.items() if name.startswith("heads.")}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.removeprefix(prefix) in trained)
    values = [p for p in model.parameters() if p.requires_grad] + list(heads.values())
    stepper = torch.optim.SGD(values, lr=0.1, momentum=0.9, foreach=False)
    net = model.get_base_model().train()
    for seed in range(STEPS):
        given = batch(seed)
        x, total = given["x"], torch.zeros((), dtype=torch.float64)
        for part in PARTS:
            x = getattr(net, part)(x.detach() if link == "stop" else x)
            if part in learning and part != "d":
                weight, bias = heads[f"heads.{part}.weight"], heads[f"heads.{part}.bias"]
                total = total + F.cross_entropy(F.linear(x.flatten(1), weight, bias), given["label"])
        total = total + F.cross_entropy(x, given["label"])
        stepper.zero_grad()
        total.backward()
        stepper.step()
    found = {name.removeprefix(prefix): t for name, t in model.state_dict().items()}
    return found | {name: t.detach() for name, t in heads.items()}


def lora(targets: list[str], rank: int, alpha: float) -> Any:
    return peft.get_peft_model(original(), peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))


def lokr(targets: list[str], rank: int, alpha: float) -> Any:
    return peft.get_peft_model(original(), peft.LoKrConfig(r=rank, alpha=alpha, target_modules=targets))


# what it is: adapter, peft's model, and what is trained besides the adapters with the blocks that then learn
CASES: dict[str, tuple[str, Any, set[str], list[str]]] = {
    "lora everywhere": (
        'lora(targets="conv*|fc1|out", rank=2, alpha=3.0)',
        lambda: lora(["conv1", "conv2", "fc1", "out"], 2, 3.0),
        set(),
        list("abcd"),
    ),
    "lokr on convolutions": (
        'lokr(targets="conv*", rank=1, alpha=2.0, train="out.*|bn1.bias")',
        lambda: lokr(["conv1", "conv2"], 1, 2.0),
        {"out.weight", "out.bias", "bn1.bias"},
        list("abd"),
    ),
    "lokr on linear layers": (
        "lokr(targets=[fc1, out], rank=2)",
        lambda: lokr(["fc1", "out"], 2, 2.0),
        set(),
        list("cd"),
    ),
    "lora in the middle": ("lora(targets=conv2, rank=2)", lambda: lora(["conv2"], 2, 2.0), set(), list("b")),
}


@pytest.mark.parametrize(
    ("what", "link"), [*((what, "stop") for what in CASES), *((what, "gradient") for what in list(CASES)[:2])]
)
def test_five_steps_equal_peft_and_autograd(hand: Any, what: str, link: str) -> None:
    adapter, model, more, learning = CASES[what]
    found = trainer([adapter], link)
    state = {name: t.clone() for name, t in found.state_dict().items()}
    trained = {name for name in state if "lora_" in name or "lokr_" in name} | more
    if link == "gradient":  # every block after a trained one passes gradients on, and so has a loss that counts
        learning = list("abcd")[list("abcd").index(learning[0]) :]
    wanted = by_hand(model(), state, trained, learning, link)
    for seed in range(STEPS):
        found.step(batch(seed))
    hand.same(found.state_dict(), wanted)


def test_first_step_moves_one_factor_and_the_second_step_both() -> None:
    """LoRA's B and LoKr's w1 begin at 0, so the other factor has a gradient of exactly 0 at first."""
    for adapter, first, other in (
        ("lora(targets=fc1, rank=2)", "lora_B.default.weight", "lora_A.default.weight"),
        ("lokr(targets=fc1, rank=2)", "lokr_w1.default", "lokr_w2_a.default"),
    ):
        found = trainer([adapter], "stop")
        assert not found.plan.report["warnings"]
        gradients = found.gradients(batch(0))
        assert gradients[f"fc1.{other}"].eq(0).all()
        assert gradients[f"fc1.{first}"].ne(0).any()
        found.step(batch(0))
        before = found.state_dict()[f"fc1.{other}"].clone()
        found.step(batch(1))
        assert not torch.equal(before, found.state_dict()[f"fc1.{other}"])


# Parameters that `train` may name, by the network's own names, and adapters' parts that may be frozen again.
SELECTIONS = ("out.*", "fc1.weight", "fc2.bias", "*.bias")


@settings(
    max_examples=2,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    targets=st.sets(st.sampled_from(["fc1", "fc2", "out"]), min_size=1),
    kind=st.sampled_from(["lora", "lokr"]),
    train=st.sets(st.sampled_from(SELECTIONS), max_size=2),
    frozen=st.sampled_from(["*.bias", "*.lo*_[Aw]*", None]),
    link=st.sampled_from(["stop", "gradient"]),
)
def test_exactly_the_selection_is_trained(
    targets: set[str], kind: str, train: set[str], frozen: str | None, link: str
) -> None:
    options = f', train="{"|".join(sorted(train | {"fc2.bias"}))}"'
    rules = [] if frozen is None else [{"params": frozen, "train": False}, {"params": "fc2.*bias", "train": True}]
    found = trainer([f'{kind}(targets="{"|".join(sorted(targets))}", rank=2{options})'], link, **MLP, learn=rules)
    generator = torch.Generator().manual_seed(0)
    before = {
        name: torch.randn(t.shape, generator=generator, dtype=t.dtype) if is_adapter(name) else t.clone()
        for name, t in found.state_dict().items()
    }
    found.load_state_dict(before)
    found.step({"x": torch.randn(6, 4, generator=generator, dtype=torch.float64), "label": torch.arange(6) % 3})
    after = found.state_dict()
    selected = {
        name
        for name in before
        if name.replace(".base_layer", "") == "fc2.bias"
        or (
            (is_adapter(name) or any(fnmatchcase(name.replace(".base_layer", ""), glob) for glob in train))
            and not (frozen and fnmatchcase(name, frozen))
            and not name.startswith("heads.")
        )
    }
    assert own(name for name in before if not torch.equal(before[name], after[name])) == selected
    groups = [group for optimizer in found.plan.program.optimizers.values() for group in optimizer.groups]
    assert own(name for group in groups for name in group.parameters) == selected
    bundles = [bundle for kernel in found.plan.kernels["native"].values() for bundle in kernel.results]
    given = own(port.source for bundle in bundles if bundle.role == "gradients" for port in bundle.ports)
    assert given == selected


def is_adapter(name: str) -> bool:
    return "lora_" in name or "lokr_" in name


def own(names: Iterable[str]) -> set[str]:
    """The network's own names, without those of heads."""
    return {name for name in names if not name.startswith("heads.")}


def test_merged_weights_are_those_of_the_network_without_adapters(tmp_path: Path) -> None:
    adapters = ['lora(targets="conv1|fc1", rank=2)', "lokr(targets=[conv2, out], rank=1)"]
    plan = lpc.build(spec(adapters, "stop"), allow=[str(NETWORK)])
    found = lpc.Trainer(plan, device="cpu")
    for seed in range(3):
        found.step(batch(seed))
    merged = lpc.merge_adapters(plan, found.state_dict(), allow=[str(NETWORK)])
    plain = spec([], "stop")
    plain["network"] = {**plain["network"], "weights": str(tmp_path / "merged.safetensors")}
    safetensors.torch.save_file(merged, tmp_path / "merged.safetensors")
    wanted = lpc.Trainer(lpc.build(plain, allow=[str(NETWORK)]), device="cpu")
    given = batch(7)
    torch.testing.assert_close(found.predict(given), wanted.predict(given), rtol=1e-12, atol=1e-13)


def test_a_grouped_convolution_cannot_be_merged() -> None:
    network = {"inputs": {"x": [4, 6]}, "layers": [{"conv": "conv(8, 3, groups=2)"}, "flatten", {"out": "linear(3)"}]}
    plan = lpc.build(spec(["lora(targets=conv, rank=2)"], "stop", network=network, blocks="per_layer"))
    state = lpc.Trainer(plan, device="cpu").state_dict()
    with pytest.raises(lpc.LpcError, match="peft cannot merge the adapter of `conv`"):
        lpc.merge_adapters(plan, state)
