"""What does a random site draw? Numbers that depend on (seed, step, part, site) alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

from lpc.runtime.decode import dtype_of
from lpc.specs.diagnostics import Diagnostic, LpcError, one_of
from lpc.specs.plan.lengths import sizes
from lpc.specs.plan.plan import Noise

LAWS: dict[str, Callable[[Tensor, tuple[float, ...], Generator], Tensor]] = {
    "bernoulli": lambda empty, args, generator: empty.bernoulli_(args[0], generator=generator),
    "uniform": lambda empty, args, generator: empty.uniform_(args[0], args[1], generator=generator),
    "normal": lambda empty, args, generator: empty.normal_(args[0], args[1], generator=generator),
    "rademacher": lambda empty, args, generator: empty.bernoulli_(0.5, generator=generator).mul_(2.0).sub_(1.0),
}
ARGUMENTS = {"bernoulli": 1, "uniform": 2, "normal": 2, "rademacher": 0}


def key(seed: int, step: int, part: int, site: str) -> int:
    """Return the 63-bit key of one draw, the same in every process and on every machine.

    `part` counts the batches within one step, so that accumulated batches have noise of their own.
    """
    text = f"{seed}/{step}/{part}/{site}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


class Source:
    """Draws for one site of a plan on one device."""

    def __init__(self, noise: Noise, device: torch.device, generator: Generator) -> None:
        place = f"random site {noise.site}"
        if len(noise.args) != ARGUMENTS.get(noise.law):
            message = f"`{noise.law}` with {len(noise.args)} numbers is no law of noise"
            notes = (f"laws are {one_of(list(LAWS))}",)
            raise LpcError(Diagnostic("0645", message, place=place, notes=notes))
        self.noise = noise
        self.fill = LAWS[noise.law]
        self.shape = sizes(noise.type.shape, place)
        axes = [i for i, length in enumerate(noise.type.shape) if "B" in re.findall(r"\w+", str(length))]
        self.batch_axis = axes[0] if axes else None
        self.dtype = dtype_of(noise.type.dtype, place)
        self.device = device
        self.generator = generator

    def draw(self, seed: int, step: int, part: int, symbols: Mapping[str, int]) -> Tensor:
        """Return the noise of one part of one step."""
        self.generator.manual_seed(key(seed, step, part, self.noise.site))
        empty = torch.empty(self.shape(symbols), dtype=self.dtype, device=self.device)
        return self.fill(empty, self.noise.args, self.generator)

    def rows(self, noise: Tensor, first: int, last: int, size: int) -> Tensor:
        """Return the part of a whole batch's noise that belongs to samples from `first` up to `last`, of `size`."""
        if self.batch_axis is None:
            return noise
        each = noise.shape[self.batch_axis] // size
        return noise.narrow(self.batch_axis, first * each, (last - first) * each).contiguous()

    def admit(self, given: Tensor, symbols: Mapping[str, int]) -> Tensor:
        """Return a tensor that the caller fixes this site's noise to, after checking its shape."""
        expected = self.shape(symbols)
        if tuple(given.shape) != expected:
            message = f"noise for `{self.noise.site}` has shape {tuple(given.shape)}, expected {expected}"
            raise LpcError(Diagnostic("0646", message, place="noise"))
        return given.to(device=self.device, dtype=self.dtype).contiguous()
