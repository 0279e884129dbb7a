"""Does a run go on from what ranks saved, on any other number of them, and is damage told?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lpc
from lpc.parallel import Fit, launch
from lpc.runtime import pieces
from lpc.runtime.checkpoint import BEST, LAST

SPEC = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(8), norm1: batch_norm, relu, dropout(0.2), fc2: linear(8), relu, out: linear(10)]
data: {source: digits, batch: 128, validation: 0.1}
loss: cross_entropy
decompose: {blocks: {b1: [fc1, norm1], b2: fc2, head: out}, links: stop}
learn:
  - blocks: "*"
    head: linear
    loss: cross_entropy
    optimizer: adam(lr=0.01)
    correct: bp_offset(period=5)
run: {steps: 24, target: cpu, log: every(3), checkpoint: every(4), validate: every(6)}
"""


@pytest.fixture(scope="module")
def plan() -> lpc.Plan:
    return lpc.build(SPEC)


def saved(folder: Path, name: str = LAST) -> tuple[dict[str, torch.Tensor], dict[str, Any], int]:
    found = pieces.read(folder / name)
    return dict(found.tensors), dict(found.numbers), found.progress.step


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def assert_same(folder: Path, wanted: Path) -> None:
    for name in (LAST, BEST):
        (tensors, numbers, step), (others, other_numbers, other_step) = saved(folder, name), saved(wanted, name)
        assert tensors.keys() == others.keys()
        assert [key for key in others if not torch.equal(tensors[key], others[key])] == []
        assert (numbers, step) == (other_numbers, other_step)
    assert rows(folder) == rows(wanted)


def test_each_goes_on_from_the_other(
    plan: lpc.Plan, tmp_path: Path, ranks: Callable[..., list[Any]], stopping: Callable[[Any, int], Any]
) -> None:
    """Three ranks until step 10, two until 15, one until 21, three to the end; each loses what it did not save."""
    one, many = tmp_path / "one", tmp_path / "many"
    wanted = lpc.Trainer(plan, "cpu").fit(one)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        ranks(plan, 3, lambda worker: stopping(worker, 10).fit(many))
    assert sorted(path.name.split(".")[0] for path in (many / "last.blocks").iterdir()) == ["b1", "b2", "head"]
    with pytest.raises(RuntimeError, match="stopped by the test"):
        ranks(plan, 2, lambda worker: stopping(worker, 15).fit(many, resume=True))
    with pytest.raises(RuntimeError, match="stopped by the test"):
        stopping(lpc.Trainer(plan, "cpu"), 21).fit(many, resume=True)
    assert not pieces.manifest_of(many / LAST).exists()
    found = ranks(plan, 3, lambda worker: worker.fit(many, resume=True))
    assert not (many / LAST).exists()
    assert_same(many, one)
    for summary in found:
        assert {**summary, "seconds": 0} == {**wanted, "seconds": 0}
    assert json.loads((many / "summary.json").read_text()) == found[0]


def test_damage_is_told(plan: lpc.Plan, tmp_path: Path, ranks: Callable[..., list[Any]]) -> None:
    ranks(plan, 2, lambda worker: worker.fit(tmp_path))
    block = next((tmp_path / "last.blocks").glob("b2.*"))
    block.write_bytes(block.read_bytes()[:-1] + b"\0\1")
    with pytest.raises(lpc.LpcError, match=r"LPC0670.*block `b2` was altered"):
        pieces.read(tmp_path / LAST)
    assert pieces.read(tmp_path / LAST, ["b1"]).progress.step == 24
    pieces.manifest_of(tmp_path / LAST).write_text("{}")
    with pytest.raises(lpc.LpcError, match="LPC0670"):
        pieces.read(tmp_path / LAST)
    pieces.remove(tmp_path / LAST)
    assert not pieces.exists(tmp_path / LAST)


def test_another_plan_is_refused(plan: lpc.Plan, tmp_path: Path, ranks: Callable[..., list[Any]]) -> None:
    ranks(plan, 2, lambda worker: worker.fit(tmp_path))
    other = lpc.build(SPEC + "name: other\n")
    with pytest.raises(lpc.LpcError, match="LPC0671"):
        ranks(other, 2, lambda worker: worker.fit(tmp_path, resume=True))
    plan.save(tmp_path / "run.plan")
    how = Fit(tmp_path, "cpu", True, False, False, False, 20.0, 0)
    with pytest.raises(lpc.LpcError, match="LPC0671"):  # before any process begins, and the plan there stays
        launch(other, how, 2, 0)
    assert lpc.load(tmp_path / "run.plan").data == plan.data
