"""What does `lpc verify` do? It verifies a plan, writes a certificate of that, or checks one again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lpc
from lpc.collecting import load
from lpc.inspecting import PlanPath
from lpc.output import say, show, tell

NOT_VERIFIED = 1


def verify(
    plan: PlanPath,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write what was found, bound to the plan", show_default=False)
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="check a certificate again, without running the plan", show_default=False),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PACKAGE|PATH", help="let `module:` import from here as well", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of the random batch")] = 0,
    alignment: Annotated[
        bool, typer.Option("--alignment", help="tell how near each block's gradient is to the exact one")
    ] = False,
) -> None:
    """Prove a plan's isolation and compare its gradients with eager autograd, in float64."""
    if check is not None:
        if certificate is not None:
            raise typer.BadParameter("a certificate is either written or checked", param_hint="--check")
        _check(plan, check)
        return
    load("lpc.verification")
    from lpc.locating import located
    from lpc.views import verification

    found = lpc.load(plan)
    with located(found, plan, None):
        report = lpc.verify(found, allow=allow or (), seed=seed)
    for problem in report.diagnostics:
        tell(problem)
    show(verification.parameters(report))
    say(verification.verdict(report))
    if alignment:
        show(verification.alignments(lpc.alignment(found, allow=allow or (), seed=seed)))
    if certificate is not None:
        from lpc.certificate import certify

        certify(found, report).save(certificate)
        say(f"wrote {certificate}")
    if not report.ok:
        raise typer.Exit(NOT_VERIFIED)


def _check(path: Path, file: Path) -> None:
    """Tell whether a certificate holds; no torch is needed."""
    from lpc.certificate import load_certificate, recheck

    plan, certificate = lpc.load(path), load_certificate(file)
    problems = recheck(plan, certificate, str(file))
    for problem in problems:
        tell(problem)
    if problems:
        raise typer.Exit(NOT_VERIFIED)
    facts = certificate.facts
    compared = sum(map(len, facts["errors"].values())) + 1
    proved = f"{len(facts['influence'])} parameters, {compared} values compared"
    say(f"the certificate holds: plan {plan.hash[:12]}, {proved}")
