"""How does a run on several ranks save? Each block into a file of its own; a manifest that names them is replaced last.

A block that is sharded has a file for each rank's part, in the order of the parts.
The form does not depend on the number of ranks: a run goes on with any other number of them, or with one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lpc.runtime import checkpoint
from lpc.runtime.cache import variable_of
from lpc.runtime.checkpoint import FORMAT, Checkpoint, Progress
from lpc.runtime.machine import Machine
from lpc.runtime.meter import Meter
from lpc.runtime.reassembly import Reassembly, Shape, cut, parts
from lpc.runtime.state import State
from lpc.runtime.workers.transport import Stamp, Transport
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.files import leftovers, write_atomically


def manifest_of(path: Path) -> Path:
    """Return where the manifest stands of what `path` would hold whole: `last.json` for `last.safetensors`."""
    return path.with_suffix(".json")


def write(
    path: Path, plan: str, machine: Machine, progress: Progress, meter: Meter, transport: Transport, keeps: bool = True,
    commits: bool = False,
) -> None:
    """Write this rank's blocks, if it `keeps` them, and its parts of others; rank 0 then writes the manifest.

    What is old is removed. `commits`: all ranks go on from here when one dies. Files that a process wrote whose place
    this one takes are there.
    """
    folder = _folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for block, own in {} if transport.answered else _by_block(machine, transport.rank == 0, keeps).items():
        header = {"numbers": own.numbers, **({"whole": own.whole} if own.whole else {})}
        data = save(own.tensors, metadata={"lpc": json.dumps(header)})
        name = _file(block, progress.step, own.index)
        write_atomically(folder / name, data)
        written[block] = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "index": own.index}
    act = Stamp(progress.step, 0, "checkpoint")
    found = transport.exchange(written, act)
    joined = meter.joined(transport.exchange(meter.portable(), act))
    conclude = partial(_conclude, path, plan, progress, joined, _blocks(found))
    if commits:
        transport.commit(progress.step, conclude, act)
    else:
        transport.lead(conclude, act)


def _conclude(path: Path, plan: str, progress: Progress, meter: Meter, blocks: Mapping[str, Any]) -> None:
    totals = {metric: float(total) for metric, total in meter.totals.items()}
    header = {"format": FORMAT, "plan": plan, "progress": asdict(progress) | {"weights": meter.weights}}
    data = json.dumps({**header, "totals": totals, "blocks": blocks}, indent=1).encode() + b"\n"
    write_atomically(manifest_of(path), data)
    path.unlink(missing_ok=True)  # an older one of a single process
    sweep(path)


def sweep(path: Path) -> None:
    """Remove the files that the manifest does not name, if there is one."""
    if not manifest_of(path).exists():
        return
    blocks = json.loads(manifest_of(path).read_bytes())["blocks"]
    named = {one["file"] for entry in blocks.values() for one in _files(entry)}
    for other in _folder(path).iterdir():
        if other.name not in named:
            other.unlink()


def _blocks(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the manifest's entry of each block from what all ranks have written: its file, or those of its parts."""
    together: dict[str, list[dict[str, Any]]] = {}
    for own in found:
        for block, entry in own.items():
            together.setdefault(block, []).append(entry)
    blocks: dict[str, Any] = {}
    for block, entries in together.items():
        ordered = sorted(entries, key=lambda entry: entry["index"] or 0)
        files = [{"file": entry["file"], "sha256": entry["sha256"]} for entry in ordered]
        blocks[block] = files[0] if entries[0]["index"] is None else {"parts": files}
    return blocks


def _files(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(entry["parts"]) if "parts" in entry else [entry]


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


def read(path: Path, blocks: Iterable[str] | None = None, state: State | None = None) -> Checkpoint:
    """Read the newer of both forms: all blocks, or those that are wanted. Errors: 0670 damaged.

    With a state that holds parts of parameters, entries are cut as it is; else they are whole.
    """
    forms: list[Checkpoint] = [_read(path, blocks, state)] if manifest_of(path).exists() else []
    if path.exists() or not forms:
        forms.append(checkpoint.read(path))
    return max(forms, key=lambda found: found.progress.step)


def _read(path: Path, blocks: Iterable[str] | None, state: State | None) -> Checkpoint:
    manifest = manifest_of(path)
    text = b""
    try:
        text = manifest.read_bytes()
        header = json.loads(text)
        wanted = set(header["blocks"]) if blocks is None else {"", *blocks} & set(header["blocks"])
        tensors = {f"meter.{n}": torch.tensor(v, dtype=torch.float64) for n, v in header["totals"].items()}
        numbers: dict[str, Any] = {}
        for block in sorted(wanted):
            together = Reassembly(state)
            for entry in _files(header["blocks"][block]):
                told, found = _opened(_folder(path) / entry["file"], entry["sha256"], block)
                numbers |= told["numbers"]
                shapes = told.get("whole", {})
                together.add(found if shapes else cut(found, state), shapes)
            tensors |= together.joined()
        if header["format"] == FORMAT:
            return Checkpoint(manifest, header["plan"], Progress(**header["progress"]), tensors, numbers)
        problem = f"it has format {header['format']}, expected {FORMAT}"
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        problem = f"it is damaged, or no checkpoint ({type(error).__name__}: {error})"
    if manifest.exists() and manifest.read_bytes() != text:  # it was replaced meanwhile, and its files removed
        return _read(path, blocks, state)
    raise LpcError(Diagnostic("0670", f"the checkpoint cannot be read: {problem}", place=str(manifest)))


def _opened(path: Path, sha256: str, block: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a block's file tells and its tensors, which are mapped: of these only what is used is read."""
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise ValueError(f"block `{block}` was altered")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["lpc"]), tensors


@dataclass
class _Block:
    """What a rank writes of a block: its entries, of which some are parts, and which part it is."""

    index: int | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    whole: dict[str, Shape] = field(default_factory=dict)


def _by_block(machine: Machine, leads: bool, keeps: bool) -> dict[str, _Block]:
    """Return what this rank writes of each block: what it `keeps`, and its parts of what is sharded.

    What no block owns stands under no name, and rank 0 saves it.
    """
    tensors, numbers = checkpoint.entries(machine)
    state = machine.state
    shapes = parts(tensors, state)
    indices = {state.entries[name].block: shard.index for name, shard in state.shards.items()}
    blocks: dict[str, _Block] = {}
    for name, tensor in tensors.items():
        kind, _, key = name.partition(".")
        block = _owner(machine, kind, key)
        if (keeps and (block or leads)) or name in shapes:
            found = blocks.setdefault(block, _Block(indices.get(block)))
            found.tensors[name] = tensor.detach().cpu().contiguous()
            found.whole |= {name: shapes[name]} if name in shapes else {}
    for key, value in numbers.items() if keeps else ():
        block = str(json.loads(key)[0])
        blocks.setdefault(block, _Block(indices.get(block))).numbers[key] = value
    return blocks


def _owner(machine: Machine, kind: str, key: str) -> str:
    """Return the block of an entry: of a variable's rows that which solves it; what all know of samples is nobody's."""
    if kind == "state":
        return machine.state.entries[key].block
    if kind == "sample":
        variable = variable_of(key)
        return machine.program.variables[variable].reader if variable else ""
    return str(json.loads(key)[0])


def _folder(path: Path) -> Path:
    return path.with_suffix(".blocks")


def _file(block: str, step: int, index: int | None) -> str:
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", block)[:60]
    part = "" if index is None else f".{index}"
    return f"{readable}.{hashlib.sha256(block.encode()).hexdigest()[:8]}.{step}{part}.safetensors"
