"""Is a run of two processes, one slow and killed once, replayed to the bit, and is a damaged journal told?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

import lpc
from lpc.cli import main
from lpc.replaying import replay
from lpc.runtime import pieces
from lpc.runtime.checkpoint import LAST
from lpc.runtime.workers.order import FILE
from lpc.runtime.workers.supervisor import Supervisor

SCRIPT = Path(__file__).with_name("slowed.py")
SPEC = """\
name: order
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(8), tanh, fc2: linear(8), tanh, out: linear(10)]}
data: {source: digits, batch: 128, validation: 0.1}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}}
recipe: blockprop(steps=2, optimizer=adam)
run: {steps: 40, staleness: 2, workers: 2, target: cpu, log: every(6), checkpoint: every(10), validate: every(20)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over gloo: killed at step 29, it went on from its checkpoint after 20 steps, in another order."""
    found = tmp_path_factory.mktemp("order")
    lpc.build(SPEC).save(found / "run.plan")
    out = StringIO()
    supervisor = Supervisor([str(SCRIPT), str(found)], 2, found / "logs", 1, ["--resume"], out=out)
    assert supervisor.run().code == 0, out.getvalue() + (found / "logs" / "rank-1.log").read_text()
    assert "rank 1 was killed by SIGKILL" in out.getvalue()
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["run", *arguments])
    return int(left.value.code or 0)


def test_a_replay_has_the_same_bits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, threads = tmp_path / "again", torch.get_num_threads()
    assert command(str(folder / "run.plan"), "--replay", str(folder / FILE), "--out", str(out)) == 0
    assert "staleness of updates: " in capsys.readouterr().out
    found, wanted = pieces.read(out / LAST), pieces.read(folder / LAST)
    assert found.tensors.keys() == wanted.tensors.keys()
    assert [name for name, tensor in wanted.tensors.items() if not torch.equal(found.tensors[name], tensor)] == []
    assert (found.numbers, found.progress.step) == (wanted.numbers, 40)
    assert (out / FILE).read_bytes() == (folder / FILE).read_bytes()
    assert torch.get_num_threads() == threads


def test_the_journal_tells_how_stale_each_update_was(folder: Path) -> None:
    header, *steps, last = rows(folder)
    assert (header["ranks"], header["staleness"], header["first"]) == (2, 2, 0)
    assert [(row["step"], row["rank"]) for row in steps] == [(step, rank) for step in range(40) for rank in (0, 1)]
    stale = [late for row in steps for late in row["staleness"].values()]
    assert [set(row["staleness"]) for row in steps[:2]] == [{"b1"}, {"b2", "head"}]
    assert 0 < max(stale) <= 2
    assert (last["largest"], last["mean"]) == (max(stale), round(sum(stale) / len(stale), 6))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["staleness"] == {"largest": last["largest"], "mean": last["mean"]}
    met = [row["version"] for row in steps if row["step"] % 6 == 0 and row["rank"] == 0]
    assert met == list(range(0, 40, 6))  # where all ranks have met no step is under way


def changed(row: int, key: str, value: Any, whole: bool = True) -> Callable[[list[str]], list[str]]:
    """Change one entry of a line; `whole`: the last line's hash is put right."""

    def change(lines: list[str]) -> list[str]:
        entry = json.loads(lines[row])
        entry[key] = value(entry[key]) if callable(value) else value
        lines = [*lines]
        lines[row] = json.dumps(entry) + "\n"
        return rehashed(lines) if whole else lines

    return change


def rehashed(lines: list[str]) -> list[str]:
    last = json.loads(lines[-1])
    last["lines"] = hashlib.sha256("".join(lines[:-1]).encode()).hexdigest()
    return [*lines[:-1], json.dumps(last) + "\n"]


Change = Callable[[list[str]], list[str]]
DAMAGE: dict[str, tuple[Change, str, str, int]] = {
    "empty": (lambda lines: [], "0674", "it is empty", 1),
    "no end": (lambda lines: lines[:-1], "0674", "the run did not end", 81),
    "torn": (lambda lines: [*lines[:40], lines[40][:30]], "0674", "the run did not end", 41),
    "no header": (lambda lines: lines[1:], "0674", "no `format`", 1),
    "other format": (changed(0, "format", 9), "0674", "format 9, expected 1", 1),
    "other plan": (changed(0, "plan", "0" * 64), "0675", "another plan", 1),
    "no ranks": (changed(0, "ranks", 0), "0674", "no ranks", 1),
    "true ranks": (changed(0, "ranks", True), "0674", "no `ranks`, of type int", 1),
    "went on": (changed(0, "first", 20), "0674", "begins at step 20", 1),
    "altered": (changed(9, "version", 0, whole=False), "0674", "not those that the run wrote", 82),
    "too old": (changed(13, "version", lambda version: version - 3), "0674", "cannot have begun at version", 14),
    "a step less": (lambda lines: rehashed([*lines[:9], *lines[10:]]), "0674", "does not come next", 11),
    "a rank less": (lambda lines: rehashed([one for one in lines if '"rank": 1' not in one]), "0674", "are 0 of", 42),
    "no JSON": (lambda lines: rehashed([*lines[:9], "{]\n", *lines[10:]]), "0674", "no JSON", 10),
    "other weights": (
        changed(-1, "weights", lambda found: {**found, "b2": "0"}), "0676", "of block `b2` are not those", 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_cannot_be_replayed(name: str, folder: Path, tmp_path: Path) -> None:
    change, code, words, line = DAMAGE[name]
    order = tmp_path / FILE
    order.write_text("".join(change((folder / FILE).read_text().splitlines(keepends=True))))
    with pytest.raises(lpc.LpcError) as caught:
        replay(lpc.load(folder / "run.plan"), order)
    problem = caught.value.diagnostics[0]
    assert problem.code == code
    assert words in problem.message
    assert (problem.span.line if problem.span is not None else 0) == line


def test_the_command_tells_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, order = str(folder / "run.plan"), str(folder / FILE)
    (tmp_path / "torn").write_text((folder / FILE).read_text()[:5000])
    for arguments, words in (
        ((plan, "--replay", str(tmp_path / "torn")), "LPC0674]: the order cannot be replayed: it has no last line"),
        ((plan, "--replay", str(tmp_path / "none")), "LPC0701"),
        ((plan, "--replay", order, "--workers", "2"), "goes without --workers"),
        ((plan, "--replay", order, "--out", str(folder)), "LPC0684]: the replay would be written over the run"),
    ):
        assert command(*arguments) == 2
        told = capsys.readouterr().err
        assert words in told
        assert "Traceback" not in told
