"""What does `lpc eject` do? It writes a plan as Python code that needs no lpc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lpc
from lpc.collecting import load
from lpc.inspecting import PlanPath
from lpc.output import say


def eject(
    plan: PlanPath,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="new folder; default: PLAN's name + -code"),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
) -> None:
    """Write a plan as Python code to read and to change, which needs no lpc and trains to the same bits."""
    load("lpc.ejection")
    folder = lpc.eject(lpc.load(plan), output or plan.with_name(f"{plan.stem}-code"), device=device)
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in folder.rglob("*.py"))
    say(f"wrote {folder}: {lines} lines of Python")
    if (folder / "train.py").exists():
        say(f"try: python {folder / 'train.py'}")
