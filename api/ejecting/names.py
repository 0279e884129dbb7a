"""What are things called in Python? As in the plan, with underscores for what no identifier may have."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable


def identifier(text: str) -> str:
    """Return an identifier that reads like a name of a plan: `b1_loss` of `b1.loss`, `fc1_fc2` of `fc1->fc2`."""
    found = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "value"
    found = f"_{found}" if found[0].isdigit() else found
    return f"{found}_" if keyword.iskeyword(found) or hasattr(builtins, found) else found


class Names:
    """Gives each thing a name of its own within one scope."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self.known: dict[str, str] = {}

    def of(self, key: str, wanted: str | None = None) -> str:
        """Return the name of a thing, the same each time it is asked for; a new one is like `wanted`."""
        if key not in self.known:
            self.known[key] = self.fresh(key if wanted is None else wanted)
        return self.known[key]

    def fresh(self, wanted: str) -> str:
        """Return a name that nothing has yet."""
        base = found = identifier(wanted)
        number = 2
        while found in self.taken:
            found, number = f"{base}_{number}", number + 1
        self.taken.add(found)
        return found
