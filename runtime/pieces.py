"""How does a run on several ranks save? Each block into a file of its own; a manifest that names them is replaced last.

The form does not depend on the number of ranks: a run goes on with any other number of them, or with one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lpc.runtime import checkpoint
from lpc.runtime.cache import variable_of
from lpc.runtime.checkpoint import FORMAT, Checkpoint, Progress
from lpc.runtime.machine import Machine
from lpc.runtime.meter import Meter
from lpc.runtime.workers.transport import Stamp, Transport
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.files import leftovers, write_atomically


def manifest_of(path: Path) -> Path:
    """Return where the manifest stands of what `path` would hold whole: `last.json` for `last.safetensors`."""
    return path.with_suffix(".json")


def write(
    path: Path, plan: str, machine: Machine, progress: Progress, meter: Meter, transport: Transport, keeps: bool = True
) -> None:
    """Write this rank's blocks, if it `keeps` them; rank 0 then writes the manifest, and removes what is old."""
    folder = _folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for block, tensors, numbers in _by_block(machine, transport.rank == 0) if keeps else ():
        data = save(tensors, metadata={"lpc": json.dumps({"numbers": numbers})})
        name = _file(block, progress.step)
        write_atomically(folder / name, data)
        written[block] = {"file": name, "sha256": hashlib.sha256(data).hexdigest()}
    act = Stamp(progress.step, 0, "checkpoint")
    found = transport.exchange(written, act)
    joined = meter.joined(transport.exchange(meter.portable(), act))
    if transport.rank == 0:
        _conclude(path, plan, progress, joined, {block: entry for own in found for block, entry in own.items()})
    transport.exchange(None, act)


def _conclude(path: Path, plan: str, progress: Progress, meter: Meter, blocks: Mapping[str, Any]) -> None:
    totals = {metric: float(total) for metric, total in meter.totals.items()}
    header = {"format": FORMAT, "plan": plan, "progress": asdict(progress) | {"weights": meter.weights}}
    data = json.dumps({**header, "totals": totals, "blocks": blocks}, indent=1).encode() + b"\n"
    write_atomically(manifest_of(path), data)
    path.unlink(missing_ok=True)  # an older one of a single process
    named = {entry["file"] for entry in blocks.values()}
    for other in _folder(path).iterdir():
        if other.name not in named:
            other.unlink()


def remove(path: Path) -> None:
    """Remove a saved state in whichever form it is."""
    path.unlink(missing_ok=True)
    remove_blocks(path)


def remove_blocks(path: Path) -> None:
    """Remove the files of blocks, their manifest first, and what killed writers left of them."""
    manifest, folder = manifest_of(path), _folder(path)
    for one in (manifest, *leftovers(manifest)):
        one.unlink(missing_ok=True)
    if folder.is_dir():
        shutil.rmtree(folder)


def exists(path: Path) -> bool:
    """Tell whether there is a saved state, in either form."""
    return path.exists() or manifest_of(path).exists()


def read(path: Path, blocks: Iterable[str] | None = None) -> Checkpoint:
    """Read the newer of both forms: all blocks, or those that are wanted. Errors: 0670 damaged."""
    forms: list[Checkpoint] = [_read(path, blocks)] if manifest_of(path).exists() else []
    if path.exists() or not forms:
        forms.append(checkpoint.read(path))
    return max(forms, key=lambda found: found.progress.step)


def _read(path: Path, blocks: Iterable[str] | None) -> Checkpoint:
    manifest = manifest_of(path)
    try:
        header = json.loads(manifest.read_bytes())
        wanted = set(header["blocks"]) if blocks is None else {"", *blocks} & set(header["blocks"])
        tensors = {f"meter.{n}": torch.tensor(v, dtype=torch.float64) for n, v in header["totals"].items()}
        numbers: dict[str, Any] = {}
        for block in sorted(wanted):
            data = (_folder(path) / header["blocks"][block]["file"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != header["blocks"][block]["sha256"]:
                raise ValueError(f"block `{block}` was altered")
            tensors |= load(data)
            length = int.from_bytes(data[:8], "little")
            numbers |= json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["lpc"])["numbers"]
        if header["format"] == FORMAT:
            return Checkpoint(manifest, header["plan"], Progress(**header["progress"]), tensors, numbers)
        problem = f"it has format {header['format']}, expected {FORMAT}"
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        problem = f"it is damaged, or no checkpoint ({type(error).__name__}: {error})"
    raise LpcError(Diagnostic("0670", f"the checkpoint cannot be read: {problem}", place=str(manifest)))


def _by_block(machine: Machine, leads: bool) -> Iterator[tuple[str, dict[str, Tensor], dict[str, Any]]]:
    """Yield each block of this rank with its entries; what no block owns stands under no name, and rank 0 saves it."""
    tensors, numbers = checkpoint.entries(machine)
    owner = {f"state.{name}": entry.block for name, entry in machine.state.entries.items()}
    owner |= {name: _solver(machine, name) for name in tensors if name.startswith("sample.")}
    blocks: dict[str, tuple[dict[str, Tensor], dict[str, Any]]] = {}
    for name, tensor in tensors.items():
        kind, _, key = name.partition(".")
        block = owner[name] if kind in ("state", "sample") else str(json.loads(key)[0])
        blocks.setdefault(block, ({}, {}))[0][name] = tensor.detach().cpu().contiguous()
    for key, value in numbers.items():
        blocks.setdefault(str(json.loads(key)[0]), ({}, {}))[1][key] = value
    return ((block, *own) for block, own in blocks.items() if block or leads)


def _solver(machine: Machine, name: str) -> str:
    """Return the block that solves the variable whose rows an entry holds; visits are everybody's."""
    variable = variable_of(name.removeprefix("sample."))
    return machine.program.variables[variable].reader if variable else ""


def _folder(path: Path) -> Path:
    return path.with_suffix(".blocks")


def _file(block: str, step: int) -> str:
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", block)[:60]
    return f"{readable}.{hashlib.sha256(block.encode()).hexdigest()[:8]}.{step}.safetensors"
