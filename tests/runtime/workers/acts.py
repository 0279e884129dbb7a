"""What must any transport do? Acts of two ranks, and what each has to return; run in threads and as processes."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lpc.runtime.workers.gloo import Gloo
from lpc.runtime.workers.join import meet
from lpc.runtime.workers.supervisor import LOST
from lpc.runtime.workers.transport import ROOM, Stamp, Transport
from lpc.specs.diagnostics import LpcError

EDGES = [(0, 1), (1, 0)]
PATIENCE = 20.0


def tensors() -> list[torch.Tensor]:
    """Layouts that kernels leave: transposed, with gaps, repeated, channels last, a number, nothing."""
    base = torch.arange(24.0).reshape(4, 6)
    image = torch.arange(96.0).reshape(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    return [
        base, base.t(), base[:, ::2], base[:, :1].expand(4, 5), image, torch.tensor(7), torch.empty(0, 3),
        torch.arange(5) > 2, base.to(torch.bfloat16), base[1:3].t(), torch.ones(1, 5).t(),
    ]  # fmt: skip


def keeps_order(transport: Transport) -> list[float]:
    if transport.rank == 0:
        for step in range(3 * ROOM):
            transport.send(1, Stamp(step, 0, "h"), [torch.tensor(float(step))])
        return []
    return [transport.receive(0, Stamp(step, 0, "h"))[0].item() for step in range(3 * ROOM)]


def keeps_layouts(transport: Transport) -> list[bool]:
    wanted = tensors()
    if transport.rank == 0:
        transport.send(1, Stamp(0, 0, "h"), wanted)
        return []
    found = transport.receive(0, Stamp(0, 0, "h"))
    alike = [torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(wanted, found, strict=True)]
    same = [not _is_dense(a) or a.stride() == b.stride() for a, b in zip(wanted, found, strict=True)]
    return [*alike, *same]


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def changes_its_sizes(transport: Transport) -> bool:
    """What comes is now what came the last time, and now it is not: other sizes, more tensors, none."""
    draw, alike = random.Random(0), True
    for step in range(120):
        name, width = draw.choice("gh"), draw.choice((1, 1, 1, 7))
        sent = [torch.full((width, step % 3), float(step)) for _ in range(draw.choice((1, 1, 0, 30)))]
        if transport.rank == 0:
            transport.send(1, Stamp(step, 0, name), sent)
            continue
        found = transport.receive(0, Stamp(step, 0, name))
        alike &= len(found) == len(sent) and all(map(torch.equal, found, sent))
    return alike


def goes_both_ways(transport: Transport) -> float:
    other = 1 - transport.rank
    transport.send(other, Stamp(0, 0, "h"), [torch.tensor(float(transport.rank))])
    return transport.receive(other, Stamp(0, 0, "h"))[0].item()


def sends_without_waiting(transport: Transport) -> str:
    """The sender gets to the exchange before anything is received."""
    for part in range(ROOM if transport.rank == 0 else 0):
        transport.send(1, Stamp(0, part, "h"), [torch.ones(50_000)])
    met = transport.exchange("met")[0]
    for part in range(ROOM if transport.rank == 1 else 0):
        transport.receive(0, Stamp(0, part, "h"))
    return str(met)


def exchanges(transport: Transport) -> list[Any]:
    return transport.exchange({"rank": transport.rank})


def tells_what_is_out_of_step(transport: Transport) -> str:
    if transport.rank == 0:
        transport.send(1, Stamp(3, 0, "h"), [torch.ones(1)])
        return ""
    return _code(lambda: transport.receive(0, Stamp(4, 0, "h")))


def tells_of_silence(transport: Transport) -> str:
    """Rank 0 sends nothing; the message names edge, value and step."""
    found = ""
    if transport.rank == 1:
        found = _code(lambda: transport.receive(0, Stamp(5, 0, "h")), "0->1", "`h`", "step 5")
    transport.exchange(None)
    return found


def _code(act: Callable[[], Any], *words: str) -> str:
    try:
        act()
    except LpcError as error:
        missing = [word for word in words if word not in str(error)]
        return error.diagnostics[0].code + "".join(f" without {word}" for word in missing)
    return "nothing"


# act -> what rank 0 and rank 1 return
ACTS: dict[Callable[[Transport], Any], tuple[Any, Any]] = {
    keeps_order: ([], [float(step) for step in range(3 * ROOM)]),
    keeps_layouts: ([], [True] * 22),
    changes_its_sizes: (True, True),
    goes_both_ways: (1.0, 0.0),
    sends_without_waiting: ("met", "met"),
    exchanges: ([{"rank": 0}, {"rank": 1}], [{"rank": 0}, {"rank": 1}]),
    tells_what_is_out_of_step: ("", "0683"),
}


def main(folder: Path) -> None:
    """Do all acts over gloo, and write what came of them."""
    rank = int(os.environ["RANK"])
    transport = Gloo(EDGES, torch.device("cpu"), meet(rank, 2, PATIENCE), PATIENCE)
    found = {act.__name__: act(transport) for act in ACTS}
    transport.patience = 0.3 if rank else PATIENCE
    found["tells_of_silence"] = tells_of_silence(transport)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    if rank == 1:
        found["tells_of_loss"] = _code(lambda: _until_lost(transport), "rank 0 is gone", "step 9")
        stamp = Stamp(9, 0, "metrics")
        found["tells_who_left_all"] = _code(lambda: transport.exchange(None, stamp), "rank 0 is gone", str(stamp))
        (folder / f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)


def _told(act: Callable[[], Any]) -> str:
    try:
        act()
    except LpcError as error:
        return str(error)
    return "nothing"


def _until_lost(transport: Gloo) -> None:
    transport.patience = PATIENCE
    transport.receive(0, Stamp(9, 0, "h"))


def stopped(folder: Path) -> None:
    """Rank 2 of three stops before a common act: it is there, and silent. The others write what they are told."""
    rank, patience = int(os.environ["RANK"]), 2.0
    transport = Gloo([(2, 1)], torch.device("cpu"), meet(rank, 3, patience), patience)
    if rank == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    acts = [lambda: transport.exchange(None, Stamp(3, 0, "checkpoint"))]
    told = [_told(act) for act in [*acts, lambda: transport.receive(2, Stamp(3, 0, "h"))][: rank + 1]]
    (folder / f"{rank}.txt").write_text("\n".join(told))
    while not (folder / "1.txt").exists():  # the launcher ends all soon after the first one
        time.sleep(0.05)
    sys.stdout.flush()
    os._exit(LOST)


if __name__ == "__main__":
    (stopped if len(sys.argv) > 2 else main)(Path(sys.argv[1]))
