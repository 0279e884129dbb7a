"""Does a run train, choose, stop, report, and continue bitwise after it was cut or killed?"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lpc.runtime import checkpoint
from lpc.runtime.checkpoint import BEST, LAST, Progress
from lpc.runtime.journal import FILE, Journal, rows
from lpc.runtime.report import Bar, Lines, default_reporter
from lpc.runtime.stopping import criterion, find
from lpc.runtime.trainer import Trainer
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.store import save
from lpc.specs.term import Term

ADAM = {"optimizer": "nadam", "options": {"lr": 0.02}, "dropout": True}


class CutError(Exception):
    """Ends a run in the middle, as a kill does."""


def cut_after(trainer: Trainer, steps: int) -> None:
    """Let the trainer fail when it starts the step after `steps`."""
    advance = trainer.advance

    def limited(parts: Any) -> Any:
        if trainer.steps_done == steps:
            raise CutError
        return advance(parts)

    trainer.advance = limited  # type: ignore[method-assign]


def same(one: Trainer, other: Trainer) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in theirs)


def training(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder / FILE)]


def test_a_run_learns_and_sums_up(trainer_of: Any, data_text: str, tmp_path: Path) -> None:
    run = {"epochs": 40, "log": "every(10)"}
    trainer = trainer_of(optimizer="adam", options={"lr": 0.02}, data=data_text, run=run)
    before = trainer.evaluate("test")["b2.loss"]
    summary = trainer.fit(tmp_path / "run")
    assert summary["steps"] == 40 * 6
    assert summary["epochs"] == 40
    assert summary["test"]["b2.loss"] < before / 2
    assert summary["test"] == trainer.evaluate("test")
    assert summary["best"]["b2.loss"] <= summary["validation"]["b2.loss"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    kinds = [row["kind"] for row in rows(tmp_path / "run" / FILE)]
    assert kinds.count("train") == 24
    assert kinds.count("validation") == 40
    best = checkpoint.read(tmp_path / "run" / BEST)
    chosen = trainer_of(data=data_text)
    chosen.load_state_dict(best.part("state."))
    assert chosen.evaluate("validation")["b2.loss"] == summary["best"]["b2.loss"]


def test_training_metrics_are_means_over_samples_since_the_last_log(
    trainer_of: Any, data_text: str, tmp_path: Path
) -> None:
    options = {"options": {"lr": 0.0}, "data": data_text, "run": {"epochs": 2, "log": "every(6)"}}
    trainer = trainer_of(**options)
    trainer.fit(tmp_path)
    found = [row["b2.loss"] for row in rows(tmp_path / FILE) if row["kind"] == "train"]
    whole = trainer.evaluate("train")["b2.loss"]
    assert found == pytest.approx([whole, whole], rel=1e-12)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("cut", [4, 9, 16])
def test_resume_is_bitwise_even_in_the_middle_of_an_epoch(
    cut: int, accumulate: int, trainer_of: Any, data_text: str, tmp_path: Path
) -> None:
    run = {"epochs": 6 * accumulate, "checkpoint": "every(4)", "log": "every(5)"}
    options = {
        **ADAM,
        "data": data_text,
        "run": run,
        "accumulate": accumulate,
        "schedule": {"warmup": 3, "then": "cosine", "unit": "step"},
    }
    whole, first, second = (trainer_of(**options) for _ in range(3))
    expected = whole.fit(tmp_path / "whole")
    cut_after(first, cut)
    with pytest.raises(CutError):
        first.fit(tmp_path / "cut")
    summary = second.fit(tmp_path / "cut", resume=True)
    assert same(second, whole)
    assert training(tmp_path / "cut") == training(tmp_path / "whole")
    assert {**summary, "seconds": 0} == {**expected, "seconds": 0}


def test_resuming_a_finished_run_changes_nothing(trainer_of: Any, data_text: str, tmp_path: Path) -> None:
    options = {"data": data_text}
    first, second = trainer_of(**options), trainer_of(**options)
    first.fit(tmp_path)
    before = training(tmp_path)
    second.fit(tmp_path, resume=True)
    assert same(first, second)
    assert training(tmp_path) == before


def test_a_new_run_in_an_old_folder_starts_anew(trainer_of: Any, data_text: str, tmp_path: Path) -> None:
    trainer_of(data=data_text).fit(tmp_path)
    before = training(tmp_path)
    trainer_of(data=data_text).fit(tmp_path)
    assert training(tmp_path) == before


def test_early_stopping(trainer_of: Any, data_text: str, tmp_path: Path) -> None:
    run = {"epochs": 50, "early_stop": "patience(3, metric=loss, min_delta=0.001)"}
    trainer = trainer_of(options={"lr": 0.0}, data=data_text, run=run)
    summary = trainer.fit(tmp_path)
    assert summary["stopped_early"]
    assert summary["epochs"] == 4
    assert summary["best"]["step"] == 6
    again = trainer_of(options={"lr": 0.0}, data=data_text, run=run)
    assert again.fit(tmp_path, resume=True)["steps"] == summary["steps"]


def test_the_test_split_decides_nothing(trainer_of: Any, data_text: str, tmp_path: Path) -> None:
    data = data_text.replace("validation: 0.2, ", "")
    summary = trainer_of(data=data).fit(tmp_path)
    assert "best" not in summary
    assert not (tmp_path / BEST).exists()
    assert {row["kind"] for row in rows(tmp_path / FILE)} == {"train", "test"}
    with pytest.raises(LpcError, match="needs a validation split") as caught:
        trainer_of(data=data, run={"early_stop": "patience(3)"}).fit()
    assert caught.value.diagnostics[0].span is not None


def test_a_run_without_a_folder_writes_nothing(
    trainer_of: Any, data_text: str, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trainer_of(data=data_text).fit()
    assert not list((tmp_path / "here").iterdir())


SCRIPT = """
import sys
from lpc.runtime.trainer import Trainer
from lpc.specs.plan.store import load
Trainer(load(sys.argv[1]), "cpu").fit(sys.argv[2], resume=True)
"""


def test_killed_at_random_moments(plan_of: Any, data_text: str, tmp_path: Path) -> None:
    """After every kill the last checkpoint is readable; the end is bitwise that of the undisturbed run."""
    plan = plan_of(**ADAM, data=data_text, run={"epochs": 60, "checkpoint": "every(5)", "log": "every(1)"})
    save(plan, tmp_path / "p.plan")
    folder, moments = tmp_path / "run", random.Random(0)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "p.plan"), str(folder)]
    for _ in range(2):
        seen = len(rows(folder / FILE))
        target = seen + moments.randrange(10, 80)
        with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            deadline = time.monotonic() + 240
            while (
                process.poll() is None and len(rows(folder / FILE)) < target and time.monotonic() < deadline
            ):
                time.sleep(moments.random() / 500)
            assert process.poll() is None, "the run ended before it could be killed"
            process.send_signal(signal.SIGKILL)
        assert checkpoint.read(folder / LAST).progress.step % 5 == 0
    resumed, whole = Trainer(plan, "cpu"), Trainer(plan, "cpu")
    resumed.fit(folder, resume=True)
    whole.fit(tmp_path / "whole")
    assert same(resumed, whole)
    assert training(folder) == training(tmp_path / "whole")
    assert not [path for path in folder.iterdir() if path.name.startswith(f".{LAST}")]


def test_checkpoints_that_cannot_be_used(trainer_of: Any, data_text: str, tmp_path: Path) -> None:
    trainer_of(data=data_text).fit(tmp_path)
    with pytest.raises(LpcError, match="another plan"):
        trainer_of(data=data_text, options={"lr": 0.2}).fit(tmp_path, resume=True)
    data = (tmp_path / LAST).read_bytes()
    for damaged in (data[:-8], data[:100], b"", b"\x00" * 64):
        (tmp_path / LAST).write_bytes(damaged)
        with pytest.raises(LpcError) as caught:
            trainer_of(data=data_text).fit(tmp_path, resume=True)
        assert caught.value.diagnostics[0].code == "0670"
    with pytest.raises(LpcError, match="no folder to resume from"):
        trainer_of(data=data_text).fit(resume=True)
    with pytest.raises(LpcError, match="no such file"):
        checkpoint.read(tmp_path / "nothing")


def test_a_batch_too_large_to_accumulate(trainer_of: Any, data_text: str) -> None:
    with pytest.raises(LpcError, match="less than the 7 batches"):
        trainer_of(data=data_text, accumulate=7).fit()


def test_a_torn_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    Journal(tmp_path, upto=2).write("train", 3, 0.5, {"loss": float("nan")}, seconds=1.0)
    assert [row["step"] for row in rows(tmp_path / FILE)] == [1, 2, 3]
    assert rows(tmp_path / FILE)[-1] == {
        "kind": "train",
        "step": 3,
        "epoch": 0.5,
        "loss": None,
        "seconds": 1.0,
    }


def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(LpcError, match="is not installed"):
        Journal(tmp_path, tensorboard=True)


def test_tensorboard_gets_the_metrics(trainer_of: Any, data_text: str, tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = trainer_of(data=data_text, run={"epochs": 2, "log": "every(1)"})
    trainer.fit(tmp_path, tensorboard=True)
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    written = [row for row in rows(tmp_path / FILE) if row.get("b1.loss") is not None]
    tags = [tag for tag in events.Tags()["scalars"] if tag.endswith("b1.loss")]
    assert written
    assert tags
    assert max(len(events.Scalars(tag)) for tag in tags) >= 2


def test_the_best_validation() -> None:
    stop, progress = (
        criterion(Term("patience", (2,), {"metric": "accuracy"}), ["b1.accuracy", "b2.accuracy"]),
        Progress(),
    )
    assert stop.metric == "b2.accuracy"
    verdicts = [
        stop.judge({"b2.accuracy": value}, progress) for value in (float("nan"), 0.5, 0.4, 0.6, 0.6, 0.5)
    ]
    assert verdicts == [False, True, False, True, False, False]
    assert progress.stopped
    assert progress.best == 0.6
    assert criterion(None, ["a.loss"]).metric == "a.loss"
    assert find("loss", ["a.lossy"]) is None
    with pytest.raises(LpcError, match="`f1` is no metric"):
        criterion(Term("patience", (2, "f1")), ["a.loss"])


@pytest.mark.parametrize("terminal", [True, False])
def test_reports(terminal: bool, trainer_of: Any, data_text: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    reporter = default_reporter(console)
    assert type(reporter) is (Bar if terminal else Lines)
    trainer_of(data=data_text, run={"epochs": 2, "log": "every(4)"}).fit(reporter=reporter)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 12/12  validation  b2.loss" in output
    assert ("12/12" if terminal else "step 8/12  b1.loss") in output
