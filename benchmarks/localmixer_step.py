"""How long is a step of the LocalMixer? A plan's time over that of the same algorithm written by hand in PyTorch.

    python benchmarks/localmixer_step.py [--size M/8/16] [--batch 100] [--methods LG-BP LG-FG-A] [--threads 1]

LG-BP by hand is a loop over blocks with `backward` and `detach`. LG-FG-A by hand takes each block's output and
tangent by `torch.func.jvp`, the credit of every patch and group as tangent times the head's derivative (no replicated
losses: a naive rival would be slower), and each layer's gradient from its saved input. Timing as in step.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from step import compare, seconds
from torch import Tensor, nn

import lpc
from lpc.compiler.frontend.localmixer import EmbeddingBlock, LocalMixer, MixingBlock

SIZES: dict[str, dict[str, Any]] = {
    "M/8/16": {"image": [3, 32, 32], "side": 8, "blocks": 4, "channels": 512, "groups": 16},
    "M/8/8": {"image": [3, 32, 32], "side": 8, "blocks": 2, "channels": 64, "groups": 8},
}
RATE = 0.1
HEAD = "linear(pool=patches, norm=last)"
OPTIMIZER = f"sgd(lr={RATE})"
RECIPES = {
    "LG-BP": f"greedy(head={HEAD}, optimizer={OPTIMIZER})",
    "LG-FG-A": f"local_forward_gradient(readout=readout, groups=GROUPS, head={HEAD}, optimizer={OPTIMIZER})",
}


def spec(size: dict[str, Any], method: str) -> dict[str, Any]:
    """The network under a method."""
    return {
        "recipe": RECIPES[method].replace("GROUPS", str(size["groups"])),
        "network": {"zoo": "localmixer", "args": size},
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"*": 'each("blocks.*")', "readout": "readout"}},
        "run": {"epochs": 1, "target": "cpu", "metrics": []},
    }


class ByHand:
    """The loop by hand, from a trainer's weights."""

    def __init__(self, size: dict[str, Any], state: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        self.batch, self.groups = batch, size["groups"]
        self.network = LocalMixer(**size)
        self.network.load_state_dict({n: t for n, t in state.items() if not n.startswith("heads.")})
        self.heads = nn.ModuleList(nn.Linear(size["channels"], 10) for _ in self.network.blocks)
        for index, head in enumerate(self.heads):
            head.load_state_dict({n: state[f"heads.blocks.{index}.{n}"] for n in ("weight", "bias")})
        parameters = [*self.network.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=RATE, fused=True)

    def local(self, index: int, y: Tensor) -> Tensor:
        pooled = F.layer_norm(y, y.shape[-1:]).mean(1).flatten(1)
        return F.cross_entropy(self.heads[index](pooled), self.batch["label"])

    def greedy(self) -> None:
        """One step of LG-BP."""
        self.optimizer.zero_grad(set_to_none=True)
        x = self.network.patches(self.batch["image"])
        for index, block in enumerate(self.network.blocks):
            x = block(x)
            self.local(index, x).backward()
            x = x.detach()
        F.cross_entropy(self.network.readout(x), self.batch["label"]).backward()
        self.optimizer.step()

    def forward_gradient(self, noise: list[list[Tensor]] | None = None) -> None:
        """One step of LG-FG-A; `noise` fixes what is drawn, for each block and layer."""
        self.optimizer.zero_grad(set_to_none=True)
        x = self.network.patches(self.batch["image"])
        for index, block in enumerate(self.network.blocks):
            drawn = noise[index] if noise else [torch.randn(shape) for shape in self.shapes(block)]
            with torch.no_grad():
                zeros = tuple(torch.zeros_like(u) for u in drawn)
                y, tangent, inputs = torch.func.jvp(perturbed(block, x), zeros, tuple(drawn), has_aux=True)
            leaf = y.requires_grad_()
            self.local(index, leaf).backward()
            assert leaf.grad is not None
            credit = (tangent * leaf.grad).sum(-1)
            for layer, seen, u in zip(LAYERS[type(block)], inputs, drawn, strict=True):
                site = normed(block, layer, seen)
                live = u * (shared(credit, layer, u) * (relu_input(block, layer, site, x) > 0))
                site.backward(live)
            x = leaf.detach()
        F.cross_entropy(self.network.readout(x), self.batch["label"]).backward()
        self.optimizer.step()

    def shapes(self, block: nn.Module) -> list[tuple[int, ...]]:
        count, patches = len(self.batch["label"]), self.network.blocks[-1].token.in_features
        channels = self.heads[0].in_features
        grouped = (count, patches, self.groups, channels // self.groups)
        return [grouped if layer == "group_fc" else (count, patches, channels) for layer in LAYERS[type(block)]]


LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    EmbeddingBlock: ("fc", "group_fc"),
    MixingBlock: ("token", "fc", "group_fc"),
}


def normed(block: Any, layer: str, x: Tensor) -> Tensor:
    """A layer and the norm behind it."""
    z = getattr(block, layer)(x)
    return getattr(block, f"{layer}_norm")(z.transpose(1, 2) if layer == "token" else z)  # type: ignore[no-any-return]


def perturbed(block: Any, x: Tensor) -> Any:
    """A block as a function of the noise behind its norms; it also returns what its layers read."""

    def run(*noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        inputs, left = [], list(noise)

        def layer(name: str, h: Tensor) -> Tensor:
            inputs.append(h.detach())
            return normed(block, name, h) + left.pop(0)

        h = x
        if isinstance(block, MixingBlock):
            h = block.token_relu(layer("token", block.before_token(block.join(x)).transpose(1, 2)))
        h = block.fc_relu(layer("fc", block.before_fc(h)))
        h = layer("group_fc", block.before_group_fc(block.split(h)))
        return block.relu(h + x if isinstance(block, MixingBlock) else h), inputs

    return run


def shared(credit: Tensor, layer: str, u: Tensor) -> Tensor:
    """The credit [B, P, G] of every element of a layer's noise."""
    if layer == "token":
        return credit.sum(2, keepdim=True)
    return credit[..., None] if layer == "group_fc" else credit.repeat_interleave(u.shape[2] // credit.shape[2], 2)


def relu_input(block: Any, layer: str, site: Tensor, x: Tensor) -> Tensor:
    """What the rectifier behind a layer reads."""
    return site.detach() + x if layer == "group_fc" and isinstance(block, MixingBlock) else site.detach()


def rivals(size: dict[str, Any], method: str, count: int) -> tuple[Any, Any]:
    """Return the plan's step and the step by hand, which must compute the same gradients first."""
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randn(count, *size["image"], generator=generator),
        "label": torch.randint(0, 10, (count,), generator=generator),
    }
    trainer = lpc.Trainer(lpc.build(spec(size, method)), device="cpu")
    hand = ByHand(size, {n: t.clone() for n, t in trainer.state_dict().items()}, batch)
    step = hand.greedy if method == "LG-BP" else hand.forward_gradient
    ensure_equal(trainer, hand, batch, method)
    return lambda: trainer.step(batch), step


def ensure_equal(trainer: lpc.Trainer, hand: ByHand, batch: dict[str, Tensor], method: str) -> None:
    """Compare all gradients of one step, of LG-FG-A under the same noise."""
    sites = trainer.plan.program.noise
    noise = {site: torch.randn([len(batch["label"]), *map(int, n.type.shape[1:])]) for site, n in sites.items()}
    found = trainer.gradients(batch, noise=noise or None)
    before = [p.detach().clone() for p in hand.optimizer.param_groups[0]["params"]]
    if method == "LG-BP":
        hand.greedy()
    else:
        blocks = enumerate(hand.network.blocks)
        hand.forward_gradient([[noise[f"blocks.{i}.{layer}"] for layer in LAYERS[type(b)]] for i, b in blocks])
    gradients = {n: p.grad for n, p in hand.network.named_parameters()}
    gradients |= {f"heads.blocks.{i}.{n}": p.grad for i, h in enumerate(hand.heads) for n, p in h.named_parameters()}
    for name, gradient in found.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m: f"{name}: {m}")  # noqa: B023
    for parameter, value in zip(hand.optimizer.param_groups[0]["params"], before, strict=True):
        parameter.data.copy_(value)


def main() -> int:
    """Print a row for each method; return 1 where the plan is slower."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--size", choices=SIZES, default="M/8/16")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--methods", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = f"{platform.machine()}, {options.threads} threads, load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, {machine}\n")
    print(f"| {options.size} | hand ms | plan / hand | least | most | CPU time |\n|---|---:|---:|---:|---:|---:|")
    slower = False
    for method in options.methods:
        plan, hand = rivals(SIZES[options.size], method, options.batch)
        seconds(plan, 2), seconds(hand, 2)
        found = [compare(plan, hand, options.pairs, 1) for _ in range(options.repetitions)]
        wall, cpu = [c.wall for c in found], statistics.median(c.cpu for c in found)
        middle, loop = statistics.median(wall), 1000 * statistics.median(c.loop for c in found)
        print(f"| {method} | {loop:.0f} | {middle:.3f} | {min(wall):.3f} | {max(wall):.3f} | {cpu:.3f} |", flush=True)
        slower = slower or middle > 1.0
    return int(slower)


if __name__ == "__main__":
    raise SystemExit(main())
