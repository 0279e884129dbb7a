"""What is a layer called that has no name? By its op and a counter, which leaves given names out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def layer_names(layers: Sequence[tuple[str | None, str]]) -> list[str]:
    """Return the names of a list of layers, of which each is given by its name, if it has one, and its op."""
    given = {name for name, _ in layers}
    counter: Counter[str] = Counter()
    names = []
    for name, op in layers:
        while name is None and (counter.update([op]) or f"{op}{counter[op]}") in given:
            continue
        names.append(name or f"{op}{counter[op]}")
    return names
