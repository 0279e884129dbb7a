"""Where may a rank begin steps before the last one is over? Where nothing goes back through weights that have changed.

Over `stop` links and around auxiliary variables what comes late is a value, and a problem with it is a problem of the
weights as they are. A derivative that comes late would be multiplied with those of other weights than it is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.aliases import check_aliases
from lpc.specs.plan.instructions import Instruction, Update, Visit, Write
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Plan, Program, links
from lpc.specs.ranks.lagging import halves
from lpc.specs.ranks.makers import flat

# Links over which a derivative goes back, and what would be wrong with it.
BACKWARD = {
    "gradient": "a gradient would come to a forward pass of other weights than it is of",
    "target": "a target would be stepped from along the gradient of other weights",
    "feedback": "an error would come to a forward pass of other weights than it is of",
}


def ensure_forward(plan: Plan, spec: Spec, placement: Mapping[str, int]) -> None:
    """Refuse (0584) links between ranks over which a derivative goes back, and corrections, which cross all links."""
    for (source, target), link in links(plan.partition).items():
        word = link.partition("(")[0]
        if word in BACKWARD and placement[source] != placement[target]:
            raise _refusal(spec, f"the link {source} -> {target} between two ranks is `{word}`", BACKWARD[word])
    if any(isinstance(one, Visit) for step in plan.program.steps for one in step):
        raise _refusal(spec, "variables are kept for each sample", "a step would take them before they are stored")
    for block in plan.program.corrections:
        why = "its offset is a gradient through the whole network, and would come to other weights"
        raise _refusal(spec, f"block `{block}` has a correction", why)


def ensure_lags(
    bodies: Sequence[Sequence[Instruction]], spec: Spec, program: Program, kernels: Mapping[str, Kernel]
) -> None:
    """Refuse (0584) steps whose second half reads memory of weights or buffers, which other steps change meanwhile."""
    for body in bodies:
        early, late = halves(tuple(body))
        changes = [one for one in (*flat(late), *flat(early)) if isinstance(one, Update | Write)]
        for problem in check_aliases("step", [*early, *changes, *late], program, kernels):
            raise _refusal(spec, problem.message, "other steps change it meanwhile")


def _refusal(spec: Spec, message: str, why: str) -> LpcError:
    return LpcError(Diagnostic("0584", message, spec.origin("run", "staleness"), notes=(why,)))
