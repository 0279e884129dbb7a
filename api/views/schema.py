"""What does an editor read about specs? Their JSON Schema as the page docs/schema.json."""

from __future__ import annotations

import json

from lpc.specs.json_schema import json_schema


def page() -> str:
    """Return the schema as text."""
    return json.dumps(json_schema(), indent=1) + "\n"
