"""Does each transport keep its promises: order, layouts, room, and words for silence and loss?"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

import lpc
from lpc.runtime.workers.supervisor import LOST, Supervisor
from lpc.runtime.workers.threads import Hub
from lpc.runtime.workers.transport import Alone, Stamp, absent
from lpc.specs.ranks.plan import rank_plans

SCRIPT = Path(__file__).with_name("acts.py")
_spec = spec_from_file_location("acts", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
acts = module_from_spec(_spec)
_spec.loader.exec_module(acts)


def in_threads(act: Callable[[Any], Any], patience: float = 20.0) -> tuple[Any, ...]:
    hub = Hub(2, acts.EDGES, patience=20)
    found: dict[int, Any] = {}

    def run(rank: int) -> None:
        transport = hub.transport(rank)
        transport.patience = patience
        found[rank] = act(transport)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found[0], found[1]


@pytest.mark.parametrize("act", acts.ACTS, ids=lambda act: act.__name__)
def test_threads(act: Callable[[Any], Any]) -> None:
    assert in_threads(act) == acts.ACTS[act]


def test_threads_tell_of_silence() -> None:
    assert in_threads(acts.tells_of_silence, 0.3) == ("", "0681")
    assert in_threads(acts.tells_what_is_out_of_step) == ("", "0683")


def test_threads_tell_of_loss() -> None:
    hub = Hub(2, acts.EDGES, patience=20)
    hub.abort()
    with pytest.raises(lpc.LpcError, match=r"LPC0682.*rank 1 is gone; rank 0 waited for it with `h` of step 2"):
        hub.transport(0).exchange(None, Stamp(2, 0, "h"))


def test_threads_tell_who_has_not_come() -> None:
    """Two of four are there."""
    hub = Hub(4, [], patience=0.3)
    found: list[str] = []

    def meet(rank: int) -> None:
        with pytest.raises(lpc.LpcError) as caught:
            hub.transport(rank).exchange(None, Stamp(7, 0, "checkpoint"))
        found.append(str(caught.value))

    threads = [threading.Thread(target=meet, args=(rank,)) for rank in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["nothing came from ranks 1, 3 for 0.3 s, at `checkpoint` of step 7" in one for one in found] == [True] * 2


def test_a_common_act_names_whom_it_can() -> None:
    """Those that have not come; where all have and one left since, that it is one of them."""
    stamp = Stamp(4, 0, "g = reduce g1 over 0, 1, 2")
    told = str(absent(1, 3, [2], stamp, 5, "Connection closed by peer"))
    assert "error[LPC0682]: rank 2 is gone; rank 1 waited for it with `g = reduce g1 over 0, 1, 2` of step 4" in told
    assert "one of ranks 0, 2 is gone" in str(absent(1, 3, [], stamp, 5, "Connection closed by peer"))
    told = str(absent(1, 3, [1], stamp, 5, "Timed out"))
    assert "error[LPC0681]: nothing came from one of ranks 0, 2 for 5 s" in told


def test_gloo(tmp_path: Path) -> None:
    """The ranks are processes; in the end rank 0 leaves without a word."""
    supervisor = Supervisor([str(SCRIPT), str(tmp_path)], 2, tmp_path, 0, out=StringIO())
    assert supervisor.run().code == 0
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for act, wanted in acts.ACTS.items():
        assert tuple(own[act.__name__] for own in found) == wanted, act.__name__
    assert [own["tells_of_silence"] for own in found] == ["", "0681"]
    assert (found[1]["tells_of_loss"], found[1]["tells_who_left_all"]) == ("0682", "0682")


def test_gloo_tells_of_a_stopped_rank(tmp_path: Path) -> None:
    """Its sockets are open and nothing comes: over an edge as in a common act that rank is named, and it is ended."""
    out = StringIO()
    assert Supervisor([str(SCRIPT), str(tmp_path), "stopped"], 3, tmp_path, 0, out=out).run().code == LOST
    told = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert [one.count("nothing came from rank 2 for 2 s, at `checkpoint` of step 3") for one in told] == [1, 1]
    assert "nothing came from rank 2 over edge 2->1 for 2 s, at `h` of step 3" in told[1]


def test_the_plan_of_a_rank_does_not_run_alone() -> None:
    text = (
        "network: {inputs: {image: [4]}, layers: [fc1: linear(4), relu, out: linear(3)]}\n"
        "data: none\nfields: {label: {shape: [], dtype: int64}}\nloss: cross_entropy\n"
        "decompose: {blocks: {b1: fc1, head: out}, links: stop}\n"
        'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}]\n'
    )
    plan = lpc.build(text)
    for own, words in zip(rank_plans(plan.data, plan.spec, 2), ("to send", "to receive"), strict=True):
        trainer = lpc.Trainer(lpc.Plan(own), "cpu")
        with pytest.raises(lpc.LpcError, match=f"LPC0680.*the plan wants {words}"):
            trainer.step({"image": torch.randn(2, 4), "label": torch.tensor([0, 1])})
    with pytest.raises(lpc.LpcError, match="LPC0680"):
        Alone().receive(1, Stamp(0, 0, "h"))
