"""How does a run survive being killed? By a file with all that the next step depends on, replaced at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lpc.runtime.cache import variable_of
from lpc.runtime.machine import Machine
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.files import write_atomically

LAST, BEST = "last.safetensors", "best.safetensors"
FORMAT = 1


@dataclass
class Progress:
    """How far a run is: steps done, seconds spent, the best validation and how long ago it was."""

    step: int = 0
    seconds: float = 0.0
    stopped: bool = False
    best: float | None = None
    best_step: int = 0
    best_values: dict[str, float] = field(default_factory=dict)
    waited: int = 0  # validations since the best one
    weights: dict[str, float] = field(default_factory=dict)  # of the metrics since the last log point


def write(path: Path, plan: str, machine: Machine, progress: Progress, totals: Mapping[str, Tensor]) -> None:
    """Write a checkpoint: state, optimizer state and open metrics as tensors, the rest as JSON metadata."""
    tensors, numbers = entries(machine)
    tensors |= {f"meter.{metric}": total for metric, total in totals.items()}
    header = {"format": FORMAT, "plan": plan, "progress": asdict(progress), "numbers": numbers}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, metadata={"lpc": json.dumps(header)}))


def entries(machine: Machine) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all that a machine's next step depends on: tensors, and the numbers in its optimizers' state.

    Names are `state.NAME`, `correction.[block, entry]`, `optimizer.[block, parameter, entry]`; numbers have the list. A
    variable's optimizer stands under the block that solves it, and the variable in place of a parameter.
    """
    tensors = {f"state.{name}": tensor for name, tensor in machine.state.own.items()}
    for block, correction in machine.corrections.items():
        tensors |= {f"correction.{json.dumps([block, entry])}": value for entry, value in correction.state()}
    tensors |= {f"sample.{entry}": value for entry, value in machine.cache.state()}
    numbers: dict[str, Any] = {}
    for path, value in _remembered(machine):
        key = json.dumps(path)
        if isinstance(value, Tensor):
            tensors[f"optimizer.{key}"] = value
        else:
            numbers[key] = value
    return tensors, numbers


def _remembered(machine: Machine) -> Iterator[tuple[list[str], Any]]:
    """Yield ([block, parameter or variable, entry], value) of all optimizers."""
    for block, optimizer in machine.optimizers.items():
        yield from (([block, parameter, entry], value) for parameter, entry, value in optimizer.state())
    for name, solver in machine.variables.items():
        yield from (([solver.plan.reader, name, entry], value) for entry, value in solver.state())


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read; tensors are on the CPU."""

    path: Path
    plan: str
    progress: Progress
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]

    def ensure_of(self, plan: str) -> None:
        """Refuse (0671) a checkpoint of another plan."""
        if plan != self.plan:
            message = "the checkpoint was written by another plan"
            raise LpcError(Diagnostic("0671", message, place=str(self.path)))

    def restore(self, machine: Machine, plan: str) -> None:
        """Put the state and the optimizers' state back, of the blocks that the machine holds.

        Errors: 0671 a checkpoint of another plan.
        """
        self.ensure_of(plan)
        own = machine.state.owner
        machine.state.load_state_dict({name: t for name, t in self.part("state.").items() if name in own})
        entries: dict[str, dict[str, dict[str, Any]]] = {block: {} for block in machine.optimizers}
        solved: dict[str, dict[str, Any]] = {name: {} for name in machine.variables}
        for key, value in {**self.numbers, **self.part("optimizer.")}.items():
            block, parameter, entry = json.loads(key)
            if parameter in solved:
                solved[parameter][entry] = value
            elif block in entries:
                held = machine.state.part(parameter, value) if isinstance(value, Tensor) else value
                entries[block].setdefault(parameter, {})[entry] = held
        for name, solver in machine.variables.items():
            solver.load_state(solved[name])
        for block, optimizer in machine.optimizers.items():
            optimizer.load_state(entries[block])
        offsets: dict[str, dict[str, Tensor]] = {block: {} for block in machine.corrections}
        for key, value in self.part("correction.").items():
            block, entry = json.loads(key)
            if block in offsets:
                offsets[block][entry] = value
        for block, correction in machine.corrections.items():
            correction.load_state(offsets[block], machine.device)
        solved_here = {"", *machine.program.variables}
        rows = {entry: kept for entry, kept in self.part("sample.").items() if variable_of(entry) in solved_here}
        machine.cache.load_state(rows)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under a prefix, by the rest of their name."""
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}


def read(path: Path) -> Checkpoint:
    """Read a checkpoint. Errors: 0670 missing, damaged, or no checkpoint of this version."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["lpc"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] == FORMAT:
            progress = Progress(**header["progress"])
            return Checkpoint(path, header["plan"], progress, tensors, header["numbers"])
        problem = f"it has format {header['format']}, expected {FORMAT}"
    except FileNotFoundError:
        problem = "there is no such file"
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        problem = f"it is damaged, or no checkpoint ({type(error).__name__}: {error})"
    raise LpcError(Diagnostic("0670", f"the checkpoint cannot be read: {problem}", place=str(path)))


