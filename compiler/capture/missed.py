"""Which parameters does no loss reach because what they compute leaves their block beside what its head reads?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx

from lpc.compiler.blocks import BlockModule
from lpc.compiler.localize import LocalProblem
from lpc.specs.diagnostics import Diagnostic, LpcError, listing, one_of
from lpc.specs.model import Spec


def ensure_judged(
    spec: Spec, problem: LocalProblem, block: BlockModule, unreached: Sequence[str], aliases: Mapping[str, str]
) -> None:
    """Refuse parameters that no loss reaches, where what they move leaves the block beside its feature (0439).

    What a gradient may come back for is the network's own affair. `aliases` are the first names of tied parameters.
    """
    known = {problem.feature["train"], *(arrival.value for arrival in problem.receives)}
    beside: dict[str, None] = {}
    missed = []
    for name in unreached:
        moved = _moved(block.module, name, aliases)
        leaving = [value for value in block.outputs if value in moved]
        if leaving and moved.isdisjoint(known):
            missed.append(name)
            beside.update(dict.fromkeys(leaving))
    if missed:
        raise LpcError(_refusal(spec, problem, block, missed, list(beside)))


def _moved(network: fx.GraphModule, name: str, aliases: Mapping[str, str]) -> set[str]:
    """Return the nodes that are computed from a parameter."""
    found: set[str] = set()
    for node in network.graph.nodes:
        own = {aliases.get(n, n) for n in node.meta.get("parameters", ())}
        if name in own or any(source.name in found for source in node.all_input_nodes):
            found.add(node.name)
    return found


def _refusal(
    spec: Spec, problem: LocalProblem, block: BlockModule, missed: Sequence[str], beside: Sequence[str]
) -> Diagnostic:
    feature = problem.feature["train"]
    read = f"its losses read `{feature}` alone" if problem.losses else "no gradient comes back for that"
    order = "; a block's head reads the last" if problem.losses else ""
    owners = list(dict.fromkeys(name.rpartition(".")[0] or name for name in missed))
    return Diagnostic(
        "0439",
        f"no loss reaches {listing(missed, 3)} of block `{problem.block}`: what they compute leaves it as"
        f" {listing(beside, 3)}, and {read}",
        span=spec.key_origin("decompose", "blocks", problem.block),
        notes=(f"block `{problem.block}` hands on {listing(block.outputs, 5)}{order}",),
        help=f"give {one_of(owners[:3])} a block with a loss of its own, or link the blocks by `gradient`",
    )
