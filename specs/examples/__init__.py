"""What does a mistake look like? For each code its meaning, a wrong and a right way to write it."""

from __future__ import annotations

from lpc.specs.examples.command import COMMANDS
from lpc.specs.examples.data import DATA_EXAMPLES
from lpc.specs.examples.example import BASE, By, Example, whole
from lpc.specs.examples.learning import LEARNING
from lpc.specs.examples.network import NETWORKS
from lpc.specs.examples.partition import PARTITIONS
from lpc.specs.examples.plan import PLANS
from lpc.specs.examples.ranks import RANKS
from lpc.specs.examples.running import RUNNING
from lpc.specs.examples.spec import SPEC

EXAMPLES: dict[str, Example] = (
    SPEC | NETWORKS | PARTITIONS | LEARNING | PLANS | DATA_EXAMPLES | RUNNING | RANKS | COMMANDS
)

__all__ = ["BASE", "EXAMPLES", "By", "Example", "whole"]
