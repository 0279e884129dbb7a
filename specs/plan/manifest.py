"""What does a plan consist of on disk? Its files, named by content, and the manifest that names them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.decode import MismatchError, decode, parse_json
from lpc.specs.plan.encode import canonical
from lpc.specs.plan.image import Image, sha256_of
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Plan, Program

FORMAT = 1
MANIFEST = "manifest.json"
TORCH_RANGE = ">=2.11,<3"  # what the package itself requires

# spec.<hash12>.yaml, kernels/b1.local.<hash12>.json: nothing absolute, no `..`, at most one folder.
STORED_NAME = re.compile(
    r"(kernels/)?[A-Za-z0-9_][A-Za-z0-9._-]*\.([0-9a-f]{12})\.(json|yaml|txt|safetensors)"
)


@dataclass(frozen=True)
class Core:
    """The content of plan.json: all of a plan that has no file of its own."""

    program: Program
    target: str
    torch: str
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One file of a plan: where it is, its SHA-256 in hexadecimal and its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json; `files` maps a part's name, such as `native/b1.local`, to its file.

    `plan` is the plan's hash, `spec` that of its spec, `seal` that of the manifest with an empty seal.
    """

    format: int
    lpc: str
    plan: str
    spec: str
    target: str
    torch: str
    torch_range: str
    operators: tuple[str, ...]
    libraries: tuple[str, ...]
    files: dict[str, Entry]
    seal: str


def contents(plan: Plan) -> dict[str, Image]:
    """Return the bytes of every part of the plan that its hash is over, by the part's name."""
    core = Core(plan.program, plan.target, plan.torch, plan.report)
    parts: dict[str, Image] = {
        "spec": plan.spec.encode(),
        "plan": canonical(core, Core, indent=1),
        "partition": canonical(plan.partition, Any, indent=1),
        "weights": plan.weights,
    }
    for target, kernels in plan.kernels.items():
        for name, kernel in kernels.items():
            parts[f"{target}/{name}"] = canonical(kernel, Kernel)
    return dict(sorted(parts.items()))


def plan_hash(plan: Plan) -> str:
    """Return the plan's identity: SHA-256 in hexadecimal over the names and the bytes of all its parts."""
    return hash_of_hashes({name: sha256_of(data) for name, data in contents(plan).items()})


def hash_of_hashes(hashes: Mapping[str, str]) -> str:
    """Return the plan's hash from those of its parts; the readable text, being derived, does not count."""
    return digest(canonical({name: hashes[name] for name in hashes if name != "text"}, Any))


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def stored_name(part: str, sha256: str) -> str:
    """Return the file that holds a part: `plan` in `plan.<hash12>.json`; kernels have their own folder."""
    suffixes = {"spec": "yaml", "text": "txt", "weights": "safetensors"}
    stems = {"text": "plan"}
    folder = "kernels/" if "/" in part else ""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", stems.get(part, part.partition("/")[2] or part))[:80]
    return f"{folder}{stem.lstrip('.-') or '_'}.{sha256[:12]}.{suffixes.get(part, 'json')}"


def describe(plan: Plan, parts: Mapping[str, Image]) -> Manifest:
    """Return the manifest of a plan whose parts, the readable text among them, are given."""
    files = {}
    for name, data in sorted(parts.items()):
        sha256 = sha256_of(data)
        files[name] = Entry(stored_name(name, sha256), sha256, len(data))
    nodes = (
        node for kernels in plan.kernels.values() for kernel in kernels.values() for node in kernel.nodes
    )
    manifest = Manifest(
        format=FORMAT,
        lpc=version("lpc"),
        plan=hash_of_hashes({name: entry.sha256 for name, entry in files.items()}),
        spec=files["spec"].sha256,
        target=plan.target,
        torch=plan.torch,
        torch_range=TORCH_RANGE,
        operators=tuple(sorted({node.op for node in nodes})),
        libraries=tuple(map(str, plan.report.get("libraries", ()))),
        files=files,
        seal="",
    )
    return replace(manifest, seal=seal(manifest))


def seal(manifest: Manifest) -> str:
    """Return the hash that a manifest must carry."""
    return digest(render(replace(manifest, seal="")))


def render(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json."""
    return canonical(manifest, Manifest, indent=1)


def read_manifest(data: bytes, place: str) -> Manifest:
    """Read manifest.json and check it against itself. `place` names the file in messages.

    Raises LpcError: 0502 a newer format, 0503 malformed, 0505 altered, 0506 a name that leaves the plan.
    """
    _refuse_newer(data, place)
    manifest = decode(data, Manifest, place)
    for part, entry in manifest.files.items():
        match = STORED_NAME.fullmatch(entry.path)
        if match is None:
            message = f"part `{part}` is said to be in {entry.path!r}, which is no name of a plan's file"
            raise LpcError(Diagnostic("0506", message, place=place))
        if match[2] != entry.sha256[:12] or entry.size < 0:
            raise LpcError(Diagnostic("0512", f"hash and file name of part `{part}` disagree", place=place))
    if manifest.seal != seal(manifest) or render(manifest) != data:
        message = "the manifest was altered or damaged: its own hash does not match"
        raise LpcError(Diagnostic("0505", message, place=place))
    if manifest.plan != hash_of_hashes({part: entry.sha256 for part, entry in manifest.files.items()}):
        raise LpcError(Diagnostic("0512", "the plan's hash is not that of the listed files", place=place))
    return manifest


def _refuse_newer(data: bytes, place: str) -> None:
    """Look at the format alone, before anything that a newer version may have changed."""
    try:
        raw = parse_json(data)
    except MismatchError as problem:
        raise LpcError(Diagnostic("0503", str(problem), place=f"{place}: $")) from None
    found = raw.get("format") if isinstance(raw, dict) else None
    if type(found) is int and found > FORMAT:
        message = f"the plan has format {found}, and this version of lpc reads formats up to {FORMAT}"
        notes = (f"it was written by lpc {raw['lpc']}",) if type(raw.get("lpc")) is str else ()
        raise LpcError(Diagnostic("0502", message, place=place, notes=notes))
