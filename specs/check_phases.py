"""Does each phase of a run say how long it is, and name what exists?"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from lpc.specs.check_learning import block_names
from lpc.specs.model import Path, Phase, Spec
from lpc.specs.problems import Problems

READOUTS = "readouts"  # the word that stands for all of them


def trained(phase: Phase, blocks: Sequence[str], readouts: Sequence[str]) -> tuple[str, ...]:
    """Return what a phase names, in the order of the blocks and then of the readouts."""
    patterns = phase.train
    named = [name for name in (*blocks, *readouts) if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return tuple(dict.fromkeys((*named, *(readouts if READOUTS in patterns else ()))))


def lengths(spec: Spec, problems: Problems) -> None:
    """0146: a phase has one of `epochs` and `steps`."""
    for i, phase in enumerate(spec.run.phases):
        path: Path = ("run", "phases", i)
        if (phase.epochs is None) == (phase.steps is None):
            found = "both `epochs` and `steps`" if phase.steps is not None else "neither `epochs` nor `steps`"
            problems.add("0146", f"phase {i + 1} has {found}", spec.origin(*path), path)


def names(spec: Spec, problems: Problems) -> None:
    """0132: each pattern of a phase matches a block or a readout. 0146: a phase names something."""
    blocks, readouts = block_names(spec), tuple(spec.readouts)
    for i, phase in enumerate(spec.run.phases):
        path: Path = ("run", "phases", i, "train")
        if not phase.train:
            problems.add("0146", f"phase {i + 1} trains nothing", spec.origin(*path), path, help="name blocks")
        for j, pattern in enumerate(phase.train):
            if blocks is None or trained(Phase(train=(pattern,)), blocks, readouts):
                continue
            known, place = (*blocks, *readouts), (*path, j)
            message, otherwise = f"`{pattern}` matches no block and no readout", f"there are {', '.join(known)}"
            problems.misspelt("0132", message, spec.origin(*place), place, pattern, known, otherwise)


def stopping(spec: Spec, problems: Problems) -> None:
    """0146: what stops a run early would leave its later phases out."""
    path: Path = ("run", "early_stop")
    if spec.run.phases and spec.run.early_stop is not None:
        message = "`early_stop` would end the run, and leave out the phases that follow"
        problems.add("0146", message, spec.key_origin(*path), path, help="remove `early_stop`")
