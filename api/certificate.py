"""What did a verification prove, and of which plan? A file that anybody can check again without running anything.

The certificate holds the plan's hash, everything that `verify` found, and a seal over it all. Checking it again reads
the plan, compares the hash, and works out once more what can be read off the kernels: the plan's structure and the
losses that reach each parameter. Numbers are taken from the certificate: a seal tells damage, and no forgery.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpc.plan import Plan
from lpc.report import Report
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.files import write_atomically
from lpc.specs.plan.encode import canonical
from lpc.specs.plan.manifest import digest
from lpc.specs.plan.verify import influence, verify

FORMAT = 1
LARGEST = 2**28  # bytes of a certificate
NUMBER = (int, float)
TYPES: dict[str, type | tuple[type, ...]] = {
    "format": int, "lpc": str, "torch": str, "plan": str, "spec": str, "target": str, "seed": int, "ok": bool,
    "tolerance": NUMBER, "worst": NUMBER, "output": NUMBER, "errors": dict, "metrics": dict, "influence": dict,
    "declared": dict, "unreached": list, "leaks": dict, "estimators": dict, "diagnostics": list, "seal": str,
}  # fmt: skip


@dataclass(frozen=True)
class Certificate:
    """A certificate's content, as plain data."""

    facts: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Did the plan pass?"""
        return self.facts["ok"] is True

    def save(self, path: str | Path) -> None:
        """Write the certificate; a file that is there is replaced."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), canonical(dict(self.facts), Any, indent=1))


def certify(plan: Plan, report: Report) -> Certificate:
    """Return the certificate of a report on this plan: the same report, the same bytes."""
    from lpc.version import __version__

    facts: dict[str, Any] = {
        "format": FORMAT,
        "lpc": __version__,
        "torch": plan.data.torch,
        "plan": plan.hash,
        "spec": digest(plan.data.spec.encode()),
        "target": plan.data.target,
        "seed": report.seed,
        "ok": report.ok,
        "tolerance": report.tolerance,
        "worst": _number(report.worst),
        "errors": {what: {n: _number(e) for n, e in table.items()} for what, table in report.errors.items()},
        "metrics": {n: _number(e) for n, e in report.metrics.items()},
        "output": _number(report.output),
        "influence": _sorted(report.influence),
        "declared": _sorted(report.declared),
        "unreached": list(report.unreached),
        "leaks": _sorted(report.leaks),
        "estimators": dict(report.estimators),
        "diagnostics": [f"LPC{one.code} {one.place}: {one.message}" for one in report.diagnostics],
    }
    return Certificate({**facts, "seal": _seal(facts)})


def load_certificate(path: str | Path) -> Certificate:
    """Read a certificate. Raises LpcError (0572) where the file is none, or is not as it was written."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LpcError(Diagnostic("0572", f"the certificate cannot be read: {error}", place=str(path))) from None
    if not isinstance(facts, dict) or not _formed(facts):
        raise LpcError(Diagnostic("0572", f"this is no certificate of format {FORMAT}", place=str(path)))
    if facts["seal"] != _seal({key: value for key, value in facts.items() if key != "seal"}):
        message = "the certificate was altered or damaged: its own hash does not match"
        raise LpcError(Diagnostic("0572", message, place=str(path)))
    return Certificate(facts)


def _formed(facts: Mapping[str, Any]) -> bool:
    """Tell whether every fact is there and of its type."""
    if facts.keys() != TYPES.keys() or not all(isinstance(facts[key], kind) for key, kind in TYPES.items()):
        return False
    tables = [facts["metrics"], *facts["errors"].values()]
    numbers = all(isinstance(t, dict) and all(isinstance(n, NUMBER) for n in t.values()) for t in tables)
    named = [names for key in ("influence", "declared", "leaks") for names in facts[key].values()]
    lists = all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in named)
    return facts["format"] == FORMAT and numbers and lists


def recheck(plan: Plan, certificate: Certificate, place: str = "certificate") -> list[Diagnostic]:
    """Return what speaks against the certificate (0573), without running the plan; empty means that it holds."""
    return [Diagnostic("0573", message, place=place) for message in _against(plan, certificate.facts)]


def _against(plan: Plan, facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["plan"] != plan.hash:
        yield f"it is of the plan {str(facts['plan'])[:12]}, and this is {plan.hash[:12]}"
        return
    if facts["ok"] is not True:
        yield "the plan did not pass when it was verified"
    found = {name: frozenset(losses) for name, losses in influence(plan.data).items()}
    if _sorted(found) != facts["influence"]:
        yield "other losses reach the parameters, by the kernels, than it says"
    declared = {name: frozenset(losses) for name, losses in facts["declared"].items()}
    if any(losses - declared.get(name, frozenset()) for name, losses in found.items()):
        yield "a loss reaches a parameter that it should not reach"
    if any(one.severity == "error" for one in verify(plan.data)):
        yield "the plan's structure is not sound"
    worst = max([facts["output"], *(error for table in facts["errors"].values() for error in table.values())])
    if facts["ok"] is True and not worst <= facts["tolerance"]:
        yield "it says that the plan passed with an error above the tolerance"


def _seal(facts: Mapping[str, Any]) -> str:
    return digest(canonical(dict(facts), Any))


def _sorted(losses: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    return {name: sorted(found) for name, found in sorted(losses.items())}


def _number(error: float) -> float:
    """A finite number in place of infinity, which JSON does not have."""
    return min(float(error), 1e308)
