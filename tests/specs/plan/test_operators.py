"""Is the list of allowed operators what its rules say, and what training needs?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from lpc.compiler.operator_table import TABLE, overloads, render
from lpc.specs.plan.kernel import Json, Kernel, Node
from lpc.specs.plan.operators import BUILTINS, is_allowed, limits, table
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.wellformed import check_kernel

NEEDED = """
    mm.default addmm.default bmm.default convolution.default convolution_backward.default
    native_batch_norm.default native_batch_norm_backward.default _native_batch_norm_legit.no_stats
    _native_batch_norm_legit_functional.default _native_batch_norm_legit_no_training.default
    _batch_norm_with_update_functional.default batch_norm_backward.default native_layer_norm.default
    native_layer_norm_backward.default native_group_norm.default native_group_norm_backward.default
    _fused_rms_norm.default _scaled_dot_product_flash_attention_for_cpu.default
    _scaled_dot_product_flash_attention_for_cpu_backward.default _scaled_dot_product_flash_attention.default
    _scaled_dot_product_flash_attention_backward.default _scaled_dot_product_efficient_attention.default
    _scaled_dot_product_efficient_attention_backward.default _scaled_dot_product_cudnn_attention.default
    _scaled_dot_product_cudnn_attention_backward.default max_pool2d_with_indices.default
    max_pool2d_with_indices_backward.default avg_pool2d.default avg_pool2d_backward.default
    _adaptive_avg_pool2d.default _adaptive_avg_pool2d_backward.default nll_loss_forward.default
    nll_loss_backward.default embedding.default embedding_dense_backward.default _softmax.default
    _softmax_backward_data.default _log_softmax.default _log_softmax_backward_data.default index_put.default
    index.Tensor scatter.src scatter.value scatter_add.default gather.default gelu.default
    gelu_backward.default threshold_backward.default tanh_backward.default silu_backward.default
    sigmoid_backward.default sum.dim_IntList mean.dim var_mean.correction view.default expand.default
    permute.default clone.default copy.default detach.default _to_copy.default empty_like.default
    full.default scalar_tensor.default arange.start where.self masked_fill.Scalar sym_size.int
    sym_numel.default new_zeros.default slice_backward.default select_backward.default
    constant_pad_nd.default cat.default split.Tensor native_dropout_backward.default
"""
FORBIDDEN = """
    from_file.default set_.source_Storage save.default bernoulli.default bernoulli.p rand.default
    randn.default rand_like.default randn_like.default randint.low randperm.default normal.float_float
    multinomial.default native_dropout.default dropout.default rrelu_with_noise.default
    _fused_dropout.default poisson.default add_.Tensor mm.out copy_.default resize_.default relu_.default
    index_put_.default _index_put_impl_.default record_stream.default data.default pin_memory.default
    _sparse_coo_tensor_unsafe.default _nested_view_from_buffer.default _copy_from.default _assert_async.msg
    einsum.default lstm.input
"""


@pytest.mark.parametrize("name", NEEDED.split())
def test_training_has_its_operators(name: str) -> None:
    assert is_allowed(f"aten.{name}")


@pytest.mark.parametrize("name", FORBIDDEN.split())
def test_effects_are_forbidden(name: str) -> None:
    assert not is_allowed(f"aten.{name}")


@pytest.mark.parametrize(
    "name", ["", "os.system", "aten.mm", "mm", "prims.add.default", "eval", "__import__"]
)
def test_nothing_else_is_an_operator(name: str) -> None:
    assert not is_allowed(name)


def test_arithmetic_is_allowed() -> None:
    assert all(map(is_allowed, BUILTINS))
    assert {"getitem", "add", "mul", "sub", "floordiv", "mod", "sym_max"} <= BUILTINS


def test_no_listed_operator_writes_or_draws() -> None:
    schemas = {}
    for schema in torch._C._jit_get_all_schemas():
        schemas[f"aten.{schema.name.removeprefix('aten::')}.{schema.overload_name or 'default'}"] = schema
    for name in table().keys() & schemas.keys():
        schema = schemas[name]
        assert not any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments), name
        assert not any("Generator" in str(a.type) or "Storage" in str(a.type) for a in schema.arguments), name
        assert not any(a.name == "dropout_p" for a in schema.arguments) or limits(name).pinned, name


def test_the_table_is_that_of_the_installed_torch() -> None:
    """On the version it was made with it is exact; on others what both have must be ruled alike."""
    written = json.loads(TABLE.read_text())
    if torch.__version__.split("+")[0] == written["torch"]:
        assert TABLE.read_text() == render()
    current = overloads()
    shared = [name for name in written["overloads"] if name in current]
    assert len(shared) > 0.9 * len(current)
    assert {name: written["overloads"][name] for name in shared} == {name: current[name] for name in shared}


def test_every_listed_overload_resolves() -> None:
    missing = [name for name in overloads() if not _resolves(name)]
    assert not missing


def _resolves(name: str) -> bool:
    _, packet, overload = name.split(".")
    return hasattr(getattr(torch.ops.aten, packet), overload)


def kernel_with(plan: Plan, op: str, *args: Json, **kwargs: Json) -> Kernel:
    kernel = plan.kernels["native"]["b1.eval"]
    return replace(kernel, nodes=(*kernel.nodes, Node("last", op, args, kwargs)))


REF: dict[str, Json] = {"ref": "x"}
ATTENTION = "aten._scaled_dot_product_flash_attention_for_cpu.default"


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "codes"),
    [
        ("aten.gelu.default", [REF], {"approximate": "tanh"}, []),
        ("aten.gelu.default", [REF], {"approximate": "/etc/passwd"}, ["0531"]),
        ("aten.relu.default", ["x"], {}, ["0531"]),
        (
            "aten.full.default",
            [[2], {"float": "inf"}],
            {"dtype": {"dtype": "float32"}, "device": {"device": "plan"}},
            [],
        ),
        ("aten.full.default", [[2], {"code": "x"}], {}, ["0531"]),
        ("aten.full.default", [[2], {"ref": "x", "float": "inf"}], {}, ["0531"]),
        ("aten.full.default", [[{"ref": 3}], 1], {}, ["0531"]),
        (ATTENTION, [REF, REF, REF], {}, []),
        (ATTENTION, [REF, REF, REF, 0.0, True], {}, []),
        (ATTENTION, [REF, REF, REF, 0.1, True], {}, ["0531"]),
        (ATTENTION, [REF, REF, REF], {"dropout_p": REF}, ["0531"]),
        ("aten.bernoulli.default", [REF], {}, ["0530"]),
        ("aten.relu.default", [{"ref": "later"}], {}, ["0532"]),
    ],
)
def test_arguments_are_checked(
    plan: Plan, op: str, args: list[Json], kwargs: dict[str, Any], codes: list[str]
) -> None:
    found = check_kernel(kernel_with(plan, op, *args, **kwargs))
    assert [problem.code for problem in found] == codes


def test_a_misspelt_operator_is_suggested(plan: Plan) -> None:
    (found,) = check_kernel(kernel_with(plan, "aten.mm.defalt", REF, REF))
    assert "did you mean `aten.mm.default`?" in found.notes
