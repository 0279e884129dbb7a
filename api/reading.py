"""Is a spec right? Everything that can be said without building it, and without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lpc.specs import Spec, load_spec
from lpc.specs.checking import check as apply_rules

Source: TypeAlias = str | Path | Mapping[str, Any] | Spec
Overrides: TypeAlias = Mapping[str, Any] | Sequence[str]


def check(source: Source, overrides: Overrides = ()) -> Spec:
    """Return the spec in `source`: a path, YAML or DSL text, a mapping or a Spec.

    `overrides` is `{"run.seed": 1}` or `["run.seed=1"]`.
    Raises LpcError with every problem found: structure, names, terms, optimizer arguments.
    """
    spec = load_spec(source, overrides)
    apply_rules(spec)
    return spec
