"""Do the keys that speak of a link's local problem meet such a link?"""

from __future__ import annotations

from lpc.specs.model import Path, Rule, Spec
from lpc.specs.problems import Problems

# Which links a solver is for; a gradient step solves any problem.
SOLVED_BY: dict[str, str] = {
    "exact": "target",
    "closed_form": "target",
    "fixed_point": "target",
    "cg": "target",
}


def solvers(spec: Spec, problems: Problems) -> None:
    """0147: a solver, and the reduction of a local problem, need the link that makes the problem."""
    links = {link.name for link in spec.decompose.links.values()}
    for i, rule in enumerate(spec.learn):
        for key, word, link in _spoken(rule):
            if link not in links:
                path: Path = ("learn", i, key)
                message = f"`{key}: {word}` is for the problem of a link `{link}`, and there is none"
                problems.add("0147", message, spec.origin(*path), path)


def _spoken(rule: Rule) -> list[tuple[str, str, str]]:
    """Return the keys of an entry that need a link, what they say, and the link."""
    found = [("reduction", str(rule.reduction), "target")] if rule.reduction is not None else []
    if rule.solver is not None and rule.solver.name in SOLVED_BY:
        found.append(("solver", str(rule.solver), SOLVED_BY[rule.solver.name]))
    return found
