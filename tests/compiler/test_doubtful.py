"""Is it told what a spec does not get: the second view of a sample, and the word `none` in a recipe?"""

from __future__ import annotations

import pytest

from lpc.compiler.doubtful import single_views
from lpc.specs import load_spec

SPEC = """\
network: {{inputs: {{image: [1, 8, 8]}}, layers: [flatten, fc1: linear(16), relu, out: linear(10)]}}
data: {{source: digits{views}}}
recipe: {recipe}
run: {{epochs: 1}}
"""


@pytest.mark.parametrize(
    ("recipe", "views", "told"),
    [("loco", "", True), ("loco", ", views: 2", False), ("greedy", "", False), ("loco(loss=ff_bce)", "", False)],
)
def test_a_loss_of_two_views_wants_two(recipe: str, views: str, told: bool) -> None:
    warnings = list(single_views(load_spec(SPEC.format(recipe=recipe, views=views))))
    assert bool(warnings) is told
    assert all("data.views: 1" in warning for warning in warnings)


def test_none_is_a_word_for_a_recipe_as_well() -> None:
    recipe = "local_forward_gradient(readout=out, patches=none, groups=4)"
    assert load_spec(SPEC.format(recipe=recipe, views="")).decompose.units.patches == "none"
