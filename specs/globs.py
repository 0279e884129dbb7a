"""Which globs does an argument hold? A list of them, or one text with `|` between them."""

from __future__ import annotations

from lpc.specs.term import Value


def split_globs(value: Value) -> tuple[str, ...]:
    """Return the globs of `"*.query|*.value"` or of a list; none where there is nothing."""
    texts = value if isinstance(value, list) else [] if value is None else [value]
    parts = (part.strip() for text in texts for part in str(text).split("|"))
    return tuple(part for part in parts if part)
