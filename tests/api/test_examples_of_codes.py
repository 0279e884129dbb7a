"""Is every example of a mistake with networks, data, runs and commands that mistake, and is its mending right?"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

import lpc
from lpc.cli import main
from lpc.compiler.frontend.network import build_network
from lpc.compiler.frontend.trace import trace
from lpc.compiler.partition import partition
from lpc.runtime.data import open_data
from lpc.specs.examples import BASE, EXAMPLES, By, Example, whole
from lpc.specs.plan.kernel import TensorType


@dataclass(frozen=True)
class Made:
    """What examples speak of: a plan of the base, one without data, and a folder with both of them as files."""

    plan: lpc.Plan
    bare: lpc.Plan
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    base = "".join(BASE.values())
    (folder / "spec.yaml").write_text(base)
    plan = lpc.build(base)
    plan.save(folder / "digits.plan")
    bare = lpc.build(whole("data: none\nfields: {label: {shape: [], dtype: int64}}"))
    return Made(plan, bare, folder)


@pytest.fixture(autouse=True)
def place(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder of one's own, in which the classes of other examples are forgotten."""
    for source in made.folder.iterdir():
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / source.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    yield tmp_path
    sys.modules.pop("nets", None)


def by_network(text: str, made: Made) -> None:
    spec = lpc.check(text)
    trace(build_network(spec, ["nets.py"] if Path("nets.py").exists() else []), spec)


def by_partition(text: str, made: Made) -> None:
    spec = lpc.check(text)
    partition(trace(build_network(spec, ["nets.py"] if Path("nets.py").exists() else []), spec), spec)


def by_build(text: str, made: Made) -> None:
    if "cuda" in text and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    lpc.build(text, allow=["nets.py"] if Path("nets.py").exists() else [])


def by_data(text: str, made: Made) -> None:
    spec = lpc.check(text)
    assert spec.data is not None
    fields = {name: TensorType(t.dtype, ("B", *t.shape)) for name, t in spec.network.inputs.items()}
    open_data(spec.data, fields | {"label": TensorType("int64", ("B",))}, 0, spec.origin)


def by_python(text: str, made: Made) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = {"image": torch.rand(4, 1, 8, 8, generator=generator), "label": torch.tensor([0, 1, 2, 3])}
    trainer = lpc.Trainer(made.plan, device="cpu")
    exec(text, {"torch": torch, "lpc": lpc, "plan": made.plan, "bare": made.bare, "trainer": trainer, "batch": batch})


RUNNERS: dict[By, Callable[[str, Made], None]] = {
    By.NETWORK: by_network,
    By.PARTITION: by_partition,
    By.BUILD: by_build,
    By.DATA: by_data,
    By.PYTHON: by_python,
}
CASES = sorted(code for code, example in EXAMPLES.items() if example.by in RUNNERS)
COMMANDS = sorted(code for code, example in EXAMPLES.items() if example.by is By.COMMAND)


def run(example: Example, text: str, made: Made) -> None:
    if example.python:
        Path("nets.py").write_text(example.python)
    RUNNERS[example.by](text if example.by is By.PYTHON else whole(text), made)


def steady(message: str, place: Path) -> str:
    """Return a message without what differs from one machine, run or release of torch to the next."""
    message = message.replace(str(place), "FOLDER").replace(str(Path(lpc.__file__).parent), "LPC")
    message = re.sub(r"\bs\d+\b", "sN", message)
    return re.sub(r"(?m)^  note: (\w+Error: |.*Error\b|.*torch).*$", "  note: (torch's own words)", message)


@pytest.mark.parametrize("code", CASES)
def test_the_wrong_one_is_told(code: str, made: Made, place: Path, snapshot: SnapshotAssertion) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        run(EXAMPLES[code], EXAMPLES[code].bad, made)
    assert {problem.code for problem in caught.value.diagnostics} == {code}
    assert steady(str(caught.value), place) == snapshot


@pytest.mark.parametrize("code", CASES)
def test_the_right_one_is_right(code: str, made: Made) -> None:
    run(EXAMPLES[code], EXAMPLES[code].good, made)


def command(line: str, capsys: Any) -> tuple[int, str]:
    word, *arguments = shlex.split(line)
    assert word == "lpc"
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("code", COMMANDS)
def test_the_wrong_command_is_told(
    code: str, place: Path, capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    ended, err = command(EXAMPLES[code].bad, capsys)
    assert (ended, re.findall(r"error\[LPC(\d+)\]", err)) == (2, [code])
    assert steady(err, place) == snapshot


@pytest.mark.parametrize("code", COMMANDS)
def test_the_right_command_is_right(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(EXAMPLES[code].good, capsys)[0] == 0
