"""Is what a spec's plan would need known before it is built? Estimated peaks beside measured ones, and a large model.

    python benchmarks/estimates.py [NAME ...] [--large [LAYERS]]

Estimated is `lpc build --estimate`, which makes no weights; measured the most that tensors held in one step of the
built plan on random numbers (`runtime/ledger.py`), on the CPU. `--large` estimates a transformer of 6.7 billion
parameters instead, with processor time and the most memory that the process had. The command exits with 1 where an
estimate is more than 5 % off, or the large model took more than 120 seconds of processor time.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

import lpc

LIMIT, SECONDS = 0.05, 120.0
MIB = 2**20
LABEL: dict[str, Any] = {"fields": {"label": {"shape": [], "dtype": "int64"}}, "loss": "cross_entropy"}
RUN: dict[str, Any] = {"run": {"epochs": 1, "target": "cpu"}}
HEADS: dict[str, Any] = {"blocks": "*", "head": "linear(pool=mean)", "loss": "cross_entropy"}
MIXER = {"zoo": "localmixer", "args": {"image": [1, 28, 28], "side": 4, "blocks": 2, "channels": 64, "groups": 4}}
MIXED = {"blocks": {"*": 'each("blocks.*")', "readout": "readout"}}
CONVOLUTIONS = [
    layer for width in (32, 32, 64, 64) for layer in (f"conv({width}, 3, padding=1)", "batch_norm", "relu")
]
MLP = ["flatten", {"fc1": "linear(512)"}, "relu", {"fc2": "linear(512)"}, "relu", {"out": "linear(10)"}]
VIT: dict[str, Any] = {
    "module": "transformers:ViTForImageClassification",
    "config": {"num_labels": 10, "num_hidden_layers": 4, "image_size": 32, "patch_size": 4, "hidden_size": 96,
               "intermediate_size": 192, "num_attention_heads": 4},
    "inputs": {"pixel_values": [3, 32, 32]},
    "output": "logits",
}  # fmt: skip
TOKENS = {"stem": "vit.embeddings", "*": ['each("vit.layers.*")'], "classifier": ["vit.layernorm", "classifier"]}


def network(layers: list[Any], shape: list[int]) -> dict[str, Any]:
    return {"network": {"inputs": {"image": shape}, "layers": layers}}


def solved(recipe: str) -> dict[str, Any]:
    """The deep autoencoder under a recipe that solves a local problem for each layer."""
    loss = "binary_cross_entropy(target=image, reduction=batchmean)"
    return {"recipe": recipe, "network": {"zoo": "autoencoder"}, **LABEL, "loss": loss, **RUN}


def recurrent() -> dict[str, Any]:
    """A recurrent net of seven steps by alternating minimisation; random digits."""
    decompose = {"blocks": 'unroll("cell")', "shared": "sum"}
    args = {"image": [1, 28, 28], "steps": 7, "hidden": 64}
    return {"recipe": "altmin", "network": {"zoo": "elman", "args": args}, "decompose": decompose, **LABEL, **RUN}


def cached() -> dict[str, Any]:
    """Variables that each sample keeps."""
    learn = [{"blocks": "*", "loss": "consistency(weight=1.0)", "optimizer": "sgd(lr=0.1)"}]
    links = "variable(steps=2, init=cache, refresh=2)"
    decompose = {"blocks": "per_layer", "at": "activation", "links": links}
    return {**network(MLP, [1, 28, 28]), "decompose": decompose, "learn": learn, **LABEL, **RUN}


# A plan of its own kind each: its spec, and the batch.
PLANS: dict[str, tuple[dict[str, Any], int]] = {
    "mlp, backprop": (
        {**network(MLP, [1, 28, 28]), "decompose": {"blocks": "per_layer", "links": "gradient"},
         "learn": [{"blocks": "*", "optimizer": "adam(lr=1e-3)"}], **LABEL, **RUN}, 128,
    ),
    "batch-norm convolutions, local losses": (
        {**network([*CONVOLUTIONS, "global_avg_pool", {"out": "linear(10)"}], [3, 32, 32]),
         "decompose": {"blocks": "per_layer", "links": "stop"}, "learn": [{**HEADS, "optimizer": "sgd(lr=0.1)"}],
         **LABEL, **RUN}, 32,
    ),
    "resnet18/8, local losses + offset": (
        {"network": {"zoo": "resnet18", "args": {"width": 8}, "inputs": {"image": [3, 32, 32]}},
         "decompose": {"blocks": {"stem": ["conv1", "bn1"], "*": ['each("layer?.*")'], "fc": "fc"}, "links": "stop"},
         "learn": [{**HEADS, "optimizer": "sgd(lr=0.1, momentum=0.9)", "correct": "bp_offset(period=2, batch=0.25)"}],
         **LABEL, **RUN}, 32,
    ),
    "vit, backprop, recomputed": (
        {"network": VIT, "decompose": {"blocks": TOKENS, "links": "gradient"},
         "learn": [{"blocks": "*", "memory": "recompute", "optimizer": "adamw(lr=1e-3)"}], **LABEL, **RUN}, 32,
    ),
    "vit with LoRA, local losses": (
        {"network": VIT, "adapters": ['lora(rank=4, targets="*.q_proj|*.v_proj", train="classifier.*")'],
         "decompose": {"blocks": TOKENS, "links": "stop"}, "learn": [{**HEADS, "optimizer": "adamw(lr=1e-3)"}],
         **LABEL, **RUN}, 32,
    ),
    "localmixer, forward gradients": (
        {"recipe": "local_forward_gradient(readout=readout, groups=4, head=linear(pool=patches, norm=last), "
                   "optimizer=sgd(lr=0.1))",
         "network": MIXER, "decompose": MIXED, **LABEL, **RUN}, 64,
    ),
    "localmixer, two views contrasted": (
        {"network": MIXER, "decompose": {**MIXED, "links": "stop"},
         "learn": [{"blocks": "*", "head": "linear(pool=mean, out=32)", "loss": "nt_xent(temperature=0.5)",
                    "optimizer": "sgd(lr=0.05)"}], **LABEL, **RUN}, 64,
    ),
    "autoencoder, LocoProp": (solved("locoprop(variant=m)"), 256),
    "autoencoder, proximal steps": (solved("proxprop"), 256),
    "mlp, variables (BlockProp)": (
        {"recipe": "blockprop", **network(MLP, [1, 28, 28]), **LABEL, **RUN}, 128,
    ),
    "mlp, variables kept for each sample": (cached(), 128),
    "recurrent, alternating minimisation": (recurrent(), 64),
}  # fmt: skip


def large(layers: int, links: str) -> dict[str, Any]:
    """A transformer, of the size of Llama-7B at 32 layers: backpropagation with a block a layer, or local losses."""
    heads = f"balanced(count={max(1, layers // 4)}, by=memory)"
    chain = {"embed": "model.embed_tokens", "*": ['each("model.layers.*")'], "head": ["model.norm", "lm_head"]}
    loss = "cross_entropy(target=input_ids, shift=1)"
    local = {} if links == "gradient" else {"head": "linear", "loss": loss}
    return {
        "network": {
            "module": "transformers:LlamaForCausalLM",
            "config": {"num_hidden_layers": layers, "hidden_size": 4096, "intermediate_size": 11008,
                       "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000},
            "inputs": {"input_ids": {"shape": [512], "dtype": "int64"}},
            "output": "logits",
        },
        "loss": loss,
        "decompose": {"blocks": chain if links == "gradient" else heads, "links": links},
        "learn": [{"blocks": "*", "optimizer": "adamw(lr=3e-4)", **local}],
        **RUN,
    }  # fmt: skip


def sample(fields: Mapping[str, Any], size: int) -> dict[str, Tensor]:
    """Return random numbers for each field, classes below 2; samples have an index where one is asked for."""
    batch: dict[str, Tensor] = {}
    for name, kind in fields.items():
        shape = [size if length == "B" else int(length) for length in kind.shape]
        whole = torch.arange(size) if name == "index" else torch.randint(2, shape)
        batch[name] = torch.rand(shape) if kind.dtype == "float32" else whole.to(getattr(torch, kind.dtype))
    return batch


@dataclass(frozen=True)
class Row:
    """A plan's peak in bytes, as estimated from its spec and as measured."""

    name: str
    estimated: int
    measured: int

    @property
    def error(self) -> float:
        """How far the estimate is off, as a share of what was measured."""
        return self.estimated / self.measured - 1.0


def compare(name: str, spec: dict[str, Any], size: int) -> Row:
    """Estimate a spec, build its plan, and measure it."""
    told = lpc.estimate(spec, batch=size).memory.total
    plan = lpc.build(spec)
    found = lpc.Trainer(plan, device="cpu").measure(sample(plan.data.program.fields, size))
    return Row(name, told, found["measured"])


def estimate_large(layers: int, links: str) -> bool:
    """Print what a large model would need, and what it took to find out; return whether that was little enough."""
    wall, start = time.perf_counter(), time.process_time()
    found = lpc.estimate(large(layers, links), batch=1)
    spent, used = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    weights = sum(row.parameters for row in found.memory.blocks)
    cells = [f"{layers} layers, {links}", f"{weights / 4e9:.2f}", f"{found.memory.total / 2**30:.1f}"]
    cells += [f"{found.cost.flops / 1e12:.2f}", f"{spent:.1f}", f"{time.perf_counter() - wall:.0f}", f"{used:.0f}"]
    print(f"| {' | '.join(cells)} |", flush=True)
    return spent <= SECONDS


def main() -> int:
    """Print the tables; return 1 where an estimate is too far off, or took too long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help="plans whose names begin so; all of them without any")
    parser.add_argument("--large", type=int, nargs="?", const=32, metavar="LAYERS")
    parser.add_argument("--links", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if options.links:
        return int(not estimate_large(options.large, options.links))
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {platform.machine()}, load {load:.0f}, {datetime.now(UTC):%Y-%m-%d}\n")
    if options.large:
        print("| model | 10^9 parameters | peak, GiB | 10^12 flops | processor, s | wall, s | RSS, MiB |")
        print("|:---|---:|---:|---:|---:|---:|---:|", flush=True)
        line = [sys.executable, __file__, "--large", str(options.large), "--links"]
        return max(subprocess.run([*line, links], check=False).returncode for links in ("gradient", "stop"))
    print("| plan | batch | estimated, MiB | measured, MiB | error |\n|:---|---:|---:|---:|---:|", flush=True)
    worst = 0.0
    for name, (spec, size) in PLANS.items():
        if not options.names or name.startswith(tuple(options.names)):
            row = compare(name, spec, size)
            worst = max(worst, abs(row.error))
            cells = [name, str(size), f"{row.estimated / MIB:.2f}", f"{row.measured / MIB:.2f}"]
            print(f"| {' | '.join(cells)} | {100 * row.error:+.3f} % |", flush=True)
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
