"""Does a plan come back from disk as it was, and is every damaged, foreign or hostile one refused by name?"""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lpc.specs.diagnostics import LpcError
from lpc.specs.plan import manifest as manifests
from lpc.specs.plan.kernel import Kernel, Node
from lpc.specs.plan.manifest import MANIFEST, Manifest, plan_hash, read_manifest, render, seal
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.store import load, save

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(plan: Plan, tmp_path: Path) -> Path:
    path = tmp_path / "small.plan"
    save(plan, path)
    return path


@pytest.fixture
def archive(plan: Plan, tmp_path: Path) -> Path:
    path = tmp_path / "small.plan.zip"
    save(plan, path)
    return path


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def refused(path: Path) -> tuple[str, str]:
    """Return code and text of the diagnostic that loading ends with."""
    with pytest.raises(LpcError) as caught:
        load(path)
    return caught.value.diagnostics[0].code, str(caught.value)


def manifest_of(folder: Path) -> Manifest:
    return read_manifest((folder / MANIFEST).read_bytes(), "manifest")


def reseal(folder: Path, manifest: Manifest) -> None:
    """Write a manifest that is consistent with itself, as an attacker would."""
    hashes = {name: entry.sha256 for name, entry in manifest.files.items()}
    manifest = replace(manifest, plan=manifests.hash_of_hashes(hashes))
    (folder / MANIFEST).write_bytes(render(replace(manifest, seal=seal(manifest))))


def forge(folder: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    """Change one part, with hashes, names and manifest to match."""
    manifest = manifest_of(folder)
    data = change((folder / manifest.files[part].path).read_bytes())
    sha256 = manifests.digest(data)
    entry = manifests.Entry(manifests.stored_name(part, sha256), sha256, len(data))
    (folder / entry.path).write_bytes(data)
    reseal(folder, replace(manifest, files={**manifest.files, part: entry}))


def test_folder_round_trip(plan: Plan, folder: Path) -> None:
    assert load(folder) == plan
    assert load(str(folder)) == plan


def test_archive_round_trip(plan: Plan, archive: Path) -> None:
    assert load(archive) == plan
    assert archive.is_file()


def test_layout(plan: Plan, folder: Path) -> None:
    names = {name.split(".")[0] if "/" not in name else "kernels" for name in files(folder)}
    assert names == {"manifest", "spec", "partition", "plan", "weights", "kernels"}
    manifest = manifest_of(folder)
    assert manifest.plan == plan_hash(plan)
    assert manifest.libraries == ("torch",)
    assert "aten.mm.default" in manifest.operators
    assert (
        (folder / manifest.files["text"].path).read_text().startswith("# plan small\n# hash " + manifest.plan)
    )


def test_equal_plans_have_equal_bytes(plan: Plan, tmp_path: Path) -> None:
    copy = replace(plan, report=dict(reversed(plan.report.items())))
    for name, suffix in (("a", ""), ("b", "")):
        save(plan if name == "a" else copy, tmp_path / f"{name}.plan{suffix}")
        save(plan if name == "a" else copy, tmp_path / f"{name}.zip")
    assert files(tmp_path / "a.plan") == files(tmp_path / "b.plan")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_saving_a_loaded_plan_changes_nothing(folder: Path, tmp_path: Path) -> None:
    save(load(folder), tmp_path / "again.plan")
    assert files(tmp_path / "again.plan") == files(folder)


def test_the_hash_is_over_everything(plan: Plan) -> None:
    others = [
        replace(plan, spec=plan.spec + "#"),
        replace(plan, torch="2.12.0"),
        replace(plan, target="cuda"),
        replace(plan, weights=bytes(plan.weights)[:-1] + b"\1"),
        replace(plan, partition={}),
        replace(plan, report={}),
        replace(plan, kernels={"native": plan.kernels["native"]}),
        replace(plan, program=replace(plan.program, metrics={})),
    ]
    assert len({plan_hash(other) for other in (plan, *others)}) == len(others) + 1


def test_torch_range_is_that_of_the_package() -> None:
    assert f'"torch{manifests.TORCH_RANGE}"' in (ROOT / "pyproject.toml").read_text()


def test_a_second_save_sweeps_the_first(plan: Plan, folder: Path) -> None:
    before = set(files(folder))
    (folder / ".plan.json.01234567.tmp").touch()
    (folder / "kernels" / ".k.01234567.tmp").touch()
    (folder / "notes.md").write_text("mine")
    save(replace(plan, spec="lpc: 1\nname: other\n"), folder)
    after = set(files(folder))
    assert {name.split(".")[0] for name in before - after} == {"spec", "plan"}
    assert not [name for name in after if name.endswith(".tmp")]
    assert (folder / "notes.md").read_text() == "mine"
    assert load(folder).spec == "lpc: 1\nname: other\n"


def test_a_damaged_file_is_mended_by_the_next_save(plan: Plan, folder: Path) -> None:
    weights = folder / manifest_of(folder).files["weights"].path
    weights.write_bytes(b"x" * weights.stat().st_size)
    save(plan, folder)
    assert load(folder) == plan


def test_a_folder_of_another_origin_is_left_alone(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(LpcError, match=r"0511[^|]*thesis"):
        save(plan, tmp_path)
    assert list(files(tmp_path)) == ["thesis.tex"]


@pytest.mark.parametrize("name", ["taken.plan", "taken.zip"])
def test_the_wrong_kind_of_path_is_refused(plan: Plan, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir() if name.endswith("zip") else path.touch()
    with pytest.raises(LpcError, match="0511"):
        save(plan, path)


def test_a_path_that_cannot_be_written(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LpcError, match=r"0510[^|]*file"):
        save(plan, tmp_path / "file" / "x.plan")


@pytest.mark.parametrize("suffix", ["plan", "zip"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_anywhere_keeps_the_old_plan(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, call: str
) -> None:
    path = tmp_path / f"small.{suffix}"
    save(plan, path)
    real: Any = getattr(os, call)
    other = replace(plan, spec="lpc: 1\nname: other\n")
    outcomes = []
    for allowed in range(100):
        left = iter(range(allowed))

        def limited(*args: Any, left: Any = left) -> Any:
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            return real(*args)

        monkeypatch.setattr(os, call, limited)
        try:
            save(other, path)
            outcomes.append("saved")
        except LpcError as problem:
            outcomes.append(problem.diagnostics[0].code)
        monkeypatch.setattr(os, call, real)
        if outcomes[-1] == "saved":
            break
        # After the manifest's rename only the folder's own sync can fail: then the new plan is there, whole.
        assert load(path) in (plan, other)
    assert set(outcomes) == {"0510", "saved"}
    assert load(path) == other


def test_every_damaged_byte_is_found(plan: Plan, folder: Path) -> None:
    draw = random.Random(0)
    for name, data in files(folder).items():
        for position in {0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(20))}:
            broken = bytearray(data)
            broken[position] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(broken)
            _, message = refused(folder)
            assert Path(name).name in message
        (folder / name).write_bytes(data)
    assert load(folder) == plan


def test_a_damaged_archive_never_gives_another_plan(plan: Plan, archive: Path) -> None:
    draw = random.Random(1)
    data = archive.read_bytes()
    refusals = 0
    for _ in range(300):
        broken = bytearray(data)
        broken[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        archive.write_bytes(broken)
        try:
            assert load(archive) == plan  # a date or a permission of the archive
        except LpcError:
            refusals += 1
    assert refusals > 200


def test_truncated_archive(archive: Path) -> None:
    data = archive.read_bytes()
    for end in (0, 10, len(data) // 2, len(data) - 1):
        archive.write_bytes(data[:end])
        assert refused(archive)[0] == "0509"


def part_path(folder: Path, part: str) -> Path:
    return folder / manifest_of(folder).files[part].path


def newer(folder: Path) -> None:
    raw = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps({"format": 2, "lpc": "9.9", "surprise": raw}))


def truncate(folder: Path) -> None:
    path = part_path(folder, "weights")
    path.write_bytes(path.read_bytes()[:-1])


def grow(folder: Path) -> None:
    path = part_path(folder, "weights")
    path.write_bytes(path.read_bytes() + b"x")


def rename(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = manifest_of(folder)
        entry = replace(manifest.files["spec"], path=path)
        reseal(folder, replace(manifest, files={**manifest.files, "spec": entry}))

    return change


def symlink(folder: Path) -> None:
    path = part_path(folder, "spec")
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def linked_folder(folder: Path) -> None:
    (folder / "kernels").rename(folder.parent / "kernels")
    (folder / "kernels").symlink_to(folder.parent / "kernels")


def fifo(folder: Path) -> None:
    path = part_path(folder, "spec")
    path.unlink()
    os.mkfifo(path)


def huge(folder: Path) -> None:
    manifest = manifest_of(folder)
    entry = replace(manifest.files["spec"], size=2**50)
    reseal(folder, replace(manifest, files={**manifest.files, "spec": entry}))


def forget(folder: Path) -> None:
    manifest = manifest_of(folder)
    reseal(folder, replace(manifest, files={n: e for n, e in manifest.files.items() if n != "partition"}))


def lie(folder: Path) -> None:
    reseal(folder, replace(manifest_of(folder), target="cuda"))


def forged(part: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        forge(folder, part, lambda data: data.replace(old, new))

    return change


def operator(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Forge an operator in kernel and manifest alike."""

    def change(folder: Path) -> None:
        forge(folder, "native/b1.eval", lambda data: data.replace(old, new))
        manifest = manifest_of(folder)
        reseal(folder, replace(manifest, operators=tuple(sorted({*manifest.operators, new.decode()}))))

    return change


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no plan": (shutil.rmtree, "0501", "small.plan"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "0504", MANIFEST),
    "newer format": (newer, "0502", "lpc 9.9"),
    "manifest is a list": (lambda folder: (folder / MANIFEST).write_text("[]"), "0503", MANIFEST),
    "manifest is binary": (lambda folder: (folder / MANIFEST).write_bytes(b"\x80\x04"), "0503", MANIFEST),
    "missing part": (lambda folder: part_path(folder, "weights").unlink(), "0504", "weights."),
    "truncated part": (truncate, "0505", "cut short"),
    "longer part": (grow, "0508", "weights."),
    "parent folder": (rename("../x.ff58398a2afe.yaml"), "0506", "../x"),
    "absolute path": (rename("/etc/x.ff58398a2afe.yaml"), "0506", "/etc"),
    "hidden traversal": (rename("kernels/../../x.ff58398a2afe.yaml"), "0506", ".."),
    "backslashes": (rename("..\\x.ff58398a2afe.yaml"), "0506", "x."),
    "name without its hash": (rename("spec.000000000000.yaml"), "0512", "spec"),
    "symbolic link": (symlink, "0507", "spec."),
    "linked folder": (linked_folder, "0507", "kernels"),
    "pipe": (fifo, "0507", "spec."),
    "size beyond the cap": (huge, "0508", "spec."),
    "part left out": (forget, "0512", "partition"),
    "manifest lies": (lie, "0512", "target"),
    "unknown key": (forged("plan", b'"torch"', b'"torsch"'), "0503", "torsch"),
    "kernel under another name": (forged("native/b1.eval", b'"b1.eval"', b'"b1.evil"'), "0512", "b1.evil"),
    "partition edge without link": (forged("partition", b'"link"', b'"lnk"'), "0503", "partition."),
    "spec is no text": (forged("spec", b"small", b"\xff\xfe"), "0503", "spec."),
    "disallowed operator": (
        operator(b"aten.mm.default", b"aten.from_file.default"),
        "0530",
        "kernel b1.eval, node n1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told(folder: Path, fault: str) -> None:
    break_it, code, part = FAULTS[fault]
    break_it(folder)
    found, message = refused(folder)
    assert found == code, message
    assert part in message
    assert "help:" in message


def test_a_disallowed_operator_names_kernel_node_and_operator(plan: Plan, tmp_path: Path) -> None:
    kernel = plan.kernels["native"]["b1.eval"]
    evil = Node("n1", "aten.set_.source_Storage", ({"ref": "x"},), origin="fc1")
    changed: Kernel = replace(kernel, nodes=(kernel.nodes[0], evil))
    save(
        replace(plan, kernels={"native": {**plan.kernels["native"], "b1.eval": changed}}), tmp_path / "x.plan"
    )
    code, message = refused(tmp_path / "x.plan")
    assert code == "0530"
    assert "aten.set_.source_Storage" in message
    assert "kernel b1.eval, node n1 (fc1)" in message


def rezip(archive: Path, change: Callable[[zipfile.ZipFile, str, bytes], None]) -> None:
    with zipfile.ZipFile(archive) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(archive, "w") as new:
        for name, data in content.items():
            change(new, name, data)


def test_a_compressed_archive_is_refused(archive: Path) -> None:
    rezip(archive, lambda new, name, data: new.writestr(name, bytes(10_000_000), zipfile.ZIP_DEFLATED))
    assert refused(archive)[0] == "0509"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_twice_in_an_archive_is_refused(archive: Path) -> None:
    def twice(new: zipfile.ZipFile, name: str, data: bytes) -> None:
        new.writestr(name, data)
        new.writestr(name, b"other")

    rezip(archive, twice)
    assert refused(archive)[0] == "0509"


def test_a_link_in_an_archive_is_refused(archive: Path) -> None:
    def link(new: zipfile.ZipFile, name: str, data: bytes) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16
        new.writestr(info, data)

    rezip(archive, link)
    assert refused(archive)[0] == "0507"


def test_a_file_missing_from_an_archive(archive: Path) -> None:
    def drop(new: zipfile.ZipFile, name: str, data: bytes) -> None:
        if not name.startswith("weights"):
            new.writestr(name, data)

    rezip(archive, drop)
    code, message = refused(archive)
    assert code == "0504"
    assert "weights." in message


def test_something_else_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"not a plan")
    assert refused(tmp_path / "x.zip")[0] == "0509"
