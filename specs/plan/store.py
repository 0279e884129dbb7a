"""How does a plan get to disk and back? `save` and `load`, for a folder or a .zip; loading runs no code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.container import Container, opened, write_archive, write_folder
from lpc.specs.plan.decode import decode
from lpc.specs.plan.image import Image, sha256_of
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.manifest import (
    MANIFEST,
    Core,
    Entry,
    Manifest,
    contents,
    describe,
    read_manifest,
    render,
)
from lpc.specs.plan.plan import Plan, links
from lpc.specs.plan.text import text
from lpc.specs.plan.wellformed import check_kernel

MEBIBYTE = 2**20
# Bytes at most. Weights need no more than memory has; the rest is small, and parsing it multiplies it.
LIMITS = {"manifest": 64 * MEBIBYTE, "weights": 2**40}
LIMIT = 512 * MEBIBYTE

PARTS = frozenset({"spec", "plan", "partition", "weights", "text"})  # beside the kernels


def save(plan: Plan, path: str | Path) -> None:
    """Write the plan as a folder, or as an archive where `path` ends in .zip; equal plans give equal bytes.

    A save that fails or is killed at any moment leaves the plan that was there before readable.
    Raises LpcError: 0510 not writable, 0511 the path holds something else.
    """
    path = Path(path)
    parts = contents(plan)
    parts["text"] = text(plan).encode()
    manifest = describe(plan, parts)
    files = {entry.path: parts[name] for name, entry in manifest.files.items()}
    files[MANIFEST] = render(manifest)
    write = write_archive if path.suffix == ".zip" else write_folder
    _refuse_other(path)
    try:
        write(path, files)
    except OSError as problem:
        message = f"the plan cannot be written: {problem.strerror or problem}"
        raise LpcError(Diagnostic("0510", message, place=str(problem.filename or path))) from None


def load(path: str | Path) -> Plan:
    """Read a plan: every file against its hash, every operator against the list of allowed ones.

    Nothing is executed or unpickled. Weights stay in the file, and are read as they are needed.
    Raises LpcError (0501 to 0512, 0530 to 0533) naming the file.
    """
    path = Path(path)
    with opened(path) as container:
        manifest = read_manifest(container.read(MANIFEST, LIMITS["manifest"]), str(path / MANIFEST))
        parts = {name: _part(container, name, entry, path) for name, entry in manifest.files.items()}
    plan = _assemble(parts, manifest, path)
    kernels = (kernel for family in plan.kernels.values() for kernel in family.values())
    problems = [problem for kernel in kernels for problem in check_kernel(kernel)]
    if problems:
        raise LpcError(problems)
    return plan


def _refuse_other(path: Path) -> None:
    found = "a file" if path.is_file() else "a folder" if path.is_dir() else None
    wanted = "a file" if path.suffix == ".zip" else "a folder"
    if found not in (None, wanted):
        message = f"the plan would be {wanted}, and {found} is there"
        raise LpcError(Diagnostic("0511", message, place=str(path)))


def _part(container: Container, name: str, entry: Entry, path: Path) -> Image:
    limit = LIMITS.get(name, LIMIT)
    place = str(path / entry.path)
    if entry.size > limit:
        message = f"part `{name}` is said to have {entry.size} bytes; at most {limit} are read"
        raise LpcError(Diagnostic("0508", message, place=place))
    stays = name == "weights" and hasattr(os, "pread")  # which Windows lacks
    data: Image = container.stored(entry.path, entry.size) if stays else container.read(entry.path, entry.size)
    if len(data) < entry.size:
        message = f"the file is cut short: {len(data)} of {entry.size} bytes are there"
        raise LpcError(Diagnostic("0505", message, place=place))
    if sha256_of(data) != entry.sha256:
        raise LpcError(
            Diagnostic("0505", "the file was altered or damaged: its hash does not match", place=place)
        )
    return data


def _assemble(images: Mapping[str, Image], manifest: Manifest, path: Path) -> Plan:
    parts = {name: bytes(image) for name, image in images.items() if name != "weights"}
    for name in sorted(PARTS ^ {name for name in images if "/" not in name}):
        found = "no" if name in PARTS else "an unknown"
        _contradiction(f"the manifest lists {found} part `{name}`", path)
    core = decode(parts["plan"], Core, str(path / manifest.files["plan"].path))
    place = str(path / manifest.files["partition"].path)
    partition = decode(parts["partition"], dict[str, Any], place)
    links(partition, place)
    kernels: dict[str, dict[str, Kernel]] = {}
    for name, entry in manifest.files.items():
        target, slash, kernel = name.partition("/")
        if slash:
            kernels.setdefault(target, {})[kernel] = decode(parts[name], Kernel, str(path / entry.path))
    plan = Plan(
        spec=_text(parts["spec"], path / manifest.files["spec"].path),
        target=core.target,
        program=core.program,
        partition=partition,
        kernels=kernels,
        weights=images["weights"],
        torch=core.torch,
        report=core.report,
    )
    _agree(plan, manifest, path)
    return plan


def _agree(plan: Plan, manifest: Manifest, path: Path) -> None:
    """Refuse a plan whose manifest tells another story than its files."""
    for target, kernels in plan.kernels.items():
        for name, kernel in kernels.items():
            if kernel.name != name:
                _contradiction(f"kernel `{target}/{name}` calls itself `{kernel.name}`", path)
    nodes = (
        node for kernels in plan.kernels.values() for kernel in kernels.values() for node in kernel.nodes
    )
    told = (manifest.target, manifest.torch, manifest.spec, set(manifest.operators))
    true = (plan.target, plan.torch, manifest.files["spec"].sha256, {node.op for node in nodes})
    for what, said, found in zip(("target", "torch", "spec", "operators"), told, true, strict=True):
        if said != found:
            _contradiction(f"the manifest's `{what}` is not that of the plan's files", path)


def _contradiction(message: str, path: Path) -> NoReturn:
    raise LpcError(Diagnostic("0512", message, place=str(path / MANIFEST)))


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise LpcError(Diagnostic("0503", f"the spec is no UTF-8 text: {problem}", place=str(path))) from None
