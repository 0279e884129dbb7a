"""How is a plan looked at closely? With every float32 read as float64, on batches that every part of it can take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass, replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lpc.compiler.capture.tracing import length_hints
from lpc.compiler.capture.types import dtype_of
from lpc.compiler.relaxation import INDEX
from lpc.runtime.noise import LAWS
from lpc.specs.plan.instructions import Instruction, Part
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Noise, Plan, Program

BATCH = 4


def promote(plan: Plan) -> Plan:
    """Return the plan with every float32, in kernels, types and weights, read as float64.

    Its optimizers have no schedules: one step tells nothing of them, and they may need the length of a run.
    """
    program = _promoted(plan.program)
    optimizers = {name: replace(o, schedule={}) for name, o in program.optimizers.items()}
    weights = {n: in_double(t) for n, t in safetensors.torch.load(bytes(plan.weights)).items()}
    return replace(
        plan,
        program=replace(program, optimizers=optimizers),
        kernels=_promoted(dict(plan.kernels)),
        weights=safetensors.torch.save(weights),
    )


def _promoted(value: Any) -> Any:
    """Rewrite dataclasses, containers and the JSON arguments of nodes; other values stay."""
    if isinstance(value, TensorType):
        return replace(value, dtype="float64") if value.dtype == "float32" else value
    if value == {"dtype": "float32"}:
        return {"dtype": "float64"}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _promoted(getattr(value, f.name)) for f in dataclass_fields(value)})
    if isinstance(value, dict):
        return {key: _promoted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_promoted(item) for item in value)
    return value


def in_double(tensor: Tensor) -> Tensor:
    """Read a float32 as float64; other tensors stay."""
    return tensor.double() if tensor.dtype == torch.float32 else tensor


def sample_batch(plan: Plan, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw a batch: normal numbers, class indices that exist, masks of ones."""
    return {name: _sample(plan, name, kind, generator) for name, kind in plan.program.fields.items()}


def batch_size(program: Program) -> int:
    """Return a number of samples of which the smallest piece of any `part` has two, enough for a batch norm."""
    return max([BATCH, *(math.ceil(2 * pieces) for step in program.steps for pieces in _divisions(step, 1.0))])


def _divisions(body: Sequence[Instruction], around: float) -> Iterator[float]:
    """Yield of each `part` of a body how many of its pieces the whole batch would make."""
    for instruction in body:
        own = around
        if isinstance(instruction, Part):
            own *= instruction.pieces / min(instruction.share, 1.0)
            yield own
        yield from _divisions(getattr(instruction, "body", ()), own)


def _sample(plan: Plan, name: str, kind: TensorType, generator: torch.Generator) -> Tensor:
    shape = _sizes(kind, batch_size(plan.program))
    dtype = dtype_of(kind.dtype)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=dtype)
    if name == INDEX:
        return torch.arange(shape[0])
    if "mask" in name:
        return torch.ones(shape, dtype=dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def sample_noise(plan: Plan, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw every random site's noise for one batch."""
    batch = batch_size(plan.program)
    return {site: _draw(noise, batch, generator) for site, noise in plan.program.noise.items()}


def _draw(noise: Noise, batch: int, generator: torch.Generator) -> Tensor:
    empty = torch.empty(_sizes(noise.type, batch), dtype=dtype_of(noise.type.dtype))
    return LAWS[noise.law](empty, noise.args, generator)


def _sizes(kind: TensorType, batch: int) -> list[int]:
    """Sizes to verify with: `batch` samples, and every other symbolic length as in tracing."""
    hints = length_hints((size for size in kind.shape if isinstance(size, str)), B=batch)
    return [hints[size] if isinstance(size, str) else size for size in kind.shape]
