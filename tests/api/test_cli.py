"""Does the command do what its help says, and tell a user's mistakes without a traceback?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import lpc as api
from lpc.cli import app
from lpc.specs.codes import CODES

SPEC = files("lpc").joinpath("starter.yaml").read_text()
Command = Callable[..., Any]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A small spec that trains in a moment."""
    path = tmp_path / "small.yaml"
    path.write_text(SPEC.replace("epochs: 20", "epochs: 1").replace("128", "16"))
    return path


@pytest.fixture
def planned(spec: Path, tmp_path: Path, built: Callable[[str], api.Plan]) -> Path:
    """A plan of that spec, in a folder."""
    path = tmp_path / "built.plan"
    built(spec.read_text()).save(path)
    return path


def test_version(lpc: Command) -> None:
    assert lpc("--version").out == f"lpc {api.__version__}\n"


def test_every_command_has_help(lpc: Command) -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        shown = lpc(command.callback.__name__, "--help")
        assert shown.code == 0
        assert (command.callback.__doc__ or "nothing").split(".")[0][:40] in shown.out


def test_init_writes_a_spec_that_checks(lpc: Command, tmp_path: Path) -> None:
    assert lpc("init", "new/spec.yaml").code == 0
    assert lpc("check", "new/spec.yaml").out == "new/spec.yaml: `starter` is well formed\n"
    assert (tmp_path / "new" / "spec.yaml").read_text() == SPEC


def test_init_keeps_a_file_that_is_there(lpc: Command, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("mine")
    refused = lpc("init")
    assert refused.code == 2
    assert "LPC0702" in refused.err
    assert (tmp_path / "spec.yaml").read_text() == "mine"
    assert lpc("init", "--force").code == 0
    assert (tmp_path / "spec.yaml").read_text() == SPEC


def test_expand_reads_back(lpc: Command, spec: Path) -> None:
    shown = lpc("expand", spec, "--set", "run.seed=7")
    assert shown.code == 0
    assert api.check(shown.out) == api.check(spec, {"run.seed": 7})


def test_check_tells_every_problem_at_its_place(lpc: Command, spec: Path) -> None:
    spec.write_text(SPEC.replace("relu", "rleu", 1).replace("adam(", "adamm("))
    refused = lpc("check", spec)
    assert refused.code == 2
    assert refused.out == ""
    assert refused.err.count("error[LPC") == 2
    line = SPEC[: SPEC.index("relu")].count("\n") + 1
    assert f"{spec}:{line}:7" in refused.err
    assert "did you mean `relu`?" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("check", "absent.yaml"), "LPC0100"),
        (("build", "absent.yaml"), "LPC0100"),
        (("run", "absent.yaml"), "LPC0100"),
        (("run", "absent.plan"), "LPC0501"),
        (("inspect", "absent.plan"), "LPC0501"),
        (("verify", "absent.plan"), "LPC0501"),
        (("run", "absent.plan", "--set", "run.seed=1"), "LPC0703"),
        (("run", "absent.plan", "--epochs", "3"), "LPC0703"),
        (("check", "absent.yaml", "--set", "oops"), "LPC0100"),
        (("init", "/dev/null/spec.yaml"), "LPC0701"),
    ],
)
def test_mistakes_are_diagnostics(lpc: Command, arguments: tuple[str, ...], code: str) -> None:
    refused = lpc(*arguments)
    assert refused.code == 2
    assert f"error[{code}]" in refused.err
    assert CODES[code.removeprefix("LPC")].title
    assert "help: " in refused.err


def test_unknown_command_and_option(lpc: Command, spec: Path) -> None:
    assert "Did you mean 'check'" in lpc("chek").err
    assert lpc("check", spec, "--nope").code == 2


def test_reader_that_goes_away_is_no_error(spec: Path) -> None:
    """`lpc expand | head -1` must end quietly when the pipe closes."""
    line = f"{sys.executable} -m lpc expand {spec} | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "lpc: 1\n"
    assert done.stderr == ""


def test_output_into_a_pipe_is_plain(process: Command, spec: Path) -> None:
    spec.write_text("nonsense: [")
    refused = process("check", spec)
    assert refused.code == 2
    assert "\x1b" not in refused.err
    assert "Traceback" not in refused.err


def test_build_inspect_verify_run(lpc: Command, spec: Path, tmp_path: Path) -> None:
    built = lpc("build", spec)
    assert built.code == 0, built.err
    assert "traced by layers written in the spec" in built.out
    assert "built small.plan in " in built.out
    plan = tmp_path / "small.plan"
    shown = lpc("inspect", plan).out
    assert "fc1 -> fc2  stop  relu1: float32[16]   64 B" in shown
    assert lpc("inspect", plan, "--plan").out == api.load(plan).text()
    assert lpc("inspect", plan, "--kernel", "fc1.local").out == api.load(plan).kernel("fc1.local")
    assert lpc("inspect", plan, "--kernel", "fc9.local").code == 2
    assert "verified: " in lpc("verify", plan).out
    ran = lpc("run", plan, "--out", "here", "--device", "cpu")
    assert ran.code == 0, ran.err
    assert "test accuracy " in ran.out
    assert (tmp_path / "here" / "summary.json").exists()
    assert lpc("run", plan, "--out", "here", "--device", "cpu", "--resume").code == 0


@pytest.mark.parametrize(
    ("form", "start"), [("dot", "digraph"), ("graphml", "<graphml"), ("json", "{"), ("svg", "<svg")]
)
def test_inspect_prints_the_partition(lpc: Command, planned: Path, form: str, start: str) -> None:
    shown = lpc("inspect", planned, "--graph", form)
    assert shown.code == 0
    assert start in shown.out[:60]
    assert "fc1" in shown.out


def test_inspect_predicts_memory(lpc: Command, planned: Path) -> None:
    shown = lpc("inspect", planned, "--memory", "--batch", "32").out
    assert shown.split()[:4] == ["block", "parameters", "gradients", "optimizer"]
    assert "with B = 32: " in shown
    assert "alive then: " in shown
    told = json.loads(lpc("inspect", planned, "--memory", "--json", "--length", "T=3").out)
    plan = api.load(planned)
    assert told["total"] == plan.memory(lengths={"T": 3}).total
    assert told["lengths"] == {"B": plan.spec.batch_size, "T": 3}
    assert [block["block"] for block in told["blocks"]] == list(plan.partition)


@pytest.mark.parametrize("options", [["--batch", "3"], ["--flow", "--length", "T"], ["--memory", "--length", "T=0"]])
def test_options_of_memory_are_told(lpc: Command, planned: Path, options: list[str]) -> None:
    refused = lpc("inspect", planned, *options)
    assert refused.code == 2
    assert "LPC0705" in refused.err


def test_run_measures_memory(lpc: Command, planned: Path) -> None:
    ran = lpc("run", planned, "--out", "here", "--device", "cpu", "--memory")
    assert re.search(r"peak memory of a step: measured (.*), predicted \1 \(\+0.0 %\)", ran.out)


def test_failed_build_leaves_the_plan_that_was_there(lpc: Command, spec: Path, planned: Path) -> None:
    before = {path: path.read_bytes() for path in planned.rglob("*") if path.is_file()}
    spec.write_text(SPEC.replace("out: linear(10)", "out: conv(10, 3)"))
    refused = lpc("build", spec, "-o", planned)
    assert refused.code == 2
    assert str(spec) in refused.err
    assert before == {path: path.read_bytes() for path in planned.rglob("*") if path.is_file()}


def test_run_builds_a_spec_first(lpc: Command, spec: Path, tmp_path: Path) -> None:
    ran = lpc("run", spec, "--epochs", "1", "--set", "run.seed=3", "--device", "cpu")
    assert ran.code == 0, ran.err
    assert (tmp_path / "runs" / "starter" / "summary.json").exists()


def test_damaged_plan_is_told_with_its_file(lpc: Command, planned: Path) -> None:
    victim = max(planned.rglob("*.json"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    for command in ("inspect", "verify", "run"):
        refused = lpc(command, planned)
        assert refused.code == 2
        assert victim.name in refused.err
        assert "Traceback" not in refused.err
