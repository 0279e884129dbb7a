"""Where do the weights begin, and how are they kept? In safetensors files, by their names in the network."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lpc.ejecting.parts.gradients import Gradients
from lpc.ejecting.parts.settings import DEVICE

Weights = dict[str, Tensor]


def load(path: Path, parameters: dict[str, bool], aliases: dict[str, str]) -> Weights:
    """Return {name: tensor}; `parameters` says which are trained, `aliases` are further names of tied tensors."""
    found: Weights = {}
    for name, stored in load_file(path).items():
        own = stored.to(DEVICE, copy=True).contiguous()
        found[name] = nn.Parameter(own, requires_grad=parameters[name]) if name in parameters else own
    return found | {alias: found[name] for alias, name in aliases.items()}


def save(path: Path, weights: Weights, aliases: dict[str, str]) -> None:
    """Write the weights to a file."""
    save_file({name: value.detach().cpu() for name, value in weights.items() if name not in aliases}, path)


def write(weights: Weights, buffers: Gradients) -> None:
    """Copy what a kernel has computed into the buffers."""
    for name, value in buffers.items():
        weights[name].copy_(value)
