"""Do local heads and losses give the published numbers? Arrays from the authors' released code, in golden/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lpc
from lpc.compiler.losses.contrastive import infonce_steps
from lpc.compiler.losses.similarity import similarity

GOLDEN = Path(__file__).with_name("golden")
Arrays = dict[str, Tensor]


def arrays(name: str) -> tuple[Arrays, dict[str, Any]]:
    """The tensors of a file, and its conventions."""
    with np.load(GOLDEN / f"{name}_f64.npz") as stored:
        tensors = {key: torch.from_numpy(stored[key]) for key in stored.files if key != "meta_json"}
        return tensors, json.loads(str(stored["meta_json"]))


def under(values: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def close(found: Tensor, wanted: Tensor, what: str = "") -> None:
    """Equal to 1e-12 of the largest value; a wanted value in float32 to float32's resolution."""
    tolerance = 1e-12 if wanted.dtype == torch.float64 else 1e-7
    wanted = wanted.double()
    scale = max(float(wanted.abs().max()), 1.0)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=tolerance * scale, msg=lambda m: f"{what}: {m}")


def trainer(
    layers: list[Any], inputs: Mapping[str, list[int]], blocks: Mapping[str, Any], learn: list[Any], **more: Any
) -> lpc.Trainer:
    spec = {
        "network": {"inputs": dict(inputs), "layers": layers},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "decompose": {"blocks": dict(blocks)},
        "learn": learn,
        "run": {"dtype": "float64", "target": "cpu"},
        **more,
    }
    return lpc.Trainer(lpc.build(spec), device="cpu")


def load(t: lpc.Trainer, values: Arrays, names: Mapping[str, str]) -> None:
    """Copy arrays into the state; `names` maps beginnings of the file's names to those of the plan's."""
    t.load_state_dict(t.state_dict() | {rename(key, names): value for key, value in values.items()})


def rename(key: str, names: Mapping[str, str]) -> str:
    old = max((o for o in names if key.startswith(o)), key=len)
    return names[old] + key.removeprefix(old)


# DGL: three blocks, two with an auxiliary network; the third one's is the network's own classifier

DGL_LAYERS: list[Any] = [
    {"c0": "conv(3, 3, padding=1)"}, {"n0": "batch_norm"}, "relu",
    {"pool": "max_pool(2)"}, {"c1": "conv(6, 3, padding=1)"}, {"n1": "batch_norm"}, "relu",
    {"c2": "conv(6, 3, padding=1)"}, {"n2": "batch_norm"}, "relu",
    {"quarter": "adaptive_avg_pool(4)"}, {"last": "adaptive_avg_pool(2)"}, "flatten",
    {"f0": "linear(24)"}, {"m0": "batch_norm"}, "relu", {"f1": "linear(24)"}, {"m1": "batch_norm"}, "relu",
    {"out": "linear(5)"},
]  # fmt: skip
DGL_BLOCKS = {
    "b0": ["c0", "n0"], "b1": ["pool", "c1", "n1"],
    "b2": ["c2", "n2", "quarter", "last", "f0", "m0", "f1", "m1", "out"],
}  # fmt: skip
DGL_NAMES = {
    "blocks.0.0.": "c0.", "blocks.0.1.": "n0.", "blocks.1.1.": "c1.", "blocks.1.2.": "n1.", "blocks.2.0.": "c2.",
    "blocks.2.1.": "n2.", "auxillary_nets.2.classifier.0.": "f0.", "auxillary_nets.2.classifier.1.": "m0.",
    "auxillary_nets.2.classifier.3.": "f1.", "auxillary_nets.2.classifier.4.": "m1.",
    "auxillary_nets.2.classifier.6.": "out.",
}  # fmt: skip
# variant -> head, and where the parts of an auxiliary network are in it
DGL_HEADS: dict[str, tuple[str, dict[str, str]]] = {
    "mlp": ("mlp", {f"classifier.{i}.": f"{3 + i}." for i in range(10)}),
    "mlp-sr": (
        "mlp_sr",
        {f"blocks.{i}.{j}.": f"{2 + 3 * i + j}." for i in range(3) for j in range(2)}
        | {f"classifier.{i}.": f"{13 + i}." for i in range(10)},
    ),
    "cnn": (
        "cnn",
        {f"blocks.{i}.{j}.": f"{1 + 3 * i + j}." for i in range(2) for j in range(2)}
        | {"bn.": "8.", "classifier.": "10."},
    ),
}


@pytest.mark.parametrize("variant", DGL_HEADS)
def test_dgl(variant: str) -> None:
    """Belilovsky et al. 2020: two steps of SGD with each auxiliary network."""
    values, meta = arrays("dgl_aux")
    head, parts = DGL_HEADS[variant]
    idle = set(meta["cfg"][f"{variant}_no_grad"])  # batch norms of the original that nothing reads
    names = DGL_NAMES | {
        f"auxillary_nets.{b}.{old}": f"heads.b{b}.{new}" for b in range(2) for old, new in parts.items()
    }
    mine = under(values, f"{variant}/")
    rule = {"blocks": "*", "head": head, "loss": "cross_entropy"}
    t = trainer(
        DGL_LAYERS, {"image": [3, 32, 32]}, DGL_BLOCKS,
        [rule | {"optimizer": "sgd(lr=0.1, momentum=0.9, weight_decay=5e-4)"}], loss="cross_entropy",
    )  # fmt: skip

    def used(part: str) -> Arrays:
        return {k: v for k, v in under(mine, part).items() if k not in idle and not is_idle_norm(k, idle)}

    load(t, used("init/"), names)
    batches = [{"image": values[f"x{i}"].double(), "label": values[f"y{i}"]} for i in range(2)]
    found = t.gradients(batches[0])
    for key, wanted in used("s0/grad/").items():
        close(found[rename(key, names)], wanted, key)
    for i, batch in enumerate(batches):
        metrics = t.step(batch)
        for b in range(3):
            close(metrics[f"b{b}.loss"], mine[f"s{i}/loss{b}"], f"loss {b}")
    state = t.state_dict()
    for key, wanted in (used("after2/") | used("buffers_after2/")).items():
        close(state[rename(key, names)], wanted, key)


def is_idle_norm(key: str, idle: set[str]) -> bool:
    return key.rpartition(".")[0] + ".weight" in idle


# pred, sim and predsim

NAMED = {"encoder.": "encoder.", "bn.": "bn."}
PREDSIM_LOSSES = {
    "pred": ["cross_entropy(head=pool_linear(64))"],
    "sim": ["sim"],
    "predsim": ["cross_entropy(weight=0.010000000000000009, head=pool_linear(64))", "sim(weight=0.99)"],
}
# A bias before batch norm has no gradient but rounding, which Adam divides by nothing but its eps.
UNDETERMINED = ("encoder.bias",)
ADAM = {"blocks": "*", "optimizer": "adam(lr=5e-4)"}


@pytest.mark.parametrize("loss", PREDSIM_LOSSES)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_predsim_blocks(kind: str, loss: str) -> None:
    """Nøkland and Eidnes 2019: loss, gradients, statistics and one step of Adam."""
    values = under(arrays("predsim_blocks")[0], f"{kind}_{loss}/")
    encoder, pooled = ("linear(8)", []) if kind == "linear" else ("conv(5, 3, padding=1)", ["global_avg_pool"])
    activation = "relu" if values["h"].min() == 0 else "leaky_relu"  # the arrays were made with either
    t = trainer(
        [{"encoder": encoder}, {"bn": "batch_norm"}, activation, *pooled, {"out": "linear(4)"}],
        {"x": list(values["x"].shape[1:])},
        {"b": ["encoder", "bn"], "out": ["out", *(f"{p}1" for p in pooled)]},
        [{"blocks": "b", "loss": PREDSIM_LOSSES[loss]}, ADAM],
        loss="cross_entropy",
    )
    single = len(PREDSIM_LOSSES[loss]) == 1
    last = 1 if kind == "linear" else 2  # of the head pool_linear, after pooling and flattening
    names = NAMED | {
        "decoder_y.": f"heads.b.{'loss' if single else 'cross_entropy0'}.{last}.",
        f"{kind}_loss.": f"heads.b.{'loss' if single else 'sim1'}.",
    }
    load(t, under(values, "init/"), names)
    batch = {"x": values["x"], "label": values["labels"]}
    found = t.gradients(batch)
    for key, wanted in under(values, "grad/").items():
        close(found[rename(key, names)], wanted, key)
    # The original adds a float32 zero to its loss, which makes it one as well.
    close(t.step(batch)["b.loss"], values["loss"].float())
    state = t.state_dict()
    for key, wanted in (under(values, "after/") | under(values, "buffers_after/")).items():
        if key not in UNDETERMINED:
            close(state[rename(key, names)], wanted, key)


def test_a_predsim_network() -> None:
    """Two blocks and the output layer, whose loss the original multiplies by 1 - beta as well."""
    values = under(arrays("predsim_blocks")[0], "net/")
    t = trainer(
        ["flatten", {"fc0": "linear(8)"}, {"bn0": "batch_norm"}, "leaky_relu", {"fc1": "linear(8)"},
         {"bn1": "batch_norm"}, "leaky_relu", {"out": "linear(5)"}],
        {"x": [1, 4, 4]},
        {"b0": ["fc0", "bn0"], "b1": ["fc1", "bn1"], "out": "out"},
        [{"blocks": "*", "loss": PREDSIM_LOSSES["predsim"]}, ADAM],
        loss="cross_entropy(weight=0.010000000000000009)",
    )  # fmt: skip
    names = {"layer_out.": "out."}
    for b in range(2):
        here, there = f"layers.{b}.", f"heads.b{b}."
        names |= {f"{here}encoder.": f"fc{b}.", f"{here}bn.": f"bn{b}."}
        names |= {f"{here}decoder_y.": f"{there}cross_entropy0.1.", f"{here}linear_loss.": f"{there}sim1."}
    load(t, under(values, "init/"), names)
    batch = {"x": values["x"], "label": values["labels"]}
    close(t.predict(batch), t.predict(values["x"]))
    found = t.gradients(batch)
    for key, wanted in under(values, "grad/").items():
        close(found[rename(key, names)], wanted, key)
    metrics = t.step(batch)
    close(metrics["b0.loss"] + metrics["b1.loss"], values["local_loss_sum"].float())
    close(metrics["out.loss"], values["global_loss_scaled"].float())
    state = t.state_dict()
    for key, wanted in under(values, "after/").items():
        if not key.endswith(UNDETERMINED):
            close(state[rename(key, names)], wanted, key)


@pytest.mark.parametrize("case", ["d2", "d4_std", "d4_flat_c3", "d4_flat_h1"])
def test_similarity_matrices(case: str) -> None:
    values = under(arrays("predsim_blocks")[0], f"sim/{case}/")
    close(similarity(values["x"]), values["R"])


# InfoNCE over rows


def draws(values: Arrays, count: int) -> Tensor:
    """The uniform numbers that pick these indices."""
    return (values.double() + 0.5) / count


@pytest.mark.parametrize("case", ["a", "b"])
def test_infonce_steps(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Löwe et al. 2019: each step's loss and all gradients, with the features or something else as the context."""
    values = under(arrays("gim_infonce_vision")[0], f"{case}/")
    leaves = {name: values[name].clone().requires_grad_() for name in ("z", "c", "Wk") if name in values}
    z, maps = leaves["z"], leaves["Wk"]
    negatives, uniform = [], []
    for k in range(1, len(maps) + 1):
        count = z[:, :, k + 1 :, :].numel() // z.shape[1]
        index = values[f"neg_index_k{k}"]
        uniform.append(draws(index, count).reshape(count, -1))
        negatives.append(uniform[-1].shape[1])
    monkeypatch.setattr(torch, "rand", lambda *sizes, device: uniform.pop(0).reshape(sizes))
    mapped = torch.einsum("koi,birc->bkorc", maps, z)
    prediction = torch.cat([leaves.get("c", z)[:, None], mapped], 1)
    options = {"skip": 1, "eps": 1e-11, "negatives": negatives[0], "within": "batch"}
    steps = torch.stack(infonce_steps(prediction, options))
    close(steps, values["loss_per_k"])
    close(steps.mean(), values["loss"])
    steps.mean().backward()
    for name, leaf in leaves.items():
        close(leaf.grad, values[f"grad_{name}"], name)


def test_infonce_in_a_plan() -> None:
    """The same through a plan: an identity convolution gives z, and negatives are fixed by their noise sites."""
    values = under(arrays("gim_infonce_vision")[0], "a/")
    z, steps = values["z"], len(values["Wk"])
    loss = f"infonce(head=nce_maps({steps}), negatives=4, skip=1, eps=1e-11)"
    t = trainer(
        [{"c": "conv(6, 1, bias=false)"}, {"pooled": "global_avg_pool"}, {"out": "linear(3)"}],
        {"x": [6, 7, 5]}, {"b": "c", "out": ["pooled", "out"]},
        [{"blocks": "*", "loss": loss, "optimizer": "sgd(lr=0.1)"}], loss="cross_entropy",
    )  # fmt: skip
    t.load_state_dict({"c.weight": torch.eye(6).double()[:, :, None, None], "heads.b.loss.weight": values["Wk"]}, False)
    noise = {}
    for k in range(1, steps + 1):
        count = z[:, :, k + 1 :, :].numel() // z.shape[1]
        noise["b.loss" if k == 1 else f"b.loss:{k - 1}"] = draws(values[f"neg_index_k{k}"], count).reshape(count, 4)
    found = t.gradients({"x": z, "label": torch.zeros(2, dtype=torch.int64)}, noise=noise)
    close(found["heads.b.loss.weight"], values["grad_Wk"])
    close(found["c.weight"][:, :, 0, 0], torch.einsum("borc,birc->oi", values["grad_z"], z))


# Forward-Forward with the peer term


def overlaid(images: Tensor, labels: Tensor) -> Tensor:
    """Write one-hot labels over the first ten pixels."""
    written = images.clone()
    written[:, 0, 0, :10] = torch.nn.functional.one_hot(labels, 10).double()
    return written


def test_forward_forward() -> None:
    """Hinton 2022 as in loeweX/Forward-Forward: losses, gradients, running means and two steps."""
    values, meta = arrays("ff_mlp_peer")
    layers: list[Any] = ["flatten"]
    for i in range(3):
        norm = {f"norm{i}": "rms_norm(eps=1e-8, affine=false, outside=true)"}
        layers += [norm, {f"layer{i}": "linear(8)"}, "relu(backward=identity)"]
    t = trainer(
        layers, {"image": [1, 28, 28]}, {f"b{i}": [f"norm{i}", f"layer{i}"] for i in range(3)},
        [{"blocks": "*", "loss": ["ff_bce", "peer"],
          "optimizer": "sgd(lr=1e-3, momentum=0.9, weight_decay=3e-4)"}],
        fields={"positive": {"shape": [], "dtype": "bool"}},
    )  # fmt: skip
    mine = {k: v for k, v in under(values, "init/").items() if not k.startswith("classifier")}
    t.load_state_dict(mine, strict=False)
    assert torch.equal(overlaid(values["s0/raw"], values["s0/labels"]), values["s0/pos_images"])
    for step in ("s0/", "s1/"):
        now = under(values, step)
        both = torch.cat([overlaid(now["raw"], now["labels"]), overlaid(now["raw"], now["neg_labels"])])
        batch = {"image": both, "positive": torch.arange(8) < 4}
        found = t.gradients(batch)
        close(t.predict(both), now["act2"])
        metrics = t.step(batch)
        state = t.state_dict()
        for i in range(3):
            close(metrics[f"b{i}.ff_bce0"], now[f"loss_layer{i}"])
            close(metrics[f"b{i}.accuracy"], now[f"ffacc_layer{i}"].float())
            close(metrics[f"b{i}.peer1"], meta["peer_weight"] * now[f"peer_loss{i}"])
            close(state[f"heads.b{i}.peer1.mean"], now[f"running_mean{i}"])
            for name in (f"layer{i}.weight", f"layer{i}.bias"):
                close(found[name], now[f"grad_{name}"], name)
                close(state[name], now[f"after_{name}"], name)
