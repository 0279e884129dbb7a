"""Do the benchmarks run, and compare like with like? At tiny sizes, and without a look at any clock."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import lpc

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a benchmark as Python does when it is run: its folder is on the path."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


TINY: dict[str, Callable[[Any], Any]] = {
    "mlp": lambda nets: nets.mlp(8, 4),
    "lenet5": lambda nets: nets.lenet5(2),
    "vit": lambda nets: nets.vit(8, 2, 3, 2),
}


def test_a_step_of_codes_is_the_loop_by_hand(script: Callable[[str], Any]) -> None:
    alternating = script("alternating")
    for index in (0, 3):
        plan, loop, ratio = alternating.timed(alternating.CASES[index], 1)  # compares the weights first
        assert plan > 0 < loop
        assert ratio > 0


@pytest.mark.parametrize(("name", "method"), [*((name, "local") for name in TINY), ("mlp", "backprop")])
def test_the_plan_and_the_loop_compute_the_same(script: Callable[[str], Any], name: str, method: str) -> None:
    step = script("step")
    assert name in step.NETS
    plan, eager = step.rivals(TINY[name](script("nets")), method)
    assert step.difference(plan, eager) < 1e-5
    found = step.compare(plan, eager, pairs=2, inner=1)
    assert found.wall > 0
    assert found.loop > 0


def test_peaks_of_memory(script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    memory = script("memory")
    for size, value in {"CHANNELS": 4, "SIDE": 16, "BATCH": 2}.items():
        monkeypatch.setattr(memory, size, value)
    batch = {"image": torch.randn(2, 4, 16, 16), "label": torch.tensor([0, 1])}
    found = memory.measure(2, batch)
    assert found["plan, local, immediate"] <= memory.LIMIT * memory.eager_block(batch)
    assert found["plan, backprop"] > found["plan, local, immediate"]
    assert memory.saved_by_block(batch) < memory.eager_block(batch)


def test_every_algorithm_of_the_localmixer_is_a_spec(
    script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is right or has words that this version does not know; a mistake is neither."""
    localmixer = script("localmixer")
    monkeypatch.setenv("LPC_DATA", "/nowhere")
    known = {
        (net, name): localmixer.available(localmixer.spec(net, algorithm, 1, 0))
        for net in localmixer.NETS
        for name, algorithm in localmixer.ALGORITHMS.items()
    }
    assert len(known) == 33
    assert all(known[net, name] for net in localmixer.NETS for name in ("BP", "L-BP", "LG-BP"))
    with pytest.raises(lpc.LpcError):
        localmixer.available({**localmixer.spec("S/1/1", localmixer.ALGORITHMS["BP"], 1, 0), "run": {"epochs": -1}})


def test_the_localmixer_learns_by_an_algorithm(
    script: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    localmixer = script("localmixer")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setitem(localmixer.NETS, "S/1/1", {**localmixer.NETS["S/1/1"], "image": [1, 8, 8]})
    monkeypatch.setattr(localmixer, "MNIST", {"source": "digits", "batch": 20})
    rows = ["--rows", str(tmp_path / "rows.jsonl")]
    command = ["--net", "S/1/1", "--only", "LG-BP", "--epochs", "2", "--samples", "200", *rows]
    assert localmixer.main(command) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(localmixer, "row", None)  # a row that is kept is not run again
    assert localmixer.main(command) == 0
    assert capsys.readouterr().out == first
    cells = first.splitlines()[-1].split(" | ")
    test, train = map(float, cells[1].split("/"))
    assert 0 < train < test < 40  # percent; chance is 90
    assert cells[2:4] == ["2.43/0.00", "2"]


def test_schedules_are_compared(
    script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schedules = script("schedules")
    stack = {"repeat(2)": ["conv(8, 3, padding=1)", "batch_norm", "relu"]}
    layers = [{"stack": stack}, "global_avg_pool", {"out": "linear(10)"}]
    network = {"inputs": {"image": [3, 16, 16]}, "layers": layers}
    blocks = {"*": ['each("stack.*")'], "out": ["out"]}
    monkeypatch.setitem(schedules.NETS, "small", schedules.Net(network, blocks, "stack.*", schedules.SGD, 4))
    assert schedules.table("small", 3)
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines() if row.startswith("| ")][1:]
    peaks = {row[0].removeprefix("| "): float(row[1]) for row in rows}
    assert list(peaks)[2:] == list(schedules.SCHEDULES)
    assert {row[5] for row in rows[2:]} == {"+0.00 %"}
    assert peaks["plan, local, immediate"] < peaks["eager backprop"]


def test_partition_is_timed(script: Callable[[str], Any]) -> None:
    partition = script("partition")
    found = partition.measure(200, doublings=1, repeats=1)
    assert list(found) == [100, 200]
    assert all(set(times) == set(partition.WAYS) for times in found.values())


@pytest.mark.parametrize("spelling", ["yaml", "lpc"])
def test_an_editor_is_answered(
    script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spelling: str
) -> None:
    lsp = script("lsp")
    assert 290 < lsp.sample(spelling, tmp_path).count("\n") < 310
    monkeypatch.setitem(lsp.BLOCKS, spelling, 4)
    path = tmp_path / f"long.{spelling}"
    times = asyncio.run(lsp.measure(path, lsp.sample(spelling, tmp_path), 1))
    assert set(times) == {"diagnostics", "completion", "hover"}
    assert all(len(taken) == 1 for taken in times.values())


@pytest.mark.parametrize("variant", ["s", "m"])
def test_locoprop_s_plan_and_plain_loop_are_one_method(script: Callable[[str], Any], variant: str) -> None:
    """Three steps of the autoencoder at a hundredth of its size; in float32, from random numbers."""
    step = script("locoprop_step")
    step.WIDTHS = (784, 20, 10, 5, 2, 5, 10, 20, 784)
    small = f"{{zoo: autoencoder, args: {{widths: {list(step.WIDTHS)}}}}}"
    text = step.spec(variant, 6).replace("{zoo: autoencoder}", small)
    trainer = lpc.Trainer(lpc.build(text), device="cpu")
    plain = step.Plain(variant == "m", trainer.state_dict())
    x = torch.rand(6, 784, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        trainer.step({"image": x.reshape(-1, 1, 28, 28)})
        plain.step(x)
    assert step.difference(plain, trainer.state_dict()) < 1e-5


def test_the_autoencoder_by_several_optimizers(
    script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two epochs at a fiftieth of its size; what a file knows is not run again; and the curves are drawn."""
    locoprop = script("locoprop")
    monkeypatch.setitem(locoprop.SOURCES, "curves", "source: curves(train=40, test=10)")
    monkeypatch.setitem(locoprop.BASELINES, "Adam", ("adam(OPTIONS)", ("lr=1e-3",)))
    own = {"data": "curves", "epochs": 2, "screen": 2, "of": 4, "warmup": 1, "size": 0.02, "batch": 20}
    given, methods = Namespace(**own), ("LocoProp-M", "Adam")
    for _ in range(2):
        runs = locoprop.Runs(tmp_path / "rows.jsonl")
        for method in methods:
            locoprop.screen(method, runs, given)
            locoprop.train(method, runs, given)
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert len(rows) == 2 + 1 + 2
    assert len(list(locoprop.table("curves", runs))) == 2
    locoprop.draw("curves", runs, tmp_path, (100.0, 1000.0))
    for unit in ("epoch", "processor"):
        lines = ElementTree.parse(tmp_path / f"locoprop_curves_{unit}.svg").findall(".//{*}polyline")
        assert len(lines) == 2


def test_variables_learn_row_by_row(
    script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every row is a spec; one that is there is not run again, and tables hold what is there."""
    variables = script("variables")
    monkeypatch.setenv("LPC_DATA", "/nowhere")
    assert len({row.name for row in variables.rows()}) == len(variables.rows())
    for row in variables.rows():
        lpc.check(row.spec())
    small = "[flatten, b1: linear(8), relu, b2: linear(10)]"
    own = variables.Row("digits", "BlockProp", "recipe: blockprop", data="source: digits", marks=(3, 5), layers=small)
    monkeypatch.setattr(variables, "rows", lambda: [dataclasses.replace(own, inputs="{image: [1, 8, 8]}")])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    command = ["--rows", str(tmp_path / "rows.jsonl")]
    assert variables.main(command) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(variables, "run", None)
    assert variables.main(command) == 0
    assert capsys.readouterr().out == first
    assert first.splitlines()[0] == "| digits | 3 | 5 | step ms | MFLOP | sent kB |"


def test_estimates_are_what_a_step_takes(script: Callable[[str], Any]) -> None:
    """Of one small net here; the others, and the large ones, are specs that could be built."""
    estimates = script("estimates")
    small = estimates.network(["flatten", {"fc": "linear(6)"}, "tanh", {"out": "linear(3)"}], [1, 4, 4])
    spec, _ = estimates.PLANS["mlp, backprop"]
    row = estimates.compare("small", {**spec, **small}, 4)
    assert row.estimated == row.measured > 0
    assert row.error == 0.0
    assert estimates.Row("", 106, 100).error > estimates.LIMIT
    large = [estimates.large(32, links) for links in ("gradient", "stop")]
    for given in (*(spec for spec, _ in estimates.PLANS.values()), *large):
        assert lpc.check(given).network
