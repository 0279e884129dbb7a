"""How is a spec built from Python? Read, checked, given the types of its data, compiled."""

from __future__ import annotations

from collections.abc import Sequence

from lpc.compiler.build import build_plan
from lpc.plan import Plan
from lpc.reading import Overrides, Source, check
from lpc.runtime.data import check_fields, describe, ensure_classes


def build(source: Source, overrides: Overrides = (), *, allow: Sequence[str] = ()) -> Plan:
    """Build the plan of a spec.

    `source` is a path, YAML or DSL text, a mapping or a Spec; `overrides` is `{"run.seed": 1}` or `["run.seed=1"]`;
    `allow` lists packages and paths that `module:` may import besides the default ones.
    Raises LpcError for everything that the spec, its network or its data get wrong.
    """
    spec = check(source, overrides)
    fields = describe(spec.data, spec.origin) if spec.data is not None else {}
    ensure_classes(spec, fields)
    plan = build_plan(spec, allow=allow, fields=fields)
    if spec.data is not None:
        check_fields(spec.data, plan.program.fields, spec.origin)
    return Plan(plan)
