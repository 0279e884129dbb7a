"""Does a kernel's layout follow its values: views and items share memory, dead values are dropped or written over?"""

from __future__ import annotations

import pytest

from lpc.specs.diagnostics import LpcError
from lpc.specs.memory.heap import Heap
from lpc.specs.memory.layout import layout
from lpc.specs.memory.sizes import nbytes, wide
from lpc.specs.plan.kernel import NO_TENSOR, Kernel, TensorType
from lpc.specs.plan.kernel_text import parse_kernel

HEAD = """kernel k, block k, device any
argument x, input
  %x = x, float32[4]
argument w, state
  %w = w, float32[4]
"""


def kernel(nodes: str, result: str) -> Kernel:
    return parse_kernel(f"{HEAD}{nodes}\nresult y, output\n  %{result} = y, float32[4]\n")


def test_an_unread_argument_is_dropped_at_once() -> None:
    found = layout(kernel("node %a = aten.neg.default(%w) as float32[4]", "a"))
    assert found.unread == (0,)
    assert found.labels[found.results[0]] == ("y", "output")


def test_a_view_keeps_what_it_looks_at() -> None:
    nodes = [
        "node %a = aten.neg.default(%x) as float32[4]",
        "node %b = aten.view.default(%a, [2, 2]) as float32[2, 2]",
        "node %c = aten.exp.default(%b) as float32[2, 2]",
    ]
    found = layout(kernel("\n".join(nodes), "c"))
    assert [len(event.made) for event in found.events] == [1, 0, 1]
    assert [event.dropped for event in found.events] == [(0,), (), (2,)]


def test_an_item_keeps_its_part_of_a_tuple() -> None:
    nodes = [
        "node %a = aten.max.dim(%x, 0) as float32[4], int64[4]",
        "node %b = getitem(%a, 0) as float32[4]",
        "node %c = aten.exp.default(%b) as float32[4]",
    ]
    found = layout(kernel("\n".join(nodes), "c"))
    assert [slot for slot, _ in found.events[0].made] == [2, 3]
    assert found.events[1].dropped == (3,)
    assert found.events[2].dropped == (2,)


@pytest.mark.parametrize(("kind", "made"), [("float32[4]", 0), ("float64[4]", 1), ("float32[4, 4]", 1)])
def test_what_dies_is_written_over_where_it_is_alike(kind: str, made: int) -> None:
    nodes = f"node %a = aten.mul.Tensor(%x, %w) as float32[4]\nnode %b = aten.add.Tensor(%a, %w) as {kind}"
    assert len(layout(kernel(nodes, "b")).events[1].made) == made


def test_a_broadcast_sum_is_not_written_over_its_smaller_argument() -> None:
    nodes = [
        "node %a = aten.mul.Tensor(%x, %w) as float32[4]",
        "node %b = aten.unsqueeze.default(%w, 0) as float32[1, 4]",
        "node %c = aten.add.Tensor(%a, %b) as float32[1, 4]",
    ]
    assert len(layout(kernel("\n".join(nodes), "c")).events[2].made) == 1


def test_nodes_without_types_are_told() -> None:
    with pytest.raises(LpcError, match="0562"):
        layout(kernel("node %a = aten.neg.default(%x)", "a"))


def test_sizes_in_bytes() -> None:
    kind = TensorType("bfloat16", ("B", "T*2", 3))
    assert nbytes(kind, {"B": 5, "T": 7}) == 5 * 14 * 3 * 2
    assert nbytes(NO_TENSOR, {}) == 0
    assert wide(TensorType("bfloat16", (3,))) == 12
    assert wide(TensorType("float64", (3,))) == 24


@pytest.mark.parametrize("kind", [TensorType("float32", ("T",)), TensorType("float3", (1,))])
def test_an_unknown_size_is_told(kind: TensorType) -> None:
    with pytest.raises(LpcError, match="0562"):
        nbytes(kind, {"B": 2})


def test_the_peak_and_what_was_alive_then() -> None:
    heap = Heap()
    heap.enter("b1", "first")
    one = heap.make(10, "one", "output")
    heap.pulse(5, "two")
    heap.enter("b2", "second")
    heap.hold(one)
    heap.drop_all([one, None])
    three = heap.make(2, "three", "gradients")
    heap.drop(one)
    assert heap.live == three.size == heap.gradients
    assert (heap.peak.size, heap.peak.block, [s.name for s in heap.alive]) == (15, "b1", ["one", "two"])
    assert [mark.size for mark in heap.marks] == [15, 12]
    assert heap.marks[1].gradients == 2
