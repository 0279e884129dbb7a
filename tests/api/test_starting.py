"""Does each spec that `lpc init` writes train?"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import lpc
from lpc.specs.recipes.recipe import SHIPPED
from lpc.starting import starter


@pytest.mark.parametrize("recipe", [None, *SHIPPED])
def test_what_init_writes_trains(recipe: str | None, tmp_path: Path) -> None:
    """Two steps of it, and an evaluation."""
    plan = lpc.build(starter(recipe), {"run.epochs": None, "run.steps": 2})
    summary = lpc.Trainer(plan, "cpu").fit(tmp_path)
    values = [*summary["train"].values(), *summary["test"].values()]
    assert values
    assert all(map(math.isfinite, values))
    assert any("accuracy" in metric for metric in summary["test"])


def test_what_begins_otherwise_says_so() -> None:
    """Its arguments are what stands there, with the meaning that the recipe's file gives them; the rest is of all."""
    text = starter("infopro")
    assert "optimizer: sgd(lr=0.05, momentum=0.9, nesterov=true, weight_decay=1e-4)  # the optimizer of each" in text
    assert text.count("recipe:") == 1
    assert text.startswith("# A spec says two things")
    assert "name: starter_infopro\n" in text
