"""Do all ranks of a plan run in one process, and does no rank wait for one that has failed?"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lpc
from lpc.cli import main
from lpc.runtime.workers import crew as crews
from lpc.runtime.workers import threads
from lpc.runtime.workers.crew import Crew
from lpc.runtime.workers.threads import Hub
from lpc.runtime.workers.transport import PATIENCE, Stamp
from lpc.runtime.workers.worker import Worker
from lpc.specs.diagnostics import LpcError

SPEC = """
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu, fc2: linear(16), relu, out: linear(10)]}
data: {source: digits, batch: 256}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: gradient}
learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]
run: {epochs: 2, microbatches: 2, seed: 3}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crew") / "x.plan"
    lpc.build(SPEC).save(path)
    return path


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = (*folder.glob("last.safetensors"), *folder.glob("last.blocks/*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def test_threads_have_the_bits_of_one_process(plan: Path, tmp_path: Path) -> None:
    """So has a run that a process began and threads end; the number of torch's threads is as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    lpc.Trainer(lpc.load(plan), "cpu").fit(tmp_path / "one")
    torch.set_num_threads(before)
    assert command("run", plan, "--workers", 3, "--threads", "--device", "cpu", "--out", tmp_path / "three") == 0
    found, wanted = weights(tmp_path / "three"), weights(tmp_path / "one")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert torch.get_num_threads() == before
    assert (tmp_path / "three" / "run.plan").exists()
    out = ("--device", "cpu", "--out", tmp_path / "three", "--resume")
    assert command("run", tmp_path / "three" / "run.plan", "--workers", 2, "--threads", *out) == 0
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights(tmp_path / "three").items())


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_nobody_waits_for_a_rank_that_fails(plan: Path, failing: int) -> None:
    """In the middle of a step: others take from it, or have given it all that an edge holds."""

    def act(worker: Worker) -> None:
        batch = {"image": torch.zeros(8, 1, 8, 8), "label": torch.zeros(8, dtype=torch.int64)}
        for step in range(20):
            if worker.transport.rank == failing and step == 3:
                raise ZeroDivisionError("a defect")
            worker.step(batch)

    crew = Crew[None](lpc.load(plan).data, 3, "cpu")
    with pytest.raises(ZeroDivisionError, match="a defect"):
        crew.run(act)
    assert not [one for one in threading.enumerate() if one.name.startswith("rank ")]


def test_a_full_edge_is_left() -> None:
    """Who gives to a rank that has failed is told so, and does not wait until its patience ends."""
    hub, told = Hub(2, [(0, 1)], room=1), list[str]()

    def give() -> None:
        try:
            for step in range(4):
                hub.transport(0).send(1, Stamp(step, 0, "h"), [])
        except LpcError as error:
            told.extend(problem.code for problem in error.diagnostics)

    giving = threading.Thread(target=give)
    giving.start()
    hub.abort()
    giving.join(PATIENCE / 10)
    assert told == ["0682"]


class Streams:
    """Stands for torch.cuda: notes what is asked of it, by thread."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def say(self, what: str) -> None:
        self.said.append((threading.current_thread().name, what))

    def Stream(self, device: torch.device) -> str:  # noqa: N802
        return f"stream of {threading.current_thread().name}"

    def stream(self, stream: str) -> Any:
        self.say(f"enter {stream}")
        return crews.nullcontext()

    def current_stream(self, device: torch.device) -> Any:
        name, own = threading.current_thread().name, self

        class Current:
            def wait_event(self, event: Any) -> None:
                own.say(f"wait for {event.of}")

        found = Current()
        found.name = name  # type: ignore[attr-defined]
        return found

    def Event(self) -> Any:  # noqa: N802
        class Event:
            of = ""

            def record(self, stream: Any) -> None:
                self.of = stream.name

        return Event()


class Memory:
    """Stands for a tensor on a GPU."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams

    def record_stream(self, stream: Any) -> None:
        self.streams.say(f"used by {stream.name}")


def test_who_takes_waits_in_its_stream_for_that_of_the_giver(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams()
    monkeypatch.setattr(threads, "_cuda", streams)
    hub = Hub(2, [(0, 1)], device=torch.device("cuda"))
    given: Any = [Memory(streams), Memory(streams)]
    giving = threading.Thread(target=lambda: hub.transport(0).send(1, Stamp(0, 0, "h"), given), name="giver")
    giving.start()
    giving.join()
    taking = threading.Thread(target=lambda: hub.transport(1).receive(0, Stamp(0, 0, "h")), name="taker")
    taking.start()
    taking.join()
    assert streams.said == [("taker", "wait for giver"), *2 * [("taker", "used by taker")]]


def test_each_rank_has_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch, plan: Path) -> None:
    streams, built = Streams(), lpc.load(plan).data
    monkeypatch.setattr(crews, "_cuda", streams)
    crew = Crew[int](built, 3, "cpu")
    crew.device = torch.device("cuda")
    monkeypatch.setattr(crews, "Worker", lambda plan, plans, transport, device, recorded: transport)
    assert crew.run(lambda transport: transport.rank) == [0, 1, 2]  # type: ignore[attr-defined]
    own = dict(streams.said)
    assert own == {who: f"enter stream of {who}" for who in (threading.current_thread().name, "rank 1", "rank 2")}


def test_threads_are_of_one_process(
    plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("run", plan, "--workers", 2, "--threads", "--keep", 3) == 2
    assert "no thread is started again" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command("run", plan, "--threads") == 2
    assert "LPC0684" in capsys.readouterr().err
