"""Are blocks placed as the spec says, and where it says only how many workers, as evenly as contiguous parts can be?"""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lpc
from lpc.specs.diagnostics import LpcError
from lpc.specs.ranks.placement import balanced, placement_of

FOUR = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(8), tanh, fc2: linear(8), tanh, fc3: linear(8), tanh, out: linear(10)]
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, b3: fc3, head: out}, links: stop}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}]
readouts: {probe: {from: [b1, b2], optimizer: adam}}
"""


def largest(costs: list[int], cuts: tuple[int, ...]) -> int:
    bounds = [0, *cuts, len(costs)]
    return max(sum(costs[a:b]) for a, b in pairwise(bounds))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=7), st.integers(1, 7), st.frozensets(st.integers(1, 6)))
def test_no_contiguous_parts_are_more_even(costs: list[int], parts: int, closed: frozenset[int]) -> None:
    found = balanced(costs, parts, closed)
    free = [i for i in range(1, len(costs)) if i not in closed]
    cuts = tuple(i for i in range(1, len(costs)) if found[i] != found[i - 1])
    assert found == sorted(found)
    assert set(found) == set(range(min(parts, len(free) + 1)))
    assert not closed.intersection(cuts)
    assert largest(costs, cuts) == min(largest(costs, other) for other in combinations(free, len(cuts)))


def test_written_placement() -> None:
    plan = lpc.build(FOUR + 'run: {placement: {"b*": 1, b1: 0, head: 2}}\n')
    assert placement_of(plan.data, plan.spec) == {"b1": 0, "b2": 1, "b3": 1, "head": 2, "probe": 1}


def test_another_number_of_workers_is_balanced_anew() -> None:
    plan = lpc.build(FOUR + 'run: {placement: {"b*": 1, b1: 0, head: 2}}\n')
    found = placement_of(plan.data, plan.spec, 2)
    assert found == {"b1": 0, "b2": 1, "b3": 1, "head": 1, "probe": 1}
    assert set(placement_of(plan.data, plan.spec, 1).values()) == {0}


@pytest.mark.parametrize(
    ("run", "code", "words"),
    [
        ("{workers: 5}", "0580", "4 at most"),
        ("{placement: {b1: 0}}", "0150", "`b2` is placed nowhere"),
        ('{placement: {"*": 0, b1: 2}}', "0150", "nothing is placed on rank 1"),
        ('{placement: {"*": 0, b1: 1}, workers: 3}', "0150", "3 workers"),
        ('{placement: {"*": 0, hea: 1}}', "0132", "did you mean `head`?"),
    ],
)
def test_what_cannot_be_placed(run: str, code: str, words: str) -> None:
    with pytest.raises(LpcError) as caught:
        lpc.build(FOUR + f"run: {run}\n")
    assert caught.value.diagnostics[0].code == code
    assert words in str(caught.value)
    assert caught.value.diagnostics[0].span is not None


TIED = """\
class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = (torch.nn.Linear(8, 8) for _ in range(3))
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(self.second(self.first(x)))
"""


def test_blocks_that_share_a_tensor_stay_together(tmp_path: Path) -> None:
    (tmp_path / "nets_of_ranks.py").write_text("import torch\n\n" + TIED)
    text = (
        "network: {module: nets_of_ranks:Tied, inputs: {x: [8]}}\n"
        "data: none\nfields: {label: {shape: [], dtype: int64}}\nloss: cross_entropy\n"
        "decompose: {blocks: {b1: first, b2: second, head: out}, links: stop, shared: sum}\n"
        'learn: [{blocks: "*", head: linear(out=8), loss: cross_entropy, optimizer: adam}]\n'
    )
    plan = lpc.build(text, allow=[str(tmp_path)])
    assert placement_of(plan.data, plan.spec, 2) == {"b1": 0, "b2": 0, "head": 1}
    with pytest.raises(LpcError, match=r"`b1` and `b2` both use `first.weight` and stay together"):
        placement_of(plan.data, plan.spec, 3)
    with pytest.raises(LpcError, match=r"are placed on ranks 0 and 1"):
        lpc.build(text + "run: {placement: {b1: 0, b2: 1, head: 1}}\n", allow=[str(tmp_path)])
