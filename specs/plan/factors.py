"""Does an update get the Kronecker factors that its optimizer takes? Those of the layers whose gradients it gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from lpc.specs.plan.plan import Factored


class Given(Protocol):
    """What is known of a value: its role, and its ports' outside names."""

    @property
    def role(self) -> str: ...

    @property
    def sources(self) -> tuple[str, ...]: ...


def misfits(layers: Sequence[Factored], values: Sequence[Given]) -> Iterator[str]:
    """Yield what is wrong with the `values` of an update; nothing where the role of one is not known."""
    given = {source for value in values for source in value.sources}
    if not all(value.sources for value in values):
        return
    wanted = {source for layer in layers if layer.weight in given for source in layer.sources}
    found = {source for value in values if value.role == "factors" for source in value.sources}
    for source in sorted(wanted ^ found):
        yield f"{'lacks' if source in wanted else 'takes no'} factor `{source}`"
