"""Do the keys that speak of a link's local problem meet such a link?"""

from __future__ import annotations

from lpc.specs.model import Path, Rule, Spec
from lpc.specs.problems import Problems
from lpc.specs.signatures import TARGET_LOSSES
from lpc.specs.signatures.targets import INVERSE
from lpc.specs.term import Term

# Which links a solver is for; a gradient step solves any problem.
SOLVED_BY: dict[str, str] = {
    "exact": "target",
    "closed_form": "target",
    "fixed_point": "target",
    "cg": "target",
    "memory": "variable",
    "least_squares": "variable",
}


_OF_TARGETS = frozenset({*TARGET_LOSSES, INVERSE})

# Solvers that need no optimizer; `closed_form` reads its rate.
AT_ONCE = frozenset({"exact", "cg"})


def without_optimizers(spec: Spec) -> bool:
    """Tell whether blocks may do without one: a solver or a link finds weights at once."""
    solved = any(rule.solver is not None and rule.solver.name in AT_ONCE for rule in spec.learn)
    return solved or any(link.name == "split" for link in spec.decompose.links.values())


def solvers(spec: Spec, problems: Problems) -> None:
    """0147: a solver, the reduction of a local problem and its loss need the link that makes the problem."""
    links = {link.name for link in spec.decompose.links.values()}
    for i, rule in enumerate(spec.learn):
        for key, word, link in _spoken(rule):
            if link not in links:
                path: Path = ("learn", i, key)
                message = f"`{key}: {word}` is for the problem of a link `{link}`, and there is none"
                problems.add("0147", message, spec.origin(*path), path)
    for path, loss in _elsewhere(spec):
        message = f"`{loss}` compares with the target of a block, and stands where there is none"
        problems.add("0147", message, spec.origin(*path), path, help="write it in `learn`")


def _elsewhere(spec: Spec) -> list[tuple[Path, Term]]:
    """Return the losses of targets that are no block's own."""
    placed: list[tuple[Path, Term]] = [(("loss", i), loss) for i, loss in enumerate(spec.loss)]
    placed += [(("readouts", name, "loss"), readout.loss) for name, readout in spec.readouts.items()]
    return [(path, loss) for path, loss in placed if loss.name in _OF_TARGETS]


def _spoken(rule: Rule) -> list[tuple[str, str, str]]:
    """Return the keys of an entry that need a link, what they say, and the link."""
    found = [("reduction", str(rule.reduction), "target")] if rule.reduction is not None else []
    found += [("loss", str(loss), "target") for loss in rule.loss or () if loss.name in _OF_TARGETS]
    if rule.solver is not None and rule.solver.name in SOLVED_BY:
        found.append(("solver", str(rule.solver), SOLVED_BY[rule.solver.name]))
    return found
