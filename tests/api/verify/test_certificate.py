"""Does a certificate hold for its plan alone, and for nothing that was changed?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lpc as api
from lpc.certificate import Certificate, certify, load_certificate, recheck

Command = Callable[..., Any]
SPEC = """
network: {inputs: {image: [64]}, layers: [fc1: linear(16), relu, out: linear(10)]}
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]
"""


@pytest.fixture(scope="module")
def plan() -> api.Plan:
    return api.build(SPEC)


@pytest.fixture(scope="module")
def certificate(plan: api.Plan) -> Certificate:
    return certify(plan, api.verify(plan))


def test_the_same_report_has_the_same_certificate(plan: api.Plan, certificate: Certificate) -> None:
    again = certify(plan, api.verify(plan))
    assert again.facts == certificate.facts
    assert again.ok
    assert certificate.facts["influence"]["fc1.weight"] == ["fc1.loss"]


def test_it_comes_back_and_holds(plan: api.Plan, certificate: Certificate, tmp_path: Path) -> None:
    certificate.save(tmp_path / "deep" / "a.cert")
    assert recheck(plan, load_certificate(tmp_path / "deep" / "a.cert")) == []


def test_it_holds_for_no_other_plan(certificate: Certificate) -> None:
    other = api.build(SPEC.replace("lr=0.1", "lr=0.2"))
    [problem] = recheck(other, certificate)
    assert problem.code == "0573"


@pytest.mark.parametrize("key", ["ok", "plan", "influence", "worst", "seal"])
def test_a_changed_certificate_is_refused(certificate: Certificate, tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.cert"
    changed: dict[str, Any] = {"ok": False, "plan": "0" * 64, "influence": {}, "worst": 1.0, "seal": "0" * 64}
    path.write_text(json.dumps({**certificate.facts, key: changed[key]}))
    with pytest.raises(api.LpcError, match="LPC0572"):
        load_certificate(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "[" * 100_000])
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.cert").write_text(text)
    with pytest.raises(api.LpcError, match="LPC0572"):
        load_certificate(tmp_path / "a.cert")
    with pytest.raises(api.LpcError, match="LPC0572"):
        load_certificate(tmp_path / "absent.cert")


def test_a_sealed_lie_about_the_kernels_is_found(plan: api.Plan) -> None:
    report = api.verify(plan)
    influence = {**report.influence, "fc1.weight": frozenset({"out.loss"})}
    problems = recheck(plan, certify(plan, replace(report, influence=influence)))
    assert any("other losses reach" in problem.message for problem in problems)


def test_a_plan_that_did_not_pass_has_a_certificate_that_says_so(plan: api.Plan) -> None:
    report = replace(api.verify(plan), gradients={"fc1.weight": float("inf")})
    problems = recheck(plan, certify(plan, report))
    assert [p.message for p in problems] == ["the plan did not pass when it was verified"]


def test_the_command_writes_and_checks(lpc: Command, plan: api.Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "a.plan")
    assert "wrote a.cert" in lpc("verify", "a.plan", "--certificate", "a.cert").out
    held = lpc("verify", "a.plan", "--check", "a.cert")
    assert held.code == 0
    assert "the certificate holds" in held.out
    api.build(SPEC.replace("linear(16)", "linear(8)")).save(tmp_path / "b.plan")
    refused = lpc("verify", "b.plan", "--check", "a.cert")
    assert refused.code == 1
    assert "LPC0573" in refused.err
    assert lpc("verify", "a.plan", "--check", "a.cert", "--certificate", "b.cert").code == 2


def test_checking_needs_no_torch(plan: api.Plan, certificate: Certificate, tmp_path: Path) -> None:
    plan.save(tmp_path / "a.plan")
    certificate.save(tmp_path / "a.cert")
    line = "['verify', 'a.plan', '--check', 'a.cert']"
    code = f"from lpc.cli import app; import sys; app({line}, standalone_mode=False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
