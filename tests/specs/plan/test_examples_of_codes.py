"""Is every example of a mistake in a plan's instructions that mistake, in the plan of conftest.py?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from syrupy.assertion import SnapshotAssertion

from lpc.specs import LpcError
from lpc.specs.diagnostics import Diagnostic
from lpc.specs.examples import EXAMPLES, By
from lpc.specs.plan.parse import parse
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.text import text
from lpc.specs.plan.verify import verify

CODES = sorted(code for code, example in EXAMPLES.items() if example.by is By.PLAN)


def plain(line: str) -> str:
    """Return an instruction without the blanks and the comment that only make it look well."""
    return " ".join(line.split("#")[0].split())


def told(plan: Plan, good: str, line: str) -> Iterator[Diagnostic]:
    """Yield what is told of a plan in whose text `line` stands for the line `good`."""
    lines = text(plan).splitlines()
    place = next(i for i, found in enumerate(lines) if plain(found) == good)
    changed = "\n".join([*lines[:place], f"  {line}", *lines[place + 1 :]])
    try:
        step, evaluate, predict, _ = parse(changed)
    except LpcError as error:
        yield from error.diagnostics
        return
    yield from verify(replace(plan, program=replace(plan.program, step=step, evaluate=evaluate, predict=predict)))


@pytest.mark.parametrize("code", CODES)
def test_instructions(code: str, plan: Plan, snapshot: SnapshotAssertion) -> None:
    example = EXAMPLES[code]
    assert not list(told(plan, example.good, example.good))
    problems = list(told(plan, example.good, example.bad))
    assert code in [problem.code for problem in problems]
    assert "\n".join(problem.render() for problem in problems) == snapshot
