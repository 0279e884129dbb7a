"""Does a spec make sense? Every rule that needs no torch; what needs the network is checked in building."""

from __future__ import annotations

from collections.abc import Callable

from lpc.specs import check_learning, check_network, check_phases, check_placement, check_readouts, check_solving
from lpc.specs.check_terms import check_terms
from lpc.specs.model import Spec
from lpc.specs.problems import Problems

RULES: tuple[Callable[[Spec, Problems], None], ...] = (
    check_terms,
    check_network.one_network,
    check_network.inputs_given,
    check_network.tensors,
    check_network.module_path,
    check_network.adapters,
    check_network.layer_names,
    check_network.structures,
    check_network.wiring,
    check_network.fractions,
    check_network.batch_fields,
    check_network.fields_once,
    check_network.name,
    check_network.precision,
    check_network.length,
    check_network.run_words,
    check_learning.selectors_once,
    check_learning.blocks_hold,
    check_learning.link_ends,
    check_learning.entries,
    check_learning.entries_match,
    check_learning.optimizers,
    check_learning.optimizer_classes,
    check_learning.output_loss,
    check_learning.signals,
    check_learning.heads,
    check_learning.split_batches,
    check_solving.solvers,
    check_readouts.sources,
    check_readouts.predictor,
    check_phases.lengths,
    check_phases.names,
    check_phases.stopping,
    check_placement.ranks,
    check_placement.names,
    check_placement.shards,
)


def check(spec: Spec) -> None:
    """Apply every rule.

    Raises:
        LpcError: all problems found, in the order of the text.
    """
    found(spec).raise_any()


def found(spec: Spec) -> Problems:
    """Return what the rules note about a spec, warnings as well."""
    problems = Problems()
    for rule in RULES:
        rule(spec, problems)
    return problems
