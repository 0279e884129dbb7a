"""Do readouts read blocks that exist, and does the run predict with one of them?"""

from __future__ import annotations

from lpc.specs.check_learning import block_names
from lpc.specs.model import Path, Spec
from lpc.specs.problems import Problems


def sources(spec: Spec, problems: Problems) -> None:
    """0132 and 0145: a readout reads blocks that exist, and bears no block's name."""
    names = block_names(spec)
    for name, readout in spec.readouts.items():
        if names is None:
            continue
        if name in names:
            message = f"the readout `{name}` has the name of a block"
            problems.add("0145", message, spec.key_origin("readouts", name), ("readouts", name), help="rename it")
        for i, block in enumerate(readout.from_):
            if block not in names:
                path: Path = ("readouts", name, "from", i)
                message, otherwise = f"`{block}` is no block", f"the blocks are {', '.join(names)}"
                problems.misspelt("0132", message, spec.origin(*path), path, block, names, otherwise)


def predictor(spec: Spec, problems: Problems) -> None:
    """0145: what the run predicts with exists."""
    term, path = spec.run.predict, ("run", "predict")
    given = term.args[0] if term.args else term.kwargs.get("name")
    if term.name == "readout" and isinstance(given, str) and given not in spec.readouts:
        message, known = f"there is no readout `{given}`", tuple(spec.readouts)
        otherwise = f"`readouts` has {', '.join(known) or 'no entry'}"
        problems.misspelt("0145", message, spec.origin(*path), path, str(given), known, otherwise)
