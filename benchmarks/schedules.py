"""Is a step's memory what its plan predicts, and how much do schedules save? Beside eager backprop and checkpointing.

    python benchmarks/schedules.py [vit resnet resnet50 resnet50_lokr vit_lora] [--batch N]

Every row is the peak of tensors' live bytes in one training step (`runtime/ledger.py`): what stays, which is
parameters, buffers, optimizer state, offsets and the batch, and what the step holds beside that. The rivals are an
eager loop with fused optimizers that drops gradients after each step, and the same with each block checkpointed by
torch. Each network has a process of its own. The command exits with 1 where a prediction is more than 5 % off.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lpc
from lpc.compiler.frontend.network import build_network
from lpc.runtime.ledger import Ledger

LIMIT = 0.05
MIB = 2**20
OFFSET = "bp_offset(period=2, batch=0.25, memory=recompute)"
SCHEDULES: dict[str, dict[str, Any]] = {
    "plan, backprop": {"links": "gradient", "head": None, "loss": "none"},
    "plan, backprop, recompute": {"links": "gradient", "head": None, "loss": "none", "memory": "recompute"},
    "plan, local, immediate": {},
    "plan, local + bp_offset": {"correct": OFFSET},
}
COLUMNS = ("schedule", "total", "stays", "step", "predicted", "error", "total saved", "step saved")
ADAMW, SGD = "adamw(lr=1e-3)", "sgd(lr=0.1, momentum=0.9)"


@dataclass(frozen=True)
class Net:
    """A network, its blocks, the pattern of the modules that checkpointing runs again, and the batch."""

    network: dict[str, Any]
    blocks: Any
    layer: str
    optimizer: str
    batch: int
    head: str = "linear(pool=mean)"
    more: dict[str, Any] = field(default_factory=dict)


def vit(layers: int, classes: int, **config: Any) -> dict[str, Any]:
    size = config.get("image_size", 224)
    return {
        "module": "transformers:ViTForImageClassification",
        "config": {"num_labels": classes, "num_hidden_layers": layers, **config},
        "inputs": {"pixel_values": [3, size, size]},
        "output": "logits",
    }


SMALL = {"image_size": 32, "patch_size": 4, "hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4}
RESNET50 = {
    "module": "transformers:ResNetForImageClassification",
    "config": {"num_labels": 100},
    "inputs": {"pixel_values": [3, 224, 224]},
    "output": "logits",
}
LAYERS = "resnet.encoder.stages.*.layers.*"
STAGES = {"stem": "resnet.embedder", "*": [f'each("{LAYERS}")'], "classifier": ["resnet.pooler", "classifier"]}
TOKENS = {"stem": "vit.embeddings", "*": ['each("vit.layers.*")'], "classifier": ["vit.layernorm", "classifier"]}
LOKR = 'lokr(rank=8, targets="resnet.encoder.stages.[23].layers.*.layer.1.convolution", train="classifier.*")'
LORA = 'lora(rank=8, targets="*.q_proj|*.v_proj", train="classifier.*")'
NETS: dict[str, Net] = {
    "vit": Net(vit(16, 10, **SMALL), TOKENS, "vit.layers.*", ADAMW, 64),
    "resnet": Net(
        {"zoo": "resnet18", "args": {"width": 16}, "inputs": {"image": [3, 32, 32]}},
        {"stem": ["conv1", "bn1"], "*": ['each("layer?.*")'], "fc": ["fc"]},
        "layer?.?",
        SGD,
        64,
    ),
    "resnet50": Net(RESNET50, STAGES, LAYERS, SGD, 16),
    "resnet50_lokr": Net(RESNET50, STAGES, LAYERS, SGD, 16, more={"adapters": [LOKR]}),
    "vit_lora": Net(vit(12, 100), TOKENS, "vit.layers.*", ADAMW, 16, more={"adapters": [LORA]}),
}


def spec(net: Net, schedule: Mapping[str, Any]) -> dict[str, Any]:
    """One network under one schedule; everything else is the same."""
    learn: dict[str, Any] = {"blocks": "*", "optimizer": net.optimizer, "head": net.head, "loss": "cross_entropy"}
    learn |= {key: value for key, value in schedule.items() if key != "links"}
    return {
        "network": net.network,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": net.blocks, "links": schedule.get("links", "stop")},
        "learn": [{key: value for key, value in learn.items() if value is not None}],
        "run": {"epochs": 1, "target": "cpu", "metrics": []},
        **net.more,
    }


def sample(net: Net, size: int) -> dict[str, Tensor]:
    """Return random images and labels."""
    ((name, shape),) = net.network["inputs"].items()
    return {name: torch.randn(size, *shape), "label": torch.randint(0, 10, (size,))}


def eager(net: Net, batch: Mapping[str, Tensor], checkpointed: bool) -> tuple[int, int]:
    """Return the peak of an eager step, and what stays of it from step to step."""
    module = build_network(lpc.check(spec(net, SCHEDULES["plan, backprop"]))).module.train()
    if checkpointed:
        chosen = (part for name, part in module.named_modules() if _matches(name, net.layer))
        for part in chosen:
            part.forward = again(part.forward)
    trained = [p for p in module.parameters() if p.requires_grad]
    kind = torch.optim.AdamW if net.optimizer == ADAMW else torch.optim.SGD
    options: dict[str, Any] = {"lr": 1e-3} if kind is torch.optim.AdamW else {"lr": 0.1, "momentum": 0.9}
    optimizer = kind(trained, fused=True, **options)
    inputs = {name: value for name, value in batch.items() if name != "label"}

    def step() -> None:
        found = module(**inputs)
        nn.functional.cross_entropy(getattr(found, "logits", found), batch["label"]).backward()
        del found
        optimizer.step()
        optimizer.zero_grad()

    step()
    states = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    with Ledger([*module.parameters(), *module.buffers(), *states, *batch.values()]) as ledger:
        stays = ledger.live
        step()
    return ledger.peak, stays


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(
        w == "*" or p == w or (w[-1] == "?" and p[:-1] == w[:-1]) for p, w in zip(parts, wanted, strict=True)
    )


def again(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward that saves its inputs alone and runs again in the backward pass."""
    return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)


def planned(net: Net, batch: dict[str, Tensor], schedule: str) -> tuple[int, int, int, int]:
    """Return measured peak, what stays, the predicted peak, and the number of blocks."""
    plan = lpc.build(spec(net, SCHEDULES[schedule]))
    found = lpc.Trainer(plan, device="cpu").measure(batch)
    size = len(batch["label"])
    return found["measured"], plan.memory(size).resident, found["predicted"], len(plan.partition)


def table(name: str, size: int | None) -> bool:
    """Print one network's table; return whether all predictions are near enough."""
    net = NETS[name]
    batch = sample(net, size or net.batch)
    backprop, stays = eager(net, batch, False)
    rows = {"eager backprop": (backprop, stays, None), "eager backprop, checkpointed": (*eager(net, batch, True), None)}
    blocks = 0
    print(f"\n{name}, batch {len(batch['label'])}\n", flush=True)
    print(f"| {' | '.join(COLUMNS)} |\n|:---|{'---:|' * (len(COLUMNS) - 1)}")
    worst = 0.0
    for schedule in (*rows, *SCHEDULES):
        if schedule in SCHEDULES:
            total, kept, predicted, blocks = planned(net, batch, schedule)
            rows[schedule] = (total, kept, predicted)
        total, kept, told = rows[schedule]
        error = None if told is None else told / total - 1
        worst = max(worst, abs(error or 0.0))
        cells = [schedule, *(f"{value / MIB:.1f}" for value in (total, kept, total - kept))]
        cells += ["", ""] if told is None or error is None else [f"{told / MIB:.1f}", f"{100 * error:+.2f} %"]
        cells += [f"{100 * (1 - total / backprop):.0f} %", f"{100 * (1 - (total - kept) / (backprop - stays)):.0f} %"]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{blocks} blocks; MiB", flush=True)
    return worst <= LIMIT


def main() -> int:
    """Print the tables, a process a network; return 1 where a prediction is too far off."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("nets", nargs="*", default=[])
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--table", action="store_true", help="print tables alone, in this process")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.table:
        return int(not all(table(name, options.batch) for name in options.nets))
    print(f"torch {torch.__version__}, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}")
    size = [] if options.batch is None else ["--batch", str(options.batch)]
    line = [sys.executable, __file__, "--table", *size]
    return max(subprocess.run([*line, name], check=False).returncode for name in options.nets or NETS)


if __name__ == "__main__":
    raise SystemExit(main())
