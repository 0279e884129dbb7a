"""How much memory does a schedule need? Peak live bytes of one step, beside eager backprop and checkpointing.

    python benchmarks/memory.py [--blocks 8 16]

Counted is every tensor that a step makes, other than parameters, their gradients and optimizer state. The
command exits with 1 where an immediate plan needs more than 1.1 times one block's step with its input.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lpc
from lpc.runtime.ledger import Ledger

CHANNELS, SIDE, BATCH = 16, 32, 8
LIMIT = 1.1
MIB = 2**20


def spec(blocks: int, links: str, loss: str, memory: str) -> dict[str, Any]:
    """Equal blocks of convolution, batch norm and ReLU, then a linear readout on the mean."""
    run: dict[str, Any] = {"epochs": 1, "target": "cpu", "metrics": []}
    learn: dict[str, Any] = {"blocks": "*", "optimizer": "sgd(lr=0.01)", "head": "linear(pool=mean)", "loss": loss}
    if memory == "summed":
        run["memory"] = "summed"
    else:
        learn["memory"] = memory
    body = [f"conv({CHANNELS}, 3, padding=1, bias=false)", "batch_norm", "relu"]
    return {
        "network": {
            "inputs": {"image": [CHANNELS, SIDE, SIDE]},
            "layers": [{"stack": {f"repeat({blocks})": body}}, "global_avg_pool", {"out": "linear(10)"}],
        },
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"*": ['each("stack.*")'], "out": ["out"]}, "links": links},
        "learn": [learn, {"blocks": "out", "loss": "cross_entropy"}],
        "run": run,
    }


def block() -> nn.Sequential:
    """The same block by hand."""
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(CHANNELS), nn.ReLU())


def head() -> nn.Sequential:
    """The readout by hand."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def peak(step: Callable[[], object]) -> float:
    """Return the peak in MiB of the second step: the first makes optimizer state."""
    step()
    with Ledger() as ledger:
        step()
    return ledger.peak / MIB


def eager_backprop(blocks: int, batch: dict[str, Tensor], checkpointed: bool) -> float:
    """Backprop by hand, or with each block checkpointed."""
    stack, readout = nn.ModuleList(block() for _ in range(blocks)), head()
    optimizer = torch.optim.SGD([*stack.parameters(), *readout.parameters()], lr=0.01)

    def step() -> None:
        x = batch["image"]
        for part in stack:
            x = checkpoint(part, x, use_reentrant=False) if checkpointed else part(x)
        nn.functional.cross_entropy(readout(x), batch["label"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return peak(step)


def eager_block(batch: dict[str, Tensor]) -> float:
    """One block's local step by hand, its input counted: the least that immediate local learning can hold."""
    part, readout = block(), head()
    optimizer = torch.optim.SGD([*part.parameters(), *readout.parameters()], lr=0.01)

    def step() -> None:
        x = batch["image"].clone()
        nn.functional.cross_entropy(readout(part(x)), batch["label"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return peak(step)


def saved_by_block(batch: dict[str, Tensor]) -> float:
    """Return the MiB that autograd saves for one block's backward, its input counted, weights left out.

    This counts nothing but what is kept between forward and backward: no output, no temporary.
    """
    part, readout = block(), head()
    x = batch["image"].clone()
    owned = {p.untyped_storage().data_ptr() for p in (*part.parameters(), *readout.parameters(), batch["label"])}
    found = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = nn.functional.cross_entropy(readout(part(x)), batch["label"])
    del loss
    return sum(found.values()) / MIB


def planned(blocks: int, batch: dict[str, Tensor], links: str, loss: str, memory: str) -> float:
    """One step of a plan."""
    trainer = lpc.Trainer(lpc.build(spec(blocks, links, loss, memory)), device="cpu")
    return peak(lambda: trainer.step(batch))


def measure(blocks: int, batch: dict[str, Tensor]) -> dict[str, float]:
    """Return the peak in MiB for every way to train `blocks` blocks."""
    return {
        "eager backprop": eager_backprop(blocks, batch, False),
        "eager backprop, checkpointed blocks": eager_backprop(blocks, batch, True),
        "plan, backprop": planned(blocks, batch, "gradient", "none", "immediate"),
        "plan, backprop, recompute": planned(blocks, batch, "gradient", "none", "recompute"),
        "plan, local, summed": planned(blocks, batch, "stop", "cross_entropy", "summed"),
        "plan, local, immediate": planned(blocks, batch, "stop", "cross_entropy", "immediate"),
    }


def main() -> int:
    """Print the tables; return 1 where the limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--blocks", type=int, nargs="*", default=[8, 16])
    torch.manual_seed(0)
    batch = {"image": torch.randn(BATCH, CHANNELS, SIDE, SIDE), "label": torch.randint(0, 10, (BATCH,))}
    print(f"torch {torch.__version__}, {platform.machine()}; MiB, batch {BATCH}x{CHANNELS}x{SIDE}x{SIDE}")
    alone = eager_block(batch)
    print(f"one block alone, eager, with its input: peak {alone:.2f}, of which saved {saved_by_block(batch):.2f}")
    missed = False
    for blocks in parser.parse_args().blocks:
        rows = measure(blocks, batch)
        print(f"\n| {blocks} blocks | MiB | x one block |\n|---|---:|---:|")
        for name, value in rows.items():
            print(f"| {name} | {value:.2f} | {value / alone:.2f} |")
        missed = missed or rows["plan, local, immediate"] > LIMIT * alone
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
