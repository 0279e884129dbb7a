"""Does the LocalMixer compute, count and learn as published? Arrays from the authors' released code, in golden/."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lpc
from lpc.compiler.frontend.network import build_network
from lpc.compiler.heads import HEADS
from lpc.compiler.setting import Setting
from lpc.specs import load_spec
from lpc.specs.plan.verify import influence
from lpc.specs.signatures import HEADS as SIGNATURES
from lpc.specs.term import Term

GOLDEN = Path(__file__).with_name("golden")
Arrays = Mapping[str, Tensor]

BLOCKS = {"*": 'each("blocks.*")', "readout": "readout"}
HEAD = "linear(pool=patches, norm=last)"
NETWORK = {"image": [3, 4, 4], "side": 2, "blocks": 2, "channels": 8, "groups": 2, "classes": 3}
# The published names of layers -> ours.
LAYERS = {
    "b0_fc": "blocks.0.fc", "b0_gfc": "blocks.0.group_fc", "b1_tok": "blocks.1.token", "b1_fc": "blocks.1.fc",
    "b1_gfc": "blocks.1.group_fc", "head0": "heads.blocks.0", "head1": "heads.blocks.1", "readout": "readout.fc",
}  # fmt: skip
# A block for each layer, from the norm before it to the activation after it.
PER_LAYER = {
    "blocks.0.fc": ["patches", "blocks.0.before_fc", "blocks.0.fc", "blocks.0.fc_norm", "blocks.0.fc_relu"],
    "blocks.0.group_fc": ["blocks.0.split", "blocks.0.*group_fc*", "blocks.0.relu"],
    "blocks.1.token": ["blocks.1.join", "blocks.1.*token*"],
    "blocks.1.fc": ["blocks.1.before_fc", "blocks.1.fc", "blocks.1.fc_norm", "blocks.1.fc_relu"],
    "blocks.1.group_fc": ["blocks.1.split", "blocks.1.*group_fc*", "blocks.1.relu"],
    "readout": "readout",
}
# The methods as recipes, with what they need besides.
METHODS: dict[str, dict[str, Any]] = {
    "bp": {"recipe": "backprop(optimizer=sgd(lr=0.1))"},
    "l_bp": {
        "recipe": f"deep_supervision(head={HEAD}, optimizer=sgd(lr=0.1))",
        "decompose": {"links": {"*": "gradient", "blocks.1->readout": "stop"}},
    },
    "lg_bp": {"recipe": f"greedy(head={HEAD}, optimizer=sgd(lr=0.1))"},
    "fa_std": {"recipe": "feedback_alignment()"},
    "l_fa_std": {
        "recipe": f"local_feedback_alignment(links=gradient, head={HEAD})",
        "decompose": {"links": {"*": "gradient", "blocks.1->readout": "stop"}},
    },
    "lg_fa_std": {"recipe": f"local_feedback_alignment(head={HEAD})"},
    "dfa_std": {
        "recipe": "direct_feedback()",
        "decompose": {"blocks": PER_LAYER},
    },
    "fg_w": {"recipe": "forward_gradient(readout=readout, perturb=weight)"},
    "fg_a": {"recipe": "forward_gradient(readout=readout, site=after_norm)"},
    "lg_fg_w": {"recipe": f"local_forward_gradient(readout=readout, groups=2, perturb=weight, head={HEAD})"},
    "lg_fg_a": {"recipe": f"local_forward_gradient(readout=readout, groups=2, head={HEAD})"},
    "lg_fg_a_nonormgrad": {
        "recipe": f"local_forward_gradient(readout=readout, groups=2, head={HEAD})",
        "learn": [{"blocks": "blocks.*", "estimator": "forward(site=after_norm, norm_gradient=ignored)"}],
    },
}
EXACT = ("bp", "l_bp", "lg_bp")


def arrays(name: str) -> Arrays:
    with np.load(GOLDEN / f"localmixer_{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


@pytest.fixture(scope="module")
def golden() -> Arrays:
    return arrays("supervised_lnall")


def close(found: Tensor, wanted: Tensor, what: str = "") -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11, msg=lambda m: f"{what}: {m}")


def spec_of(method: str, **args: Any) -> dict[str, Any]:
    method_ = METHODS[method]
    return {
        "network": {"zoo": "localmixer", "args": NETWORK | args},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "run": {"dtype": "float64", "target": "cpu"},
        **method_,
        "decompose": {"blocks": BLOCKS, **method_.get("decompose", {})},
    }


def noise_of(golden: Arrays, plan: lpc.Plan) -> dict[str, Tensor]:
    """The published noise by our sites: of activities after the norm, or of weights."""
    theirs = {ours: name for name, ours in LAYERS.items()}
    found = {}
    for site in plan.data.program.noise:
        layer, _, kind = site.rpartition(".")
        if kind in ("weight", "bias"):
            v = golden[f"v_w/{theirs[layer]}_{'W' if kind == 'weight' else 'b'}"]
            found[site] = v.mT if kind == "weight" else v
        else:
            u = golden[f"u_act/{theirs[site]}"]
            found[site] = u.mT if theirs[site] == "b1_tok" else u
    return found


def feedback_of(golden: Arrays, t: lpc.Trainer) -> dict[str, Tensor]:
    """The published backward weights, and projections of the error, which are the same for every patch."""
    theirs = {ours: name for name, ours in LAYERS.items()}
    state = {}
    for name in (n for n in t.state_dict() if n.startswith("feedback.")):
        layer = name.removeprefix("feedback.").removesuffix(".weight")
        if name.endswith(".weight"):
            state[name] = golden[f"feedback_fa/{theirs[layer]}_B"].mT
            continue
        matrix = golden[f"feedback_dfa/{theirs[layer]}_B"]
        over_patches = matrix[:, None].expand(4, 8, 3) if theirs[layer] == "b1_tok" else matrix.expand(4, 8, 3)
        state[name] = over_patches.reshape(32, 3) / (8 if theirs[layer] == "b1_tok" else 4)
    return state


def state_of(golden: Arrays, prefix: str = "param") -> dict[str, Tensor]:
    """Arrays [..., in, out] under our names, as torch lays them out."""
    state = {}
    for theirs, ours in LAYERS.items():
        if f"{prefix}/{theirs}_W" not in golden:
            continue
        state[f"{ours}.weight"] = golden[f"{prefix}/{theirs}_W"].mT
        state[f"{ours}.bias"] = golden[f"{prefix}/{theirs}_b"]
    return state


def batch_of(golden: Arrays) -> dict[str, Tensor]:
    return {"image": golden["image"].movedim(3, 1), "label": golden["label"].long()}


def loaded(plan: lpc.Plan, golden: Arrays) -> lpc.Trainer:
    t = lpc.Trainer(plan, device="cpu")
    t.load_state_dict({n: v for n, v in state_of(golden).items() if n in t.state_dict()} | feedback_of(golden, t))
    return t


# Published states, logits, losses and gradients


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def test_forward_states(golden: Arrays) -> None:
    """What reaches and leaves every layer; a head reads what a block hands on, normalised in each group."""
    module = build_network(load_spec(spec_of("bp"))).module
    module.load_state_dict({n: v for n, v in state_of(golden).items() if not n.startswith("heads.")})
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in module.named_modules():
        layer.register_forward_hook(lambda m, args, out, name=name: seen.update({name: (args[0], out)}))
    output = module(batch_of(golden)["image"])
    order = {"b0": ("blocks.0", ["fc", "group_fc"]), "b1": ("blocks.1", ["token", "fc", "group_fc"])}
    after = {"token": "token_relu", "fc": "fc_relu", "group_fc": "relu"}
    close(seen["patches"][1], golden["x_patches"])
    for block, (ours, layers) in order.items():
        for i, layer in enumerate(layers):
            close(seen[f"{ours}.{layer}"][0], golden[f"state/{block}/pre_{i}"], f"{layer} reads")
            close(seen[f"{ours}.{layer}"][1], golden[f"state/{block}/prenorm_{i}"], f"{layer} gives")
            post = seen[f"{ours}.{after[layer]}"][1]
            close(post.mT if layer == "token" else post, golden[f"state/{block}/post_{i}"], f"after {layer}")
        close(norm(seen[ours][1]), golden[f"state/{block}/pre_pred"])
    close(seen["readout.fc"][0], golden["state/pre_final"])
    close(output, golden["state/pred_final"])


class ByMethod(dict[str, Any]):
    """What is made of a method when it is first asked for."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, method: str) -> Any:
        return self.setdefault(method, self.make(method))


@pytest.fixture(scope="module")
def plans(built_once: Callable[[str, Callable[[], lpc.Plan]], lpc.Plan]) -> Mapping[str, lpc.Plan]:
    return ByMethod(lambda method: built_once(f"localmixer_{method}", lambda: lpc.build(spec_of(method))))


@pytest.fixture(scope="module")
def gradients(golden: Arrays, plans: Mapping[str, lpc.Plan]) -> Mapping[str, dict[str, Tensor]]:
    def found(method: str) -> dict[str, Tensor]:
        plan = plans[method]
        return loaded(plan, golden).gradients(batch_of(golden), noise=noise_of(golden, plan))

    return ByMethod(found)


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients(golden: Arrays, plans: Mapping[str, lpc.Plan], gradients: Any, method: str) -> None:
    t, batch = loaded(plans[method], golden), batch_of(golden)
    close(t.predict(batch), golden["logits/readout"])
    wanted = state_of(golden, f"grad/{method}")
    for name, gradient in gradients[method].items():
        close(gradient, wanted.pop(name), name)
    assert all(n.startswith("heads.") for n in wanted), "the file also trains heads that a global method does not have"
    metrics = t.step(batch)
    close(metrics["readout.loss"], golden["loss/final"])
    for block in ("0", "1") if "blocks.0.loss" in metrics else ():
        close(metrics[f"blocks.{block}.loss"], golden[f"loss/local_b{block}"][:, 0, 0].mean(), block)


def test_the_conventional_aggregator() -> None:
    """The mean over patches, groups side by side, one linear map: value and gradients, from the published arrays."""
    values = arrays("aggregator")
    setting = Setting((4, 2, 4), (), (3,), lambda target, output: 3)
    head = HEADS["linear"](setting, SIGNATURES["linear"].bind(Term("linear", (), {"pool": "patches"})))
    assert isinstance(head, nn.Linear)
    head.double().load_state_dict({"weight": values["W"].mT, "bias": values["b"]})
    x = values["x"].clone().requires_grad_()
    logits = head(x)
    close(logits, values["logits"])
    each = F.cross_entropy(logits, values["label"].long(), reduction="none")
    close(each[:, None, None].expand(4, 4, 2), values["loss_naive"], "each unit has the loss of its sample")
    close(each.mean(), values["conv_loss_mean"])
    each.mean().backward()
    close(x.grad, values["conv_grad_x"])
    close(head.weight.grad.mT, values["conv_grad_W"])
    close(head.bias.grad, values["conv_grad_b"])


# Published sizes


def sizes_of(row: str) -> dict[str, Any]:
    """The network of a row such as `M/8/16 (CIFAR-10)`: width, patches along an axis, groups; then the data."""
    size, side, groups = row.split(" ")[0].split("/")
    widths = {"S": (256, 1), "M": (512, 1 if "MNIST" in row else 4), "L": (2048, 4)}
    channels, blocks = widths[size]
    image = [1, 28, 28] if "MNIST" in row else [3, 32, 32] if "CIFAR" in row else [3, 224, 224]
    classes = 1000 if "K=1000" in row else 100 if "K=100" in row else 10
    return {"image": image, "side": int(side), "blocks": blocks, "channels": channels, "groups": int(groups),
            "classes": classes}  # fmt: skip


COUNTS = json.loads((GOLDEN / "localmixer_param_counts.json").read_text())


@pytest.mark.parametrize("row", COUNTS)
def test_published_counts(row: str) -> None:
    """All rows of table 1 and what they are made of, without memory for the large ones."""
    args, counts = sizes_of(row), COUNTS[row]
    spec = load_spec(spec_of("bp", **args))
    with torch.device("meta"):
        module = build_network(spec).module
        setting = Setting((args["side"] ** 2, args["groups"], args["channels"] // args["groups"]), (),
                          (args["classes"],), lambda target, output: int(output[0]))  # fmt: skip
        head = HEADS["linear"](setting, SIGNATURES["linear"].bind(Term("linear", (), {"pool": "patches"})))
    readout = sum(p.numel() for p in module.readout.parameters())
    total = sum(p.numel() for p in module.parameters())
    local = args["blocks"] * sum(p.numel() for p in head.parameters())
    assert (total - readout, local, readout) == (counts["body"], counts["local_heads"], counts["final_readout"])
    assert total + local == counts["total_all"]
    # With 1000 classes the largest network has more than the paper says; with 100 it has as many.
    assert (float(f"{total + local:.3g}") == 1000 * counts["paper_thousands"]) == ("K=1000" not in row)


@pytest.mark.parametrize(("init", "factor"), [("kaiming", 2.0), ("lecun", 1.0), ("constant", math.inf)])
def test_initial_weights(init: str, factor: float) -> None:
    """Normal with min(2 / sqrt(fan_in), 0.1) and its relatives, biases and the readout 0."""
    args = {"image": [3, 32, 32], "side": 2, "channels": 1024, "groups": 1, "init": init}
    module = build_network(load_spec(spec_of("bp", **args))).module
    layers = {768: module.blocks[0].fc, 1024: module.blocks[1].group_fc, 4: module.blocks[1].token}
    for fan_in, layer in layers.items():
        assert layer.weight.shape[-1] == fan_in
        wanted = min(factor / math.sqrt(fan_in), 0.1)
        assert layer.weight.std().item() == pytest.approx(wanted, rel=2 / math.sqrt(layer.weight.numel()))
    assert not any(p.any() for n, p in module.named_parameters() if n.endswith("bias") or n.startswith("readout"))


def test_a_plan_has_all_of_them() -> None:
    plan = lpc.build(spec_of("lg_bp", **sizes_of("S/1/1 (MNIST)")))
    assert sum(t.numel() for t in lpc.Trainer(plan, device="cpu").state_dict().values()) == 271_892


# What estimates are on average


@pytest.mark.parametrize(("method", "exact"), [("lg_fg_a", "lg_bp"), ("fg_a", "bp"), ("fg_w", "bp")])
def test_estimates_are_unbiased(
    golden: Arrays, plans: Mapping[str, lpc.Plan], gradients: Any, hand: Any, method: str, exact: str
) -> None:
    """The sum of the estimates for all unit vectors of noise is the exact gradient, of every parameter."""
    found = hand.expectation(plans[method], loaded(plans[method], golden), batch_of(golden))
    assert set(found) == set(gradients[exact])
    largest = max(float(g.abs().max()) for g in found.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, gradients[exact][name], rtol=0, atol=1e-12 * largest, msg=name)
    assert all("unbiased" in stamp for stamp in plans[method].data.report["estimators"].values())


def test_credit_that_norms_carry_is_left_out_as_published(
    golden: Arrays, plans: Mapping[str, lpc.Plan], gradients: Any, hand: Any
) -> None:
    """Weight noise of a full layer moves other groups through the norm behind it; the file has the mean without."""
    plan, wanted = plans["lg_fg_w"], state_of(golden, "expect/lg_fg_w")
    found = hand.expectation(plan, loaded(plan, golden), batch_of(golden))
    body = [n for n in found if n.startswith("blocks.")]
    assert len(body) == 10
    for name in body:
        close(found[name], wanted[name], name)
    assert "biased because norms carry the noise" in plan.data.report["estimators"]["blocks.0"]
    for layer in ("blocks.0.fc", "blocks.1.fc"):
        pair = [g[f"{layer}.weight"].flatten() for g in (found, gradients["lg_bp"])]
        assert 0.98 < float(F.cosine_similarity(*pair, dim=0)) < 0.9999, "near the exact gradient, as published"


def test_heads_learn_alike_under_every_estimator(gradients: Any) -> None:
    """Heads and the readout have exact gradients, the readout whatever its features are estimated by."""
    for name in (n for n in gradients["lg_bp"] if n.startswith(("heads.", "readout."))):
        for method in ("l_bp", "lg_fg_a", "lg_fg_w", "lg_fg_a_nonormgrad"):
            close(gradients[method][name], gradients["lg_bp"][name], f"{name} of {method}")
        for method in ("bp", "fg_a", "fg_w") if name.startswith("readout.") else ():
            close(gradients[method][name], gradients["lg_bp"][name], f"{name} of {method}")


def test_noise_of_a_unit_earns_that_units_credit_alone(golden: Arrays, plans: Mapping[str, lpc.Plan]) -> None:
    """Noise of one patch and group behind the full layer: only noise of the same unit further on earns from it."""
    t, batch, site = loaded(plans["lg_fg_a"], golden), batch_of(golden), plans["lg_fg_a"].data.program.noise
    generator = torch.Generator().manual_seed(0)

    def estimate(first: Tensor, later: Tensor, at: str) -> Tensor:
        noise = {n: torch.zeros([4 if a == "B" else a for a in site[n].type.shape]).double() for n in site}
        return t.gradients(batch, noise=noise | {at: first, "blocks.1.group_fc": later})["blocks.1.group_fc.bias"]

    def together(first: Tensor, later: Tensor, at: str) -> Tensor:
        alone = estimate(first, 0 * later, at) + estimate(0 * first, later, at)
        return estimate(first, later, at) - alone

    later = torch.randn(4, 4, 2, 4, generator=generator, dtype=torch.float64)
    for patch, group in ((0, 0), (2, 1), (3, 0)):
        first = torch.zeros(4, 4, 8, dtype=torch.float64)
        first[:, patch, 4 * group : 4 * group + 4] = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        elsewhere = later.clone()
        elsewhere[:, patch, group] = 0
        assert together(first, elsewhere, "blocks.1.fc").abs().max() < 1e-16
        assert together(first, later, "blocks.1.fc")[group].abs().max() > 1e-7
        token = torch.zeros(4, 4, 8, dtype=torch.float64)
        token[:, patch] = torch.randn(4, 8, generator=generator, dtype=torch.float64)
        elsewhere[:, patch] = 0
        assert together(token, elsewhere, "blocks.1.token").abs().max() < 1e-16
        assert bool((together(token, later, "blocks.1.token").abs().amax(1) > 1e-7).all())


# What must hold whatever the numbers


def test_the_last_block_learns_alike_with_and_without_stops(gradients: Any) -> None:
    """Its features and its loss are the same; so are what heads and the readout learn."""
    alike = [n for n in gradients["lg_bp"] if n.startswith(("blocks.1.", "heads.", "readout."))]
    assert len(alike) == 12
    for name in alike:
        close(gradients["l_bp"][name], gradients["lg_bp"][name], name)
    for name in ("readout.fc.weight", "readout.fc.bias"):
        close(gradients["bp"][name], gradients["lg_bp"][name], name)
    apart = gradients["l_bp"]["blocks.0.fc.weight"] - gradients["lg_bp"]["blocks.0.fc.weight"]
    assert apart.abs().max() > 1e-4, "the first block learns from both losses where no link stops them"


def test_losses_reach_what_lies_before_them(plans: Mapping[str, lpc.Plan]) -> None:
    """Without stops the blocks before a loss, with stops its own block; the readout's loss only the readout."""
    reach = {method: influence(plans[method].data) for method in EXACT}
    for name in (n for n in reach["bp"] if n.startswith("blocks.")):
        block = int(name.split(".")[1])
        assert set(reach["bp"][name]) == {"readout.loss"}
        assert set(reach["l_bp"][name]) == {f"blocks.{later}.loss" for later in range(block, 2)}
        assert set(reach["lg_bp"][name]) == {f"blocks.{block}.loss"}


def test_one_block_has_no_boundary_to_stop() -> None:
    """With one block, LG-BP is L-BP; with its head's weights in the readout, and neither normalised, it is BP."""
    args = {"blocks": 1, "readout_norm": False}
    plain = {m: METHODS[m]["recipe"].replace(", norm=last", "") for m in EXACT}
    links = {"l_bp": {"*": "gradient", "blocks.0->readout": "stop"}}
    found, generator = {}, torch.Generator().manual_seed(0)
    batch = {"image": torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.float64),
             "label": torch.tensor([0, 2, 1, 1, 0])}  # fmt: skip
    for method in EXACT:
        decompose = {"blocks": BLOCKS, **({"links": links[method]} if method in links else {})}
        plan = lpc.build(spec_of(method, **args) | {"recipe": plain[method], "decompose": decompose})
        t = lpc.Trainer(plan, device="cpu")
        weight = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(3, 8)
        heads = {f"{h}.{n}": v for h in ("readout.fc", "heads.blocks.0") for n, v in
                 (("weight", weight), ("bias", torch.zeros(3, dtype=torch.float64)))}  # fmt: skip
        t.load_state_dict({n: v for n, v in heads.items() if n in t.state_dict()}, strict=False)
        found[method] = t.gradients(batch)
    for name, gradient in found["bp"].items():
        close(found["l_bp"][name], gradient, name)
    for name, gradient in found["l_bp"].items():
        close(found["lg_bp"][name], gradient, name)
    close(found["lg_bp"]["heads.blocks.0.weight"], found["bp"]["readout.fc.weight"])


@pytest.mark.parametrize("method", EXACT)
def test_norms_take_scale_and_shift_away(golden: Arrays, gradients: Any, method: str) -> None:
    """A token layer's bias has no gradient; a layer's gradient has none along its weights, but for the norm's eps."""
    state, found = state_of(golden), gradients[method]
    assert found["blocks.1.token.bias"].abs().max() < 1e-14
    assert found["blocks.1.token.weight"].abs().max() > 1e-4
    for name in (n.removesuffix(".weight") for n in found if n.startswith("blocks.") and n.endswith(".weight")):
        assert abs(cosine(state, found, name)) < 1e-3, name
    # without a norm after it, a layer does learn its scale
    assert abs(cosine(state, found, "readout.fc")) > 1e-2


def cosine(state: Arrays, gradient: Arrays, layer: str) -> float:
    """The cosine of a layer's weights and bias with their gradient."""
    pair = [torch.cat([t[f"{layer}.weight"].flatten(), t[f"{layer}.bias"].flatten()]) for t in (state, gradient)]
    return float(F.cosine_similarity(*pair, dim=0))


def test_boundaries_between_layers_may_cross_a_transposition() -> None:
    """What a kernel takes lies as it was captured, contiguously, whatever view its producer ends in."""
    network = {"zoo": "localmixer", "args": {"image": [3, 4, 4], "side": 2, "blocks": 2, "channels": 8, "groups": 2}}
    said = {
        "network": network,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer", "links": "feedback"},
        "learn": [{"blocks": "*", "loss": "none", "optimizer": "sgd(lr=0.1)"}],
        "run": {"target": "cpu"},
    }
    assert lpc.verify(lpc.build(said)).ok
