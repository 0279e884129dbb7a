"""Which operators of this torch may a kernel use? `python -m lpc.compiler.operator_table` writes the list.

An overload is listed when its schema takes tensors, numbers, booleans, dtypes, layouts, devices and memory
formats only, returns tensors or numbers, writes to nothing, and neither reads files nor draws random numbers.
Strings are allowed from closed sets only. Randomness is a kernel's input, so dropout inside attention is
pinned to zero.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

TABLE = Path(__file__).parents[1] / "specs" / "tables" / "operators.json"

_SCALARS = ("Tensor", "int", "bool", "float", "number")
_ARGUMENTS = frozenset(
    [*_SCALARS, "Device", "str", "List[Optional[Tensor]]"]
    + [f"List[{kind}]" for kind in _SCALARS]
    + [f"Optional[{kind}]" for kind in (*_SCALARS, "Device", "str", "List[int]", "List[float]")]
)
_RETURNS = frozenset([*_SCALARS, "Optional[Tensor]", "List[Tensor]"])

# The closed sets that an argument's string may come from, by the argument's name.
STRINGS: dict[str, tuple[str, ...]] = {
    "approximate": ("none", "tanh"),
    "rounding_mode": ("floor", "trunc"),
    "reduce": ("add", "amax", "amin", "max", "mean", "min", "multiply", "prod", "sum"),
    "padding": ("same", "valid"),
    "mode": ("circular", "complete", "constant", "r", "reduced", "reflect", "replicate"),
    "padding_side": ("left", "right"),
    "side": ("left", "right"),
    "indexing": ("ij", "xy"),
    "interpolation": ("higher", "linear", "lower", "midpoint", "nearest"),
    "norm": ("backward", "forward", "ortho"),
    "ord": ("fro", "nuc"),
    "UPLO": ("L", "U"),
}

# Operators that return a view although their schemas do not say so.
UNDECLARED_VIEWS = frozenset({"aten._unsafe_view.default"})

# Families that a captured kernel never needs, and whose kernels trust their arguments or reach beyond them.
EXCLUDED = re.compile(
    "|".join(
        [
            "_test_.*|_foreach_.*|_amp_.*|_debug_.*|_autocast_.*|_efficientzerotensor",
            ".*(sparse|csr|csc|bsr|bsc|coo|cslt|ccol|crow|coalesce|spdiags|spsolve|sspaddmm|hspmm|smm).*",
            "_?(indices|values|col_indices|row_indices|dimI|dimV|nnz|dense_dim)(_copy)?",
            ".*(nested|jagged|padded_tensor|pad_packed|pack_padded|packed_sequence).*",
            ".*(quantize|quantized|qparams|fbgemm|int_repr|prepack|int4|int8|dyn_quant|_wrapped).*|q_.*",
            ".*(mkldnn|miopen|_mps|mps_|vulkan|xnnpack|nnpack|triton|cufft).*",
            "_?(cudnn_rnn.*|rnn_.*|lstm.*|gru.*|thnn_fused.*|thnn_differentiable.*|use_cudnn.*)",
            "(?!native_dropout_backward).*dropout.*",
            "from_file|data|set|resize.*|_resize_.*|pin_memory|_pin_memory|is_.*|output_nr|retains_grad|_version",
            "_copy_from.*|_fw_primal.*|_make_dual.*|_unpack_dual|_has_.*|_lazy_clone|_reshape_alias|_to_cpu",
            "_add_batch_dim|_remove_batch_dim|_foobar|_fused_(adagrad|adam|adamw|sgd)|.*segment_reduce.*|_is_.*",
            "_fused_sdp_choice|_cast_.*|result_type|promote_types|can_cast|get_device|_propagate_.*|_async_error",
            "_transformer_.*|_native_multi_head_.*|_transform_bias.*|_functional_assert.*|_functional_sym.*",
            "rand.*|_philox_.*|.*_standard_gamma.*|_sample_.*|_sobol.*|bernoulli|multinomial|normal|poisson|rrelu.*",
        ]
    )
)


def overloads() -> dict[str, dict[str, Any]]:
    """Return every allowed overload with its limits, sorted by name."""
    schemas = (s for s in torch._C._jit_get_all_schemas() if s.name.startswith("aten::"))
    allowed = {_name(schema): _limits(schema) for schema in schemas if is_admissible(schema)}
    return dict(sorted(allowed.items()))


def is_admissible(schema: Any) -> bool:
    """Tell whether an operator's schema keeps the rules in this module's docstring."""
    if schema.is_mutable or not schema.returns or EXCLUDED.fullmatch(schema.name.removeprefix("aten::")):
        return False
    values = [*schema.arguments, *schema.returns]
    if not any("Tensor" in str(value.type) for value in values):
        return False
    if any(str(value.type) not in _RETURNS for value in schema.returns):
        return False
    if any(str(argument.type) not in _ARGUMENTS for argument in schema.arguments):
        return False
    if any("str" in str(argument.type) and argument.name not in STRINGS for argument in schema.arguments):
        return False
    return _is_dispatched(schema) and not _draws(schema)


def _name(schema: Any) -> str:
    return f"aten.{schema.name.removeprefix('aten::')}.{schema.overload_name or 'default'}"


def _is_dispatched(schema: Any) -> bool:
    """TorchScript has functions of its own in the same namespace, which the dispatcher does not know."""
    suffix = f".{schema.overload_name}" if schema.overload_name else ""
    return bool(torch._C._dispatch_has_kernel(schema.name + suffix))


def _draws(schema: Any) -> bool:
    """Tell whether the operator draws random numbers; attention with its dropout pinned to zero does not."""
    packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::"))
    seeded = torch.Tag.nondeterministic_seeded in getattr(packet, schema.overload_name or "default").tags
    return seeded and not any(argument.name == "dropout_p" for argument in schema.arguments)


def _limits(schema: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    strings = {word for a in schema.arguments if "str" in str(a.type) for word in STRINGS[a.name]}
    if strings:
        found["strings"] = sorted(strings)
    for position, argument in enumerate(schema.arguments):
        if argument.name == "dropout_p":
            found["pinned"] = {"dropout_p": [position, 0.0]}
    if _name(schema) in UNDECLARED_VIEWS or any(_is_alias(value) for value in schema.returns):
        found["view"] = True
    return found


def _is_alias(value: Any) -> bool:
    return value.alias_info is not None


def render() -> str:
    """Return the text of tables/operators.json, one overload a line."""
    lines = [f"  {json.dumps(name)}: {json.dumps(limits)}" for name, limits in overloads().items()]
    version = torch.__version__.split("+")[0]
    return f'{{\n "torch": "{version}",\n "overloads": {{\n' + ",\n".join(lines) + "\n }\n}\n"


if __name__ == "__main__":
    TABLE.write_text(render(), encoding="utf-8")
