"""Do full-size models build, verify and step, with the original module's outputs? Those of examples/transformers.

    python benchmarks/models.py [resnet50 vit gpt2 bert] [--batch 4] [--length 128]

Every model has a process of its own. `build s` is `lpc.build`, from YAML to plan, and `build cpu s` the processor time
in it; the eval and train errors are those of the plan's float32 output against the original module's, relative
to the largest logit, in training with the plan's own dropout masks; `step s` is the median of three steps after
one. The command exits with 1 where a plan does not verify, an error exceeds 1e-5, or ResNet-50 or ViT-B/16
takes 60 s to build.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from originals import draw, original, original_output, relative_error, training_output
from torch import Tensor

import lpc

SPECS = Path(__file__).resolve().parents[1] / "examples" / "transformers"
BUILD_LIMITS = {"resnet50": 60.0, "vit": 60.0}
TOLERANCE = 1e-5
COLUMNS = ("model", "parameters", "build s", "build cpu s", "verify", "eval error", "train error", "step s", "peak GiB")


def sample(plan: lpc.Plan, symbols: Mapping[str, int]) -> dict[str, Tensor]:
    """Draw a batch: normal numbers, masks of ones, tokens and labels below 2 that exist in every vocabulary."""
    generator = torch.Generator().manual_seed(0)
    batch = {}
    for name, kind in plan.data.program.fields.items():
        shape = [symbols[size] if isinstance(size, str) else size for size in kind.shape]
        whole = torch.ones(shape, dtype=torch.int64) if "mask" in name else torch.randint(2, shape, generator=generator)
        batch[name] = torch.randn(shape, generator=generator) if kind.dtype == "float32" else whole
    return batch


def errors(plan: lpc.Plan, batch: Mapping[str, Tensor], symbols: Mapping[str, int]) -> tuple[float, float]:
    """Return the relative errors of the plan's output against the original's, in evaluation and in training."""
    inputs = {name: batch[name] for name in plan.spec.network.inputs}
    module, noise = original(plan), draw(plan, symbols)
    found = lpc.Trainer(plan, device="cpu").predict(inputs)
    evaluation = relative_error(found, original_output(module, inputs))
    training = relative_error(training_output(plan, batch, noise), original_output(module, inputs, noise))
    return evaluation, training


def step_seconds(plan: lpc.Plan, batch: Mapping[str, Tensor], repeats: int = 3) -> float:
    """Return the median time of a training step, after one that warms up."""
    trainer = lpc.Trainer(plan, device="cpu")
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        metrics = trainer.step(batch)
        times.append(time.perf_counter() - start)
        assert all(torch.isfinite(value) for value in metrics.values())
    return statistics.median(times[1:])


def measure(name: str, symbols: Mapping[str, int]) -> bool:
    """Print one model's row; return whether it is within the limits."""
    start, used = time.perf_counter(), time.process_time()
    plan = lpc.build(SPECS / f"{name}.yaml")
    build, used = time.perf_counter() - start, time.process_time() - used
    batch = sample(plan, symbols)
    evaluation, training = errors(plan, batch, symbols)
    step = step_seconds(plan, batch)
    report = lpc.verify(plan)
    count = sum(data["num_parameters"] for _, data in plan.partition.nodes(data=True))
    verified = f"{'ok' if report.ok else 'fails'}, {report.worst:.1e}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cells = [name, f"{count:,}", f"{build:.1f}", f"{used:.1f}", verified]
    cells += [f"{evaluation:.1e}", f"{training:.1e}", f"{step:.2f}", f"{peak:.1f}"]
    print("| " + " | ".join(cells) + " |", flush=True)
    return report.ok and max(evaluation, training) <= TOLERANCE and build < BUILD_LIMITS.get(name, float("inf"))


def main() -> int:
    """Print the table, a process a model; return 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("models", nargs="*", default=[])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--row", action="store_true", help="print rows alone, in this process")
    options = parser.parse_args()
    names = options.models or ["resnet50", "vit", "gpt2", "bert"]
    if options.row:
        return int(not all(measure(n, {"B": options.batch, "T": options.length}) for n in names))
    threads = f"{torch.get_num_threads()} threads"
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {threads}, batch {options.batch}\n")
    print("| " + " | ".join(COLUMNS) + " |\n|:---|" + "---:|" * (len(COLUMNS) - 1), flush=True)
    sizes = ["--batch", str(options.batch), "--length", str(options.length), "--row"]
    done = [subprocess.run([sys.executable, __file__, name, *sizes], check=False).returncode for name in names]
    return max(done)


if __name__ == "__main__":
    raise SystemExit(main())
