"""Is every mistake refused with a code, a place, a way out and exit 2, and is the old plan left as it was?"""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lpc as api
from lpc.specs.plan.manifest import (
    Entry,
    Manifest,
    digest,
    hash_of_hashes,
    read_manifest,
    render,
    seal,
    stored_name,
)

GOOD = """\
name: small
network:
  inputs: {image: [1, 8, 8]}
  layers:
    - flatten
    - fc1: linear(16)
    - relu
    - out: linear(10)
data: {source: digits, batch: 64}
loss: cross_entropy
decompose:
  blocks: {b1: fc1, head: out}
  links: stop
learn:
  - {blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}
run: {epochs: 1, log: none}
"""

# Networks that a spec can name with `--allow nets.py`; each is wrong in one way.
NETS = """\
import torch
from torch import nn

NUMBER = 3

class NoModule:
    pass

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.b.weight = self.a.weight
    def forward(self, image):
        return self.b(self.a(image.flatten(1)))

class FixedBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 32), nn.Linear(32, 10)
    def forward(self, image):
        return self.b(torch.relu(self.a(image.reshape(2, 64))))

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 32), nn.Linear(32, 10)
    def forward(self, image):
        hidden = self.a(image.flatten(1))
        if hidden.sum() > 0:
            hidden = -hidden
        return self.b(hidden)

class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(63, 32), nn.Linear(32, 10)
    def forward(self, image):
        return self.b(self.a(image.flatten(1)))

class Demanding(nn.Module):
    def __init__(self, width):
        super().__init__()

class Broken(nn.Module):
    def __init__(self):
        raise ValueError("the moon is full")
"""

BUILD = "build spec.yaml -o old.plan"
Prepare = Callable[[Path], None]


@dataclass(frozen=True)
class Bad:
    """A mistake: the command that meets it, how it is made, and what must be told of it."""

    name: str
    code: str
    where: str  # a pattern that the whole place after `-->` must match
    says: str
    prepare: Prepare
    command: str = BUILD


def edit(old: str, new: str) -> Prepare:
    """Change the good spec."""
    return edits((old, new))


def edits(*changes: tuple[str, str]) -> Prepare:
    """Change the good spec in several places."""

    def change(folder: Path) -> None:
        changed = GOOD
        for old, new in changes:
            assert changed.count(old) == 1, old
            changed = changed.replace(old, new)
        (folder / "spec.yaml").write_text(changed)

    return change


def text(name: str, content: str | bytes) -> Prepare:
    """Write a file."""

    def write(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def nothing(folder: Path) -> None:
    """The mistake is in the command alone."""


def network(name: str, blocks: str = "{b1: a, head: b}") -> Prepare:
    """Let the spec name a class of NETS."""

    def write(folder: Path) -> None:
        (folder / "nets.py").write_text(NETS)
        changed = GOOD.replace(GOOD[GOOD.index("  layers:") : GOOD.index("data:")], f'  module: "{name}"\n')
        (folder / "spec.yaml").write_text(changed.replace("{b1: fc1, head: out}", blocks))

    return write


def idx(damage: Callable[[Path], None]) -> Prepare:
    """Let the spec name MNIST-like files, and damage them."""

    def write(folder: Path) -> None:
        root = folder / "mnist"
        root.mkdir()
        for split in ("train", "t10k"):
            images = struct.pack(">IIII", 0x803, 20, 8, 8) + bytes(20 * 64)
            (root / f"{split}-images-idx3-ubyte").write_bytes(images)
            (root / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 20) + bytes(20))
        damage(root)
        changed = GOOD.replace("digits, batch: 64", "mnist, root: mnist, batch: 4")
        (folder / "spec.yaml").write_text(changed)

    return write


def npz(**arrays: Any) -> Prepare:
    """Let the spec name arrays of NumPy."""

    def write(folder: Path) -> None:
        (folder / "arrays").mkdir()
        np.savez(folder / "arrays" / "train.npz", **arrays)
        changed = GOOD.replace("digits, batch: 64", "npz, root: arrays, batch: 4")
        (folder / "spec.yaml").write_text(changed)

    return write


def plan(damage: Callable[[Path], None]) -> Prepare:
    """Damage a copy of the old plan: bad.plan."""

    def change(folder: Path) -> None:
        shutil.copytree(folder / "old.plan", folder / "bad.plan")
        damage(folder / "bad.plan")

    return change


def flipped(pattern: str) -> Prepare:
    """Damage one byte in the middle of a file of the plan."""

    def flip(folder: Path) -> None:
        path = next(iter(sorted(folder.glob(pattern))))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))

    return plan(flip)


def resealed(said: Manifest) -> bytes:
    """Return a manifest that agrees with itself, as somebody with bad intent writes it."""
    total = hash_of_hashes({part: entry.sha256 for part, entry in said.files.items()})
    said = replace(said, plan=total, seal="")
    return render(replace(said, seal=seal(said)))


def newer(folder: Path) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(said | {"format": 99}))


def misplaced(folder: Path) -> None:
    """Let the manifest say that the weights are elsewhere."""
    said = read_manifest((folder / "manifest.json").read_bytes(), "")
    files = said.files | {"weights": replace(said.files["weights"], path="../../etc/passwd")}
    (folder / "manifest.json").write_bytes(resealed(replace(said, files=files)))


def linked(folder: Path) -> None:
    path = next(folder.glob("weights.*"))
    path.unlink()
    path.symlink_to("/etc/passwd")


def kernel(change: Callable[[dict[str, Any]], None]) -> Prepare:
    """Forge a kernel: its content, its name and the manifest agree."""

    def write(folder: Path) -> None:
        said = read_manifest((folder / "manifest.json").read_bytes(), "")
        part = next(name for name in said.files if name.endswith("/b1.local"))
        path = folder / said.files[part].path
        content = json.loads(path.read_text())
        change(content)
        data = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        path.unlink()
        entry = Entry(stored_name(part, digest(data)), digest(data), len(data))
        (folder / entry.path).write_bytes(data)
        operators = tuple(sorted({*said.operators, *(node["op"] for node in content["nodes"])}))
        forged = replace(said, files=said.files | {part: entry}, operators=operators)
        (folder / "manifest.json").write_bytes(resealed(forged))

    return plan(write)


def operator(name: str, *args: Any) -> Prepare:
    """Let a kernel begin with another operator."""

    def change(content: dict[str, Any]) -> None:
        content["nodes"][0] |= {"op": name, "args": list(args)}

    return kernel(change)


def archive(write: Callable[[zipfile.ZipFile], None], cut: int = 0) -> Prepare:
    """Write bad.zip, and cut bytes off its end."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "bad.zip", "w") as made:
            write(made)
        data = (folder / "bad.zip").read_bytes()
        (folder / "bad.zip").write_bytes(data[: len(data) - cut])

    return make


def bomb(made: zipfile.ZipFile) -> None:
    made.writestr("manifest.json", bytes(50_000_000), zipfile.ZIP_DEFLATED)


def trained(damage: Callable[[Path], None]) -> Prepare:
    """Leave a checkpoint of the old plan in the folder `run`, and damage it."""

    def write(folder: Path) -> None:
        api.Trainer(api.load(folder / "old.plan"), device="cpu").fit(folder / "run")
        damage(folder / "run" / "last.safetensors")

    return write


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def other_plan(folder: Path) -> None:
    """Build another plan beside a run of the old one."""
    trained(lambda path: None)(folder)
    api.build(GOOD, {"run.seed": 5}).save(folder / "other.plan")


def no_cuda(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")


def cuda(old: str, new: str) -> Prepare:
    def change(folder: Path) -> None:
        no_cuda(folder)
        edit(old, new)(folder)

    return change


def cyclic(folder: Path) -> None:
    changed = GOOD.replace("- relu", "- relu\n    - fc2: linear(16)\n    - fc3: linear(16)")
    (folder / "spec.yaml").write_text(changed.replace("b1: fc1,", "b1: [fc1, fc3], b2: fc2,"))


def inspect(name: str = "bad.plan") -> str:
    return f"inspect {name}"


SPEC = (
    Bad(
        "missing spec",
        "0100",
        "sepc.yaml",
        "did you mean `spec.yaml`",
        nothing,
        "build sepc.yaml -o old.plan",
    ),
    Bad("folder as spec", "0100", r"\.", "cannot read", nothing, "check ."),
    Bad("not UTF-8", "0100", "spec.yaml: byte 6", "UTF-8", text("spec.yaml", b"name: \xff\n")),
    Bad("bare word", "0113", "spec.yaml:1:1", "mapping", text("spec.yaml", "hello")),
    Bad("empty spec", "0112", "spec.yaml:1:1", "network", text("spec.yaml", "")),
    Bad("YAML syntax", "0101", r"spec.yaml:1[34]:\d+", "", edit("links: stop", "links: [stop")),
    Bad("key twice", "0102", "spec.yaml:10:1", "", edit("loss: cross_entropy\n", "name: again\n")),
    Bad("unknown key", "0110", "spec.yaml:9:24", "`batch`?", edit("batch: 64", "btach: 64")),
    Bad("wrong type", "0113", "spec.yaml:9:31", "whole number", edit("batch: 64", "batch: many")),
    Bad("misspelt operator", "0120", "spec.yaml:7:7", "`relu`?", edit("- relu", "- rleu")),
    Bad("misspelt argument", "0121", "spec.yaml:6:23", "`bias`?", edit("linear(16)", "linear(16, bais=false)")),
    Bad(
        "no loss",
        "0134",
        r"spec.yaml:\d+:\d+",
        "loss",
        edits(
            ("loss: cross_entropy\n", ""),
            ("head: linear, loss: cross_entropy, ", ""),
            ("links: stop", "links: gradient"),
        ),
    ),
    Bad("no optimizer", "0133", "spec.yaml:14:1", "optimizer", edit(", optimizer: sgd(lr=0.1)", "")),
    Bad(
        "stop without local loss",
        "0135",
        r"spec.yaml:\d+:\d+",
        "`b1`",
        edit("head: linear, loss: cross_entropy, ", ""),
    ),
    Bad(
        "unknown target",
        "0402",
        r"spec.yaml:10:\d+",
        "`lable`",
        edit("loss: cross_entropy\n", "loss: cross_entropy(target=lable)\n"),
    ),
    Bad("NaN learning rate", "0123", "spec.yaml:15:72", "lr", edit("lr=0.1", "lr=.nan")),
    Bad("negative learning rate", "0123", "spec.yaml:15:72", "lr", edit("lr=0.1", "lr=-0.1")),
    Bad("LBFGS", "0120", "spec.yaml:15:65", "lbfgs", edit("sgd(lr=0.1)", "lbfgs(lr=0.1)")),
    Bad("extends itself", "0106", r"spec.yaml:1:\d+", "spec.yaml", edit("name: small", "extends: spec.yaml")),
    Bad(
        "alias bomb",
        "0103",
        r"spec.yaml:\d+:\d+",
        "",
        text(
            "spec.yaml",
            "\n".join(["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]),
        ),
    ),
    Bad("huge repeat", "0103", "spec.yaml:5:5", "", edit("- relu", "- repeat(100000): [relu]")),
    Bad("odd fraction", "0138", "spec.yaml:9:47", "", edit("batch: 64", "batch: 64, validation: 1.5")),
    Bad(
        "early stop without validation",
        "0672",
        r"spec.yaml:16:\d+",
        "validation",
        edit("log: none", 'early_stop: "patience(3)"'),
        "run spec.yaml",
    ),
    Bad(
        "not a metric",
        "0672",
        r"spec.yaml:16:\d+",
        "`f1`",
        edits(
            ("batch: 64}", "batch: 64, validation: 0.1}"),
            ("log: none", 'early_stop: "patience(3, metric=f1)"'),
        ),
        "run spec.yaml",
    ),
    Bad("override without value", "0107", "--set:1:9", "=", nothing, f"{BUILD} --set run.seed"),
    Bad("override into nothing", "0107", "--set:1:1", "learn", nothing, f"{BUILD} --set learn[7].head=mlp"),
    Bad("override of an unknown key", "0110", "--set:1:1", "`seed`?", nothing, f"{BUILD} --set run.sed=1"),
    Bad("override of the wrong type", "0113", "--set:1:10", "number", nothing, f"{BUILD} --set run.seed=x"),
)

NETWORK = (
    Bad("unknown module", "0216", r"spec.yaml:4:\d+", "not installed", network("transformers.nothing:Net")),
    Bad("unknown class", "0204", r"spec.yaml:4:\d+", "`Liner`", network("torch.nn:Liner")),
    Bad("module not allowed", "0204", r"spec.yaml:4:\d+", "--allow os", network("os:environ")),
    Bad(
        "not a module",
        "0205",
        r"spec.yaml:4:\d+",
        "`NoModule`",
        network("nets:NoModule"),
        f"{BUILD} --allow nets.py",
    ),
    Bad("not a class", "0205", r"spec.yaml:4:\d+", "int", network("nets:NUMBER"), f"{BUILD} --allow nets.py"),
    Bad(
        "missing argument of the network",
        "0206",
        r"spec.yaml:4:\d+",
        "width",
        network("nets:Demanding"),
        f"{BUILD} --allow nets.py",
    ),
    Bad(
        "network that cannot be made",
        "0206",
        r"spec.yaml:4:\d+",
        "moon",
        network("nets:Broken"),
        f"{BUILD} --allow nets.py",
    ),
    Bad(
        "network that fails",
        "0210",
        r".*nets.py:\d+|spec.yaml:\d+:\d+",
        "",
        network("nets:Failing"),
        f"{BUILD} --allow nets.py",
    ),
    Bad("fixed batch", "0210", r".*nets.py:\d+", "", network("nets:FixedBatch"), f"{BUILD} --allow nets.py"),
    Bad(
        "branches on values",
        "0209",
        "spec.yaml:4:11",
        "nets.py:30",
        network("nets:Branching"),
        f"{BUILD} --allow nets.py",
    ),
    Bad(
        "tied weights",
        "0305",
        r"spec.yaml:\d+:\d+",
        "a.weight",
        network("nets:Tied"),
        f"{BUILD} --allow nets.py",
    ),
    Bad("layer does not fit", "0200", r"spec.yaml:8:\d+", "", edit("out: linear(10)", "out: conv(10, 3)")),
    Bad("width of nothing", "0123", r"spec.yaml:6:\d+", "", edit("linear(16)", "linear(0)")),
    Bad("block matches nothing", "0301", r"spec.yaml:12:\d+", "`fc1`?", edit("b1: fc1", "b1: fc")),
    Bad("node owned twice", "0302", r"spec.yaml:12:\d+", "two blocks", edit("head: out", 'head: [out, "f*"]')),
    Bad("parameters left over", "0303", r"spec.yaml:1[12]:\d+", "out.weight", edit(", head: out", "")),
    Bad("cyclic blocks", "0304", r"spec.yaml:1\d:\d+", "circle", cyclic),
    Bad(
        "too few cut points",
        "0306",
        r"spec.yaml:12:\d+",
        "",
        edit("{b1: fc1, head: out}", "balanced(count=30)"),
    ),
    Bad(
        "option that torch refuses",
        "0654",
        r"spec.yaml:15:\d+",
        "beta",
        edit("sgd(lr=0.1)", "adam(betas=[2.0, 0.9])"),
    ),
    Bad(
        "boundary that is none",
        "0309",
        r"spec.yaml:13:\d+",
        "",
        edit("links: stop", 'links: {"head->b1": gradient}'),
    ),
    Bad(
        "target cuda without CUDA",
        "0411",
        r"spec.yaml:16:\d+",
        "CUDA",
        cuda("epochs: 1", "epochs: 1, target: cuda"),
    ),
)

DATA = (
    Bad(
        "undefined variable",
        "0105",
        r"spec.yaml:9:\d+",
        "LPC_NO_SUCH",
        edit("digits, ", 'mnist, root: "${LPC_NO_SUCH}", '),
    ),
    Bad("no such folder", "0602", r"spec.yaml:9:\d+", "`nowhere`", edit("digits, ", "mnist, root: nowhere, ")),
    Bad(
        "other shape",
        "0606",
        r"spec.yaml:\d+:\d+",
        "[1, 9, 9]",
        edit("[1, 8, 8]", "[1, 9, 9]"),
    ),
    Bad("input that is no field", "0605", "spec.yaml:3:12", "`image`?", edit("{image:", "{images:")),
    Bad(
        "truncated IDX",
        "0603",
        ".*mnist/train-images-idx3-ubyte.*byte.*",
        "",
        idx(lambda root: cut(root / "train-images-idx3-ubyte")),
        "run spec.yaml",
    ),
    Bad(
        "wrong magic",
        "0603",
        ".*mnist/train-labels-idx1-ubyte.*byte 0.*",
        "",
        idx(lambda root: (root / "train-labels-idx1-ubyte").write_bytes(b"\x89PNG" * 9) and None),
    ),
    Bad(
        "damaged gzip",
        "0603",
        ".*mnist/train-images-idx3-ubyte.gz.*",
        "",
        idx(
            lambda root: (
                (root / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(999))[:-9])
                and (root / "train-images-idx3-ubyte").unlink()
            )
        ),
    ),
    Bad(
        "missing file of four",
        "0605",
        r"spec.yaml:9:\d+",
        "`label`",
        idx(lambda root: (root / "t10k-labels-idx1-ubyte").unlink()),
        "run spec.yaml",
    ),
    Bad(
        "pickled objects",
        "0611",
        ".*train.npz.*",
        "run code",
        npz(image=np.array([{}, None], object), label=np.zeros(2, np.int64)),
    ),
    Bad(
        "numbers of samples",
        "0604",
        ".*",
        "",
        npz(image=np.zeros((9, 1, 8, 8), np.float32), label=np.zeros(8, np.int64)),
        "run spec.yaml",
    ),
    Bad(
        "label out of range",
        "0662",
        ".*",
        "",
        edit("out: linear(10)", "out: linear(3)"),
        "run spec.yaml --device cpu",
    ),
    Bad(
        "less data than a batch",
        "0667",
        ".*",
        "",
        edit("epochs: 1", "epochs: 1, accumulate: 999"),
        "run spec.yaml",
    ),
    Bad(
        "crop too large",
        "0616",
        r"spec.yaml:9:\d+",
        "",
        edit("batch: 64", "batch: 64, transforms: [crop(20)]"),
    ),
)

PLAN = (
    Bad("no plan", "0501", "absent.plan", "", nothing, "run absent.plan"),
    Bad(
        "folder that is no plan",
        "0504",
        ".*manifest.json",
        "",
        lambda folder: (folder / "bad.plan").mkdir(),
        inspect(),
    ),
    Bad("file that is no plan", "0509", "bad.zip", "", text("bad.zip", "hello"), inspect("bad.zip")),
    *(
        Bad(f"byte of {what}", "0505", f".*{what}.*", "hash", flipped(pattern), inspect())
        for what, pattern in {
            "kernels/b1.local": "kernels/b1.local.*",
            "weights": "weights.*",
            "partition": "partition.*",
            "plan": "plan.*.json",
            "spec": "spec.*",
            ".txt": "plan.*.txt",
        }.items()
    ),
    Bad(
        "byte of the manifest",
        "0503|0505|0512|0506",
        ".*manifest.json.*",
        "",
        flipped("manifest.json"),
        inspect(),
    ),
    Bad(
        "truncated manifest",
        "0503",
        ".*manifest.json.*",
        "",
        plan(lambda folder: cut(folder / "manifest.json")),
        inspect(),
    ),
    Bad(
        "truncated weights",
        "0505",
        ".*weights.*",
        "cut short",
        plan(lambda folder: cut(next(folder.glob("weights.*")))),
        "run bad.plan",
    ),
    Bad(
        "missing kernel",
        "0504",
        ".*kernels/.*",
        "missing",
        plan(lambda folder: next(folder.glob("kernels/b1.local.*")).unlink()),
        "verify bad.plan",
    ),
    Bad("newer version", "0502", ".*manifest.json.*", "", plan(newer), inspect()),
    Bad("path out of the plan", "0506", ".*manifest.json.*", "", plan(misplaced), inspect()),
    Bad("link in a plan", "0507", ".*weights.*", "", plan(linked), inspect()),
    Bad(
        "operator that reads files",
        "0530",
        ".*b1.local.*",
        "from_file",
        operator("aten.from_file.default", "/etc/passwd", False, 3),
        inspect(),
    ),
    Bad(
        "operator of Python",
        "0530",
        ".*b1.local.*",
        "os.system",
        operator("os.system", "true"),
        "run bad.plan",
    ),
    Bad(
        "undefined value",
        "0532",
        ".*b1.local.*",
        "nowhere",
        operator("aten.relu.default", {"ref": "nowhere"}),
        inspect(),
    ),
    Bad("zip bomb", "0509", "bad.zip: manifest.json", "stored", archive(bomb), inspect("bad.zip")),
    Bad(
        "truncated archive",
        "0509",
        "bad.zip",
        "",
        archive(lambda made: made.writestr("manifest.json", "{}"), 30),
        "run bad.zip",
    ),
    Bad("device cuda without CUDA", "0663", ".*device.*", "cuda", no_cuda, "run old.plan --device cuda"),
    Bad("no such device", "0663", ".*device.*", "toaster", nothing, "run old.plan --device toaster"),
    Bad(
        "checkpoint of another plan",
        "0671",
        "run/last.safetensors",
        "another plan",
        other_plan,
        "run other.plan --out run --resume --device cpu",
    ),
    Bad(
        "damaged checkpoint",
        "0670",
        "run/last.safetensors",
        "",
        trained(cut),
        "run old.plan --out run --resume --device cpu",
    ),
    Bad("setting of a built plan", "0703", "old.plan", "run.seed", nothing, "run old.plan --set run.seed=2"),
    Bad("unknown kernel", "0704", "b1.locall", "`b1.local`?", nothing, "inspect old.plan --kernel b1.locall"),
)

COMMAND = (
    Bad("unknown command", "0705", "command line:1:5", "'build'", nothing, "biuld spec.yaml"),
    Bad("unknown option", "0705", "command line:1:26", "--outptu", nothing, "build spec.yaml -o=x --outptu y"),
    Bad("option without value", "0705", r"command line:1:\d+", "-o", nothing, "build spec.yaml -o"),
    Bad("no number", "0705", r"command line:1:\d+", "--epochs", nothing, "run old.plan --epochs many"),
    Bad("unknown form", "0705", r"command line:1:\d+", "dot", nothing, "inspect old.plan --graph png"),
    Bad("no spec", "0705", r"command line:1:\d+", "SPEC", nothing, "build"),
    Bad(
        "no writable place",
        "0510|0701",
        ".*spec.yaml.*",
        "",
        nothing,
        "build spec.yaml -o spec.yaml/new.plan",
    ),
    Bad("place of another file", "0511", "spec.yaml", "", nothing, "build spec.yaml -o spec.yaml"),
    Bad(
        "place of other files",
        "0511",
        "mine",
        "holds",
        lambda folder: ((folder / "mine").mkdir(), (folder / "mine" / "thesis.txt").write_text("years"))[0],
        "build spec.yaml -o mine",
    ),
    Bad("run into a file", "0701", "spec.yaml.*", "", nothing, "run old.plan --out spec.yaml --device cpu"),
    Bad("starter over a file", "0702", "spec.yaml", "--force", nothing, "init spec.yaml"),
)

TABLE = (*SPEC, *NETWORK, *DATA, *PLAN, *COMMAND)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that was there before."""
    path = tmp_path_factory.mktemp("old") / "old.plan"
    api.build(GOOD).save(path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_the_mistake_is_refused(bad: Bad, old: Path, tmp_path: Path, lpc: Callable[..., Any]) -> None:
    shutil.copytree(old, tmp_path / "old.plan")
    (tmp_path / "spec.yaml").write_text(GOOD)
    bad.prepare(tmp_path)
    refused = lpc(*shlex.split(bad.command))
    check(bad, refused)
    assert contents(tmp_path / "old.plan") == contents(old)


def check(bad: Bad, refused: Any) -> None:
    """Assert that a refusal has all that a user needs, and no more."""
    assert refused.code == 2, refused
    assert "Traceback" not in refused.err
    assert refused.out == ""
    found = re.findall(r"error\[LPC(\d+)\]: (.+)\n((?:.*\n)*?)  help: .+\n", refused.err)
    assert found, refused.err
    assert all("  --> " in body for _, _, body in found), refused.err
    told = [(code, re.search(r"  --> (.+)\n", body)) for code, _, body in found if re.fullmatch(bad.code, code)]
    places = [place[1] for _, place in told if place is not None]
    assert any(re.fullmatch(bad.where, place) for place in places), refused.err
    assert bad.says in refused.err, refused.err


@pytest.mark.parametrize("name", ["cyclic blocks", "zip bomb", "unknown command"])
def test_a_process_of_its_own_says_the_same(name: str, old: Path, tmp_path: Path, process: Callable[..., Any]) -> None:
    bad = next(bad for bad in TABLE if bad.name == name)
    shutil.copytree(old, tmp_path / "old.plan")
    (tmp_path / "spec.yaml").write_text(GOOD)
    bad.prepare(tmp_path)
    check(bad, process(*shlex.split(bad.command)))
    assert contents(tmp_path / "old.plan") == contents(old)


def test_names_are_unique() -> None:
    assert len({bad.name for bad in TABLE}) == len(TABLE) >= 45
