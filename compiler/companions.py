"""What does a step that solves for variables not go with? Keys of the run that would change what a step is."""

from __future__ import annotations

from collections.abc import Iterator

from lpc.specs.model import Path, Spec


def misplaced(spec: Spec) -> Iterator[tuple[str, Path]]:
    """Yield what the spec says beside its variables that they do not go with, and where."""
    run = spec.run
    for key, path, wrong in (
        *((key, ("run", key), True) for key in run.splits),
        ("phases", ("run", "phases"), bool(run.phases)),
        ("memory: summed", ("run", "memory"), run.memory == "summed"),
        ("precision: bf16", ("run", "precision"), run.precision != "none"),
        ("readouts", ("readouts",), bool(spec.readouts)),
        ("shared: owner", ("decompose", "shared"), spec.decompose.shared == "owner"),
    ):
        if wrong:
            yield key, path
