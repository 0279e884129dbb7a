"""What do instructions work with? A program's kernels, state, optimizers and noise on one device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lpc.runtime.allocator import keep_freed_memory
from lpc.runtime.batch import Batch
from lpc.runtime.cache import SampleCache
from lpc.runtime.corrections import BlockCorrection, Offset
from lpc.runtime.decode import dtype_of
from lpc.runtime.link import Linked, link
from lpc.runtime.meter import Reading
from lpc.runtime.noise import Source
from lpc.runtime.optimizers import BlockOptimizer
from lpc.runtime.state import State
from lpc.runtime.variables import LawClock, VariableOptimizer
from lpc.runtime.workers.transport import Alone, Transport
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Program


@dataclass(slots=True)
class Frame:
    """One execution of a section. A value is the list of its tensors; most have one."""

    batches: Iterator[Batch]
    step: int = 0  # of the run: noise is keyed by it
    noise: Sequence[Mapping[str, Tensor]] = ()  # per batch: sites whose noise the caller fixes
    env: dict[str, list[Any]] = field(default_factory=dict)
    symbols: Mapping[str, int] = field(default_factory=dict)
    size: int = 1  # samples in the current batch, or in the current piece of it
    weight: float = 1.0  # the current piece's share of the samples of its `part`
    window: tuple[int, int] | None = None  # first and last sample of the current piece, none outside a `part`
    shard: int = 0  # number of the current piece of the outermost `part`
    start: int = 0  # step at which the phase began
    part: int = -1  # number of the current batch within the step
    readings: list[Reading] = field(default_factory=list)
    returned: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    offsets: dict[str, Offset] = field(default_factory=dict)  # measured in this section
    due: Tensor | None = None  # the samples of the batch that the body of a `due` is for
    rows: Tensor | None = None  # their numbers, on the CPU, in the body of a `due`
    remembered: dict[str, dict[str, Any]] = field(default_factory=dict)  # by optimizers of variables that persist
    stored: dict[str, Tensor] = field(default_factory=dict)  # variables that this section has kept, for the whole batch

    @property
    def time(self) -> int:
        """Steps since the phase began: what schedules and periods count."""
        return self.step - self.start


class Resources:
    """What lives as long as the trainer: all sections share it."""

    def __init__(
        self,
        program: Program,
        kernels: Mapping[str, Kernel],
        state: State,
        device: torch.device,
        seed: int,
        transport: Transport | None = None,
    ) -> None:
        self.program = program
        self.kernels = kernels
        self.state = state
        self.device = device
        self.seed = seed
        self.transport = transport or Alone()
        self.linked: dict[str, Linked] = {}
        keep_freed_memory()
        self.optimizers = {block: BlockOptimizer(o, state) for block, o in program.optimizers.items()}
        self.corrections = {block: BlockCorrection(c) for block, c in program.corrections.items()}
        solved = {name: variable for name, variable in program.variables.items() if variable.optimizer}
        self.variables = {name: VariableOptimizer(variable, device) for name, variable in solved.items()}
        self.laws = {name: LawClock(law, device, dtype_of(law.type.dtype, name)) for name, law in program.laws.items()}
        self.cache = SampleCache()
        generator = torch.Generator(device)
        self.noise = {site: Source(noise, device, generator) for site, noise in program.noise.items()}

    def kernel(self, name: str) -> Kernel:
        return self.kernels[name]

    def function(self, kernel: Kernel) -> Linked:
        if kernel.name not in self.linked:
            self.linked[kernel.name] = link(kernel, self.device)
        return self.linked[kernel.name]
