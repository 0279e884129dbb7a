"""Is a plan refused in which the compiler let a gradient through a stop?"""

from __future__ import annotations

from typing import Any

import pytest

from lpc.compiler import isolation
from lpc.specs import LpcError


def test_a_leak_is_told_and_no_plan_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Any = object()
    monkeypatch.setattr(isolation, "verify", lambda plan: [])
    found = {"fc1.weight": {"b1.loss", "loss"}, "out.weight": {"loss"}}
    monkeypatch.setattr(isolation, "influence", lambda plan: found)
    monkeypatch.setattr(isolation, "influence_by_targets", lambda plan: {})
    declared = {"fc1.weight": frozenset({"b1.loss"}), "out.weight": frozenset({"loss"})}
    with pytest.raises(LpcError, match=r"LPC0413.*`fc1.weight` gets a gradient of loss"):
        isolation.ensure_isolated(plan, declared, {})
    whole = declared | {"fc1.weight": frozenset({"b1.loss", "loss"})}
    isolation.ensure_isolated(plan, whole, {})
    monkeypatch.setattr(isolation, "influence_by_targets", lambda plan: {"out.weight": {"b1.loss"}})
    with pytest.raises(LpcError, match=r"LPC0413.*`out.weight` gets a gradient of b1.loss"):
        isolation.ensure_isolated(plan, whole, {"out.weight": frozenset({"loss"})})
