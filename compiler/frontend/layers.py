"""Which module does a layer of the spec stand for? One builder per name of `specs.signatures.LAYERS`.

A builder takes the layer's inputs as fake tensors and its arguments, infers the sizes and returns a module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lpc.compiler.frontend import modules

Size: TypeAlias = "int | list[int]"
Arguments: TypeAlias = Mapping[str, Any]
Builder: TypeAlias = Callable[[Sequence[Tensor], Arguments], nn.Module]


class MisfitError(ValueError):
    """A layer cannot take its input: the text says what it expects."""


def channels(x: Tensor, axis: int = 1) -> int:
    """Return the length of an axis that a layer needs to know at build time."""
    if x.dim() <= axis or x.dim() < -axis or (axis < 0 and x.dim() < 2):
        raise MisfitError("it needs at least one axis besides the batch")
    size = x.shape[axis]
    if not isinstance(size, int):
        raise MisfitError(
            f"the length of axis {axis % x.dim()} must be a number, since the layer's weights depend on it"
        )
    return size


def spatial(x: Tensor) -> int:
    """Return the number of spatial axes of [batch, channels, ...]."""
    rank = x.dim() - 2
    if rank not in (1, 2, 3):
        raise MisfitError(
            "it expects [channels, length], [channels, height, width] or [channels, depth, height, width]"
        )
    return rank


def of_rank(*classes: type[nn.Module]) -> Callable[[Tensor], type[nn.Module]]:
    """Choose among the one-, two- and three-dimensional class of a layer."""
    return lambda x: classes[spatial(x) - 1]


CONV = of_rank(nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONV_TRANSPOSE = of_rank(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MAX_POOL = of_rank(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVG_POOL = of_rank(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE_AVG_POOL = of_rank(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
INSTANCE_NORM = of_rank(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
INTERPOLATIONS = {"nearest": ("nearest",) * 3, "linear": ("linear", "bilinear", "trilinear")}


def sized(value: Any, rank: int) -> Any:
    """Return a size argument as torch takes it: a number, or one number per spatial axis."""
    if not isinstance(value, list):
        return value
    if len(value) != rank:
        raise MisfitError(f"{value} has {len(value)} sizes, its input has {rank} spatial axes")
    return tuple(value)


def plain_axis(x: Tensor, axis: int) -> int:
    """Return an axis counted from 0; it must exist and not be the batch."""
    if not -x.dim() <= axis < x.dim():
        raise MisfitError(f"there is no axis {axis}: its input has the axes 0 (batch) to {x.dim() - 1}")
    if axis % x.dim() == 0:
        raise MisfitError(f"axis {axis} is the batch")
    return axis % x.dim()


def linear(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    return nn.Linear(channels(xs[0], -1), a["out"], bias=a["bias"])


def masked_linear(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    width = channels(xs[0], -1)
    for size, what in ((width, "input"), (a["out"], "output")):
        if size % a["groups"]:
            raise MisfitError(f"{size} {what} features cannot be divided into {a['groups']} groups")
    return modules.MaskedLinear(width, a["out"], a["groups"], a["bias"])


def grouped_linear(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    if xs[0].dim() < 3:
        raise MisfitError("it expects [..., groups, channels]")
    return modules.GroupedLinear(channels(xs[0], -2), channels(xs[0], -1), a["out"], a["bias"])


def patches(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    if xs[0].dim() != 4:
        raise MisfitError("it expects [channels, height, width]")
    height, width = sized(a["size"], 2) if isinstance(a["size"], list) else (a["size"], a["size"])
    for size, axis, what in ((height, 2, "rows"), (width, 3, "columns")):
        if channels(xs[0], axis) % size:
            raise MisfitError(f"{xs[0].shape[axis]} {what} cannot be cut into patches of {size}")
    return modules.Patches((height, width))


def conv(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    sizes = {n: sized(a[n], spatial(xs[0])) for n in ("kernel", "stride", "padding", "dilation")}
    kernel = sizes.pop("kernel")
    return CONV(xs[0])(channels(xs[0]), a["out"], kernel, **sizes, groups=a["groups"], bias=a["bias"])


def conv_transpose(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    names = ("kernel", "stride", "padding", "output_padding", "dilation")
    sizes = {n: sized(a[n], spatial(xs[0])) for n in names}
    kernel = sizes.pop("kernel")
    return CONV_TRANSPOSE(xs[0])(channels(xs[0]), a["out"], kernel, **sizes, groups=a["groups"], bias=a["bias"])


def embedding(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    if xs[0].dtype not in (torch.int64, torch.int32):
        raise MisfitError("it expects integers: declare its input as {shape: [...], dtype: int64}")
    return nn.Embedding(a["num"], a["dim"])


def attention(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    if xs[0].dim() != 3:
        raise MisfitError("it expects [tokens, channels]")
    width = channels(xs[0], -1)
    if width % a["heads"]:
        raise MisfitError(f"{width} channels cannot be divided among {a['heads']} heads")
    return modules.SelfAttention(width, a["heads"], a["dropout"], a["bias"], a["causal"])


def max_pool(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    rank = spatial(xs[0])
    kernel, stride, padding, dilation = (sized(a[n], rank) for n in ("kernel", "stride", "padding", "dilation"))
    return MAX_POOL(xs[0])(kernel, stride, padding, dilation, ceil_mode=a["ceil"])


def avg_pool(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    kernel, stride, padding = (sized(a[n], spatial(xs[0])) for n in ("kernel", "stride", "padding"))
    return AVG_POOL(xs[0])(kernel, stride, padding, ceil_mode=a["ceil"])


def adaptive_avg_pool(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    return ADAPTIVE_AVG_POOL(xs[0])(sized(a["size"], spatial(xs[0])))


def global_avg_pool(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    return modules.Mean(tuple(range(2, 2 + spatial(xs[0]))))


def upsample(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    return nn.Upsample(scale_factor=a["scale"], mode=INTERPOLATIONS[a["mode"]][spatial(xs[0]) - 1])


def batch_norm(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    classes = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    width = channels(xs[0])
    if xs[0].dim() not in classes:
        raise MisfitError("it expects [channels] with at most three spatial axes")
    return classes[xs[0].dim()](width, eps=a["eps"], momentum=a["momentum"], affine=a["affine"])


def layer_norm(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    if not 0 < a["dims"] < xs[0].dim():
        raise MisfitError(f"it normalises {a['dims']} axes, its input has {xs[0].dim() - 1}")
    shape = [channels(xs[0], axis) for axis in range(-a["dims"], 0)]
    return nn.LayerNorm(shape, eps=a["eps"], elementwise_affine=a["affine"])


def group_norm(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    width = channels(xs[0])
    if width % a["groups"]:
        raise MisfitError(f"{width} channels cannot be divided into {a['groups']} groups")
    return nn.GroupNorm(a["groups"], width, eps=a["eps"], affine=a["affine"])


def instance_norm(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    return INSTANCE_NORM(xs[0])(channels(xs[0]), eps=a["eps"], affine=a["affine"])


def rms_norm(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    # Written down now: a number that torch took from the dtype would be another one where the plan is read in float64.
    eps = torch.finfo(xs[0].dtype).eps if a["eps"] is None else a["eps"]
    if a["outside"]:
        return modules.OuterRMSNorm(channels(xs[0], -1), eps, a["affine"])
    return nn.RMSNorm(channels(xs[0], -1), eps=eps, elementwise_affine=a["affine"])


def flatten(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    if xs[0].dim() == 1:
        raise MisfitError("a single number per sample has no axis to flatten")
    return nn.Flatten(plain_axis(xs[0], a["start"]))


def reshape(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    return modules.Reshape(a["shape"])


def transpose(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    return modules.Transpose(plain_axis(xs[0], a["a"]), plain_axis(xs[0], a["b"]))


def permute(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    axes = list(range(xs[0].dim()))
    if sorted(a["dims"]) != axes or a["dims"][0] != 0:
        raise MisfitError(f"`dims` must hold each of the axes {axes} once, the batch (0) first")
    return modules.Permute(a["dims"])


def mean(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    dims = a["dim"] if isinstance(a["dim"], list) else [a["dim"]]
    return modules.Mean([plain_axis(xs[0], dim) for dim in dims], a["keep"])


def select(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    return modules.Select(plain_axis(xs[0], a["dim"]), a["index"])


def softmax(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    plain_axis(xs[0], a["dim"])
    return nn.Softmax(a["dim"])


def log_softmax(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    plain_axis(xs[0], a["dim"])
    return nn.LogSoftmax(a["dim"])


def add(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    same_shapes(xs, None)
    return modules.Add()


def multiply(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    same_shapes(xs, None)
    return modules.Multiply()


def concat(xs: Sequence[Tensor], a: Arguments) -> nn.Module:
    same_shapes(xs, plain_axis(xs[0], a["dim"]))
    return modules.Concat(a["dim"])


def same_shapes(xs: Sequence[Tensor], free: int | None) -> None:
    """Check that all inputs have one shape, the axis `free` aside."""
    kept = [tuple(size for axis, size in enumerate(x.shape) if axis != free) for x in xs]
    if any(x.dim() != xs[0].dim() for x in xs) or any(shape != kept[0] for shape in kept):
        aside = "" if free is None else f", axis {free} aside"
        raise MisfitError(f"all its inputs must have one shape{aside}")


def elementwise(make: Callable[..., nn.Module], **names: str) -> Builder:
    """Build a layer that needs nothing of its input; `names` maps torch's arguments to the language's."""
    return lambda xs, a: make(**{theirs: a[ours] for theirs, ours in names.items()})


BUILDERS: dict[str, Builder] = {
    "linear": linear,
    "masked_linear": masked_linear,
    "grouped_linear": grouped_linear,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "embedding": embedding,
    "attention": attention,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "adaptive_avg_pool": adaptive_avg_pool,
    "global_avg_pool": global_avg_pool,
    "upsample": upsample,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "rms_norm": rms_norm,
    "relu": lambda xs, a: modules.StraightThroughReLU() if a["backward"] == "identity" else nn.ReLU(),
    "sign": lambda xs, a: modules.StraightThroughSign(a["gradient"] == "clip"),
    "leaky_relu": elementwise(nn.LeakyReLU, negative_slope="slope"),
    "gelu": lambda xs, a: nn.GELU(approximate=a["approximate"] or "none"),
    "silu": elementwise(nn.SiLU),
    "tanh": elementwise(nn.Tanh),
    "sigmoid": elementwise(nn.Sigmoid),
    "elu": elementwise(nn.ELU, alpha="alpha"),
    "softplus": elementwise(nn.Softplus, beta="beta"),
    "hardtanh": elementwise(nn.Hardtanh, min_val="low", max_val="high"),
    "softmax": softmax,
    "log_softmax": log_softmax,
    "identity": elementwise(nn.Identity),
    "dropout": elementwise(nn.Dropout, p="p"),
    "flatten": flatten,
    "patches": patches,
    "reshape": reshape,
    "transpose": transpose,
    "permute": permute,
    "mean": mean,
    "select": select,
    "add": add,
    "multiply": multiply,
    "concat": concat,
}
