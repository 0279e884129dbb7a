"""Is a linked kernel the node list, quick, safe and free of values that nobody reads any more?"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lpc.runtime import operators
from lpc.runtime.link import link
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.kernel import Bundle, Kernel, Node, Port, TensorType
from lpc.specs.plan.operators import BUILTINS, GETITEM

ANY = TensorType("float32", ("B",))


def kernel(nodes: Any, arguments: list[str], results: list[str]) -> Kernel:
    ports = [tuple(Port(name, ANY, name) for name in names) for names in (arguments, results)]
    return Kernel(
        "k.local", "k", (Bundle("in", "input", ports[0]),), tuple(nodes), (Bundle("out", "output", ports[1]),)
    )


def test_symbolic_lengths_and_integer_arithmetic(nodes_of: Any) -> None:
    text = """
s = aten.sym_size.int x 0
half = floordiv s 2
rest = sub s half
twice = mul half 2
view = aten.view.default x [{"ref":"half"},-1]
grown = aten.new_zeros.default x [{"ref":"s"},{"ref":"rest"}]
scaled = aten.mul.Tensor view twice
"""
    function = link(kernel(nodes_of(text), ["x"], ["scaled", "grown"]), "cpu")
    for size in (2, 4, 10):
        x = torch.arange(3.0 * size).reshape(size, 3)
        scaled, grown = function([x])
        assert torch.equal(scaled, x.reshape(size // 2, -1) * (size // 2 * 2))
        assert grown.shape == (size, size - size // 2)


def test_every_form_of_constant_is_decoded() -> None:
    nodes = [
        Node(
            "a",
            "aten.full.default",
            ([2], {"float": "-inf"}),
            {
                "dtype": {"dtype": "float64"},
                "device": {"device": "plan"},
                "layout": {"layout": "strided"},
                "pin_memory": False,
            },
        ),
        Node("b", "aten.clone.default", ({"ref": "a"},), {"memory_format": {"memory_format": "contiguous"}}),
        Node("n", "aten.full.default", ([1], {"float": "nan"}), {"device": {"device": "cpu"}}),
        Node("r", "aten.div.Tensor_mode", ({"ref": "x"}, 2.0), {"rounding_mode": "floor"}),
    ]
    b, n, r = link(kernel(nodes, ["x"], ["b", "n", "r"]), "cpu")([torch.tensor([3.0])])
    assert b.dtype == torch.float64
    assert b.tolist() == [-float("inf")] * 2
    assert n.isnan().all()
    assert r.item() == 1.0


def test_results_may_be_arguments_and_repeat(nodes_of: Any) -> None:
    x = torch.ones(2)
    found = link(kernel(nodes_of("y = aten.neg.default x"), ["x"], ["x", "y", "y"]), "cpu")([x])
    assert found[0] is x
    assert found[1] is found[2]
    assert link(kernel([], [], []), "cpu")([]) == []


def test_the_list_of_arguments_is_emptied_and_each_tensor_freed_after_its_last_reader(nodes_of: Any) -> None:
    """Weak references, looked at by every operator: which earlier values are still alive?"""
    text = """
a = aten.exp.default x
b = aten.exp.default a
c = aten.exp.default b
d = aten.add.Tensor c y
unread = aten.exp.default d
pair = aten.var_mean.correction d [0]
mean = getitem pair 1
e = aten.exp.default mean
"""
    alive: list[set[str]] = []
    values = [torch.ones(4), torch.ones(4), torch.ones(4)]
    known = {name: weakref.ref(value) for name, value in zip(("x", "y", "unused"), values, strict=True)}

    class Ledger(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            alive.append({name for name, ref in known.items() if ref() is not None})
            out = func(*args, **(kwargs or {}))
            names = [("a"), "b", "c", "d", "unread", "pair", "e"]
            first = out[0] if isinstance(out, tuple) else out
            known[names[len(alive) - 1]] = weakref.ref(first)
            return out

    function = link(kernel(nodes_of(text), ["x", "y", "unused"], ["e"]), "cpu")
    with Ledger():
        found = function(values)
    gc.collect()
    assert values == []
    assert alive == [{"x", "y"}, {"y", "a"}, {"y", "b"}, {"y", "c"}, {"d"}, {"d"}, set()]
    assert found[0].shape == ()


REFUSED: dict[str, tuple[list[Node], list[str], str]] = {
    "operator": ([Node("a", "aten.from_file.default", ("/etc/passwd",))], ["a"], "0530"),
    "python": ([Node("a", "os.system.default", ("true",))], ["a"], "0530"),
    "keyword": (
        [Node("a", "aten.relu.default", ({"ref": "x"},), {"x=1); import os; f(x": 1})],
        ["a"],
        "0641",
    ),
    "dtype": ([Node("a", "aten.full.default", ([1], 0), {"dtype": {"dtype": "load"}})], ["a"], "0641"),
    "device": ([Node("a", "aten.full.default", ([1], 0), {"device": {"device": "meta"}})], ["a"], "0641"),
    "form": ([Node("a", "aten.relu.default", ({"code": "1"},))], ["a"], "0641"),
    "undefined": ([Node("a", "aten.relu.default", ({"ref": "b"},))], ["a"], "0643"),
    "twice": ([Node("x", "aten.relu.default", ({"ref": "x"},))], ["x"], "0643"),
    "result": ([], ["nowhere"], "0643"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    nodes, results, code = REFUSED[name]
    with pytest.raises(LpcError) as caught:
        link(kernel(nodes, ["x"], results), "cpu")
    assert caught.value.diagnostics[0].code == code
    assert "k.local" in (caught.value.diagnostics[0].place or "")


def test_names_of_a_plan_never_become_source() -> None:
    evil = "x); __import__('os').abort("
    nodes = [Node(evil, "aten.neg.default", ({"ref": "import os"},))]
    assert link(kernel(nodes, ["import os"], [evil]), "cpu")([torch.ones(1)])[0].item() == -1.0


def test_an_operator_that_this_torch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "is_allowed", lambda name: True)
    with pytest.raises(LpcError, match="has no operator"):
        link(kernel([Node("a", "aten.of_tomorrow.default")], [], ["a"]), "cpu")


M, V, INDEX = torch.rand(3, 3) + 0.5, torch.rand(3) + 0.5, torch.tensor([0, 1, 2])
IMAGE, WEIGHT = torch.rand(2, 3, 4, 4), torch.rand(3, 3, 1, 1)
POOL = (IMAGE, [2, 2], [2, 2])
UNARY = (M,)
BINARY = (M, M)
MORE: dict[str, tuple[Any, ...]] = {
    "addmm.default": (V, M, M),
    "amax.default": (M, [0], True),
    "argmax.default": (M, 1),
    "baddbmm.default": (M[None], M[None], M[None]),
    "bmm.default": (M[None], M[None]),
    "cat.default": ([M, M], 1),
    "clamp_min.default": (M, 0),
    "constant_pad_nd.default": (M, [1, 1], 0.0),
    "convolution.default": (IMAGE, WEIGHT, V, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    "embedding.default": (M, INDEX),
    "full.default": ([2], 1.0),
    "full_like.default": (M, 2.0),
    "empty.memory_format": ([2],),
    "eq.Scalar": (M, 1),
    "ge.Scalar": (M, 1),
    "gt.Scalar": (M, 0.5),
    "le.Scalar": (M, 1),
    "lt.Scalar": (M, 1),
    "ne.Scalar": (M, 1),
    "gather.default": (M, 0, INDEX[None]),
    "index_select.default": (M, 0, INDEX),
    "masked_fill.Scalar": (M, M > 1, 0.0),
    "mean.dim": (M, [0], True),
    "native_batch_norm.default": (IMAGE, V, V, V.clone(), V.clone(), True, 0.1, 1e-5),
    "native_group_norm.default": (IMAGE, V, V, 2, 3, 16, 3, 1e-5),
    "native_layer_norm.default": (M, [3], V, V, 1e-5),
    "permute.default": (M, [1, 0]),
    "pow.Tensor_Scalar": (M, 2),
    "rsub.Scalar": (M, 1.0),
    "select.int": (M, 0, 1),
    "split.Tensor": (M, 1, 0),
    "squeeze.dim": (M, 0),
    "stack.default": ([M, M], 0),
    "sum.dim_IntList": (M, [0], True),
    "transpose.int": (M, 0, 1),
    "unsqueeze.default": (M, 0),
    "where.self": (M > 1, M, M),
    "_softmax.default": (M, 1, False),
    "_log_softmax.default": (M, 1, False),
    "view.default": (M, [9]),
    "expand.default": (V, [2, 3]),
    "sym_size.int": (M, 0),
    "avg_pool2d.default": POOL,
    "max_pool2d_with_indices.default": POOL,
}
BINARIES = {"add", "sub", "mul", "div", "maximum", "minimum", "eq", "ge", "gt", "le", "lt", "ne", "mm"}


@pytest.mark.parametrize("name", [n for n in operators.BINDINGS if n != "aten.sym_size.int"])
def test_a_quick_binding_reaches_exactly_its_overload(name: str) -> None:
    packet, overload = name.split(".")[1:]
    given = MORE.get(f"{packet}.{overload}", BINARY if packet in BINARIES else UNARY)
    reached: list[Any] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            reached.append(func)
            return func(*args, **(kwargs or {}))

    found = operators.overload(name, "test")
    function = operators.quickest(name, found)
    assert function is not getattr(found, "_op", None), "the binding does not exist in this torch"
    with torch.inference_mode(), Watch():
        function(*given)
        if packet in ("add", "sub", "mul", "div"):  # numbers stand for tensors here
            function(M, 2.0)
    assert set(reached) == {found}


def test_the_quick_binding_of_a_length() -> None:
    name = "aten.sym_size.int"
    assert operators.quickest(name, operators.overload(name, "test"))(M, 0) == 3


def test_the_arithmetic_is_what_a_plan_may_name() -> None:
    assert set(operators.INTEGER_ARITHMETIC) | {GETITEM} == BUILTINS
