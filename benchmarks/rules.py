"""What does the BP-modified rule gain, and what does it cost? Local rules with and without offsets, beside backprop.

    LPC_DATA=... python benchmarks/rules.py [--net resnet vit] [--rule RULE ...] [--samples 5000] [--epochs 3]

CIFAR-10, its first training samples, the whole test set. Accuracy is that of the network's output, under NT-Xent that
of a linear probe of the features before the projector, which learns beside them and changes nothing; seconds are the
mean processor time of a step over three periods of the offset, also as a multiple of the first rule's, whose steps are
taken in turn with them; MiB the peak of a step with all that it holds, over one period, measured and as predicted from
the plan. One thread. `--epochs 0` trains nothing: what a step costs, alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import replace
from typing import Any

import torch

import lpc

MIB = 2**20
COLUMNS = ("test accuracy", "s a step", "over the first", "MiB", "predicted MiB")
PERIOD = 10
# What an offset costs and how noisy it is: measured rarely on few samples, or often on the whole batch.
RARE = f"bp_offset(period={PERIOD}, batch=0.25, memory=recompute)"
OFTEN = "bp_offset(period=2, batch=1.0, memory=recompute)"
NETS: dict[str, dict[str, Any]] = {
    "resnet": {
        "network": {"zoo": "resnet18", "args": {"width": 16}, "inputs": {"image": [3, 32, 32]}},
        "blocks": {"b1": ["conv1", "bn1", "layer1"], "b2": ["layer2"], "b3": ["layer3"], "b4": ["layer4", "fc"]},
        "contrastive": {"b1": ["conv1", "bn1", "layer1"], "b2": "layer2", "b3": "layer3", "b4": "layer4", "out": "fc"},
        "outputs": ("args", "classes"),
        "head": "gap_linear",
        "optimizer": "sgd(lr=0.05, momentum=0.9, weight_decay=5e-4)",
    },
    "vit": {
        "network": {
            "module": "transformers:ViTForImageClassification",
            "config": {
                "image_size": 32, "patch_size": 4, "hidden_size": 96, "intermediate_size": 192, "num_labels": 10,
                "num_hidden_layers": 8, "num_attention_heads": 4, "hidden_dropout_prob": 0.0,
            },
            "inputs": {"pixel_values": [3, 32, 32]},
            "output": "logits",
        },
        "blocks": "balanced(count=4, by=memory)",
        "contrastive": {
            "b1": ["vit.embeddings", "vit.layers.0", "vit.layers.1"], "b2": ["vit.layers.2", "vit.layers.3"],
            "b3": ["vit.layers.4", "vit.layers.5"], "b4": ["vit.layers.6", "vit.layers.7"],
            "out": ["vit.layernorm", "classifier"],
        },
        "outputs": ("config", "num_labels"),
        "head": "token",
        "optimizer": "adamw(lr=1e-3, weight_decay=0.05)",
    },
}  # fmt: skip
# name -> the link on each boundary, whether blocks have losses of their own, and the offset that corrects them
RULES: dict[str, tuple[str, bool, str]] = {
    "backprop": ("gradient", False, "none"),
    "local (horizon 1)": ("stop", True, "none"),
    "local + rare offset": ("stop", True, RARE),
    "local + often offset": ("stop", True, OFTEN),
    "horizon 2": ("gradient(reach=1, only=furthest)", True, "none"),
    "horizon 2 + rare offset": ("gradient(reach=1, only=furthest)", True, RARE),
    "horizon 2 + often offset": ("gradient(reach=1, only=furthest)", True, OFTEN),
    "overlap (LoCo's routing)": ("gradient(reach=1)", True, "none"),
    "overlap + rare offset": ("gradient(reach=1)", True, RARE),
    "overlap + often offset": ("gradient(reach=1)", True, OFTEN),
}
# NT-Xent of two augmented views, of a projector at the network's end and of one at each block; it compares the samples
# of a whole batch, and so do the offsets.
NT_XENT = "nt_xent(temperature=0.2)"
CONTRASTIVE: dict[str, tuple[str, bool, str]] = {
    "NT-Xent, backprop (SimCLR)": ("gradient", False, "none"),
    "NT-Xent, overlap (LoCo)": ("gradient(reach=1)", True, "none"),
    "LoCo + rare offset": ("gradient(reach=1)", True, f"bp_offset(period={PERIOD}, batch=1.0, memory=recompute)"),
    "LoCo + often offset": ("gradient(reach=1)", True, OFTEN),
}
VIEWS = [{"random_resized_crop": {"size": 32, "scale": [0.2, 1.0]}}, "flip", "color_jitter", "grayscale"]


def spec(net: dict[str, Any], rule: str, epochs: int, seed: int) -> dict[str, Any]:
    """One network under one rule; everything else is the same."""
    links, local, correct = RULES[rule]
    learn: dict[str, Any] = {"blocks": "*", "optimizer": net["optimizer"], "schedule": "cosine"}
    learn |= {"head": net["head"], "loss": "cross_entropy"} if local else {"loss": "none"}
    learn |= {"correct": correct}
    field = next(iter(net["network"]["inputs"]))
    return {
        "network": net["network"],
        "data": {
            "source": "parquet",
            "root": f"{os.environ['LPC_DATA']}/cifar10",
            "batch": 64,
            "columns": {field: "image"} if field != "image" else {},
            "transforms": ["flip", "normalize([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])"],
        },
        "loss": "cross_entropy",
        "decompose": {"blocks": net["blocks"], "links": links},
        "learn": [learn],
        "run": {"epochs": epochs, "seed": seed, "target": "cpu", "validate": "none", "log": "none"},
    }


def contrastive(net: dict[str, Any], rule: str, epochs: int, seed: int) -> dict[str, Any]:
    """The same network without labels, through kornia's transforms; its outputs are 64 numbers for NT-Xent."""
    links, local, correct = CONTRASTIVE[rule]
    plain = spec(net, "backprop", epochs, seed)
    arguments, outputs = net["outputs"]
    network = plain["network"] | {arguments: plain["network"].get(arguments, {}) | {outputs: 64}}
    learn: dict[str, Any] = {"blocks": "*", "optimizer": net["optimizer"], "schedule": "cosine", "correct": correct}
    learn |= {"head": "simclr_mlp(out=64)", "loss": NT_XENT} if local else {"loss": "none"}
    probe = {"from": ["b4"], "head": net["head"], "classes": 10, "optimizer": net["optimizer"], "schedule": "cosine"}
    return plain | {
        "network": network,
        "data": plain["data"] | {"views": 2, "transforms": [*VIEWS, plain["data"]["transforms"][-1]]},
        "loss": NT_XENT,
        "decompose": {"blocks": net["contrastive"], "links": links},
        "learn": [learn],
        "readouts": {"probe": probe},
        "run": plain["run"] | {"predict": "readout(probe)"},
    }


def peak(trainer: lpc.Trainer) -> tuple[float, float]:
    """Return the peak MiB of a step, everything in it, measured over a period of the offset, and as predicted."""
    batch = trainer.splits.train[torch.arange(trainer.batch_size)]
    found = trainer.measure({name: batch[name] for name in trainer.plan.program.fields})
    return found["measured"] / MIB, found["predicted"] / MIB


def seconds(*trainers: lpc.Trainer) -> list[float]:
    """Return each one's mean seconds of a step, in turn over three periods: steps with a refresh take longer."""
    batches = [t.splits.train[torch.arange(t.batch_size)] for t in trainers]
    found = [0.0] * len(trainers)
    for _ in range(3):
        for i, trainer in enumerate(trainers):
            start = time.process_time()
            for _ in range(PERIOD):
                trainer.step(batches[i])
            found[i] += time.process_time() - start
    return [total / (3 * PERIOD) for total in found]


def accuracy_of(plan: lpc.Plan, data: Any) -> str:
    """Train, and return the accuracy on the test set."""
    return f"{lpc.Trainer(plan, device='cpu', data=data).fit()['test_accuracy']:.3f}"


def main() -> int:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--net", nargs="*", default=list(NETS))
    parser.add_argument("--rule", nargs="*", default=[*RULES, *CONTRASTIVE], metavar="RULE")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = f"{options.samples} samples, {options.epochs} epochs, seed {options.seed}"
    print(f"torch {torch.__version__}, {platform.machine()}, one thread; {size}, batch 64")
    for name in options.net:
        print(f"\n| {name} | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
        first: lpc.Trainer | None = None
        for rule in options.rule:
            said = contrastive if rule in CONTRASTIVE else spec
            plan = lpc.build(said(NETS[name], rule, max(options.epochs, 1), options.seed))
            whole = lpc.Trainer(plan, device="cpu").splits
            data = replace(whole, train=whole.train.subset(torch.arange(options.samples), training=True))
            accuracy = accuracy_of(plan, data) if options.epochs else "-"
            measured = lpc.Trainer(plan, device="cpu", data=data)
            memory, predicted = peak(measured)
            first = first or measured
            beside, step = seconds(first, measured)
            cost = f"{step:.3f} | {step / beside:.2f} | {memory:.1f} | {predicted:.1f}"
            print(f"| {rule} | {accuracy} | {cost} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
