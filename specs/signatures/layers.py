"""Which layers can `network.layers` hold? Every operator and structure with its arguments.

Sizes of inputs are inferred; axes count with the batch axis as 0. Every operator also takes `FROM`.
"""

from __future__ import annotations

from lpc.specs.signatures.signature import Parameter, Signature, vocabulary

# Common to all operators, therefore in no signature: what to read instead of the layer before.
FROM = Parameter(
    "from", "none | str | [str]", None, "layer or input names to read instead of the layer before"
)

_SIZE = "size | [size]"
_SPACE = "natural | [natural]"
_AXES = "int | [int]"
_EPS = Parameter("eps", "rate", 1e-5, "added to the variance")
_AFFINE = Parameter("affine", "bool", True, "learn a scale (and a shift) per channel")
_BIAS = Parameter("bias", "bool", True, "add a learned bias")
_KERNEL = Parameter("kernel", _SIZE, doc="window size per spatial axis")
_STRIDE = Parameter("stride", _SIZE, 1, "step of the window")
_POOL_STRIDE = Parameter("stride", f"none | {_SIZE}", None, "step of the window; none: the window's own size")
_PADDING = Parameter("padding", _SPACE, 0, "zeros on both sides")
_DILATION = Parameter("dilation", _SIZE, 1, "spacing of the window's points")
_GROUPS = Parameter("groups", "size", 1, "channel groups that do not mix")
_CEIL = Parameter("ceil", "bool", False, "round the output size up")
_DIM = Parameter("dim", "int", -1, "axis that sums to one")

_WEIGHTED = (
    Signature(
        "linear", (Parameter("out", "size", doc="output features"), _BIAS), "affine map of the last axis"
    ),
    Signature(
        "masked_linear",
        (
            Parameter("out", "size", doc="output features"),
            Parameter("groups", "size", doc="groups of adjacent features, between which no gradient passes"),
            _BIAS,
        ),
        "affine map of the last axis, dense forwards and block-diagonal backwards",
    ),
    Signature(
        "grouped_linear",
        (Parameter("out", "size", doc="output features of each group"), _BIAS),
        "affine map of the last axis, another one for each entry of the axis before: [..., groups, channels]",
    ),
    Signature(
        "conv",
        (
            Parameter("out", "size", doc="output channels"),
            _KERNEL,
            _STRIDE,
            Parameter("padding", f"{_SPACE} | 'same'", 0, "zeros on both sides, or the size kept"),
            _DILATION,
            _GROUPS,
            _BIAS,
        ),
        "convolution in 1, 2 or 3 dimensions, by the rank of its input",
    ),
    Signature(
        "conv_transpose",
        (
            Parameter("out", "size", doc="output channels"),
            _KERNEL,
            _STRIDE,
            _PADDING,
            Parameter("output_padding", _SPACE, 0, "rows added on one side of the output"),
            _DILATION,
            _GROUPS,
            _BIAS,
        ),
        "transposed convolution in 1, 2 or 3 dimensions",
    ),
    Signature(
        "embedding",
        (Parameter("num", "size", doc="number of rows"), Parameter("dim", "size", doc="length of a row")),
        "one learned row per integer",
    ),
    Signature(
        "attention",
        (
            Parameter("heads", "size", doc="number of heads; divides the channels"),
            Parameter("dropout", "share", 0.0, "probability that an attention weight is zeroed"),
            _BIAS,
            Parameter("causal", "bool", False, "no position sees a later one"),
        ),
        "multi-head self-attention over [batch, tokens, channels]",
    ),
)

_POOLING = (
    Signature(
        "max_pool", (_KERNEL, _POOL_STRIDE, _PADDING, _DILATION, _CEIL), "largest value of each window"
    ),
    Signature("avg_pool", (_KERNEL, _POOL_STRIDE, _PADDING, _CEIL), "mean of each window"),
    Signature(
        "adaptive_avg_pool", (Parameter("size", _SIZE, doc="output size"),), "means on a grid of given size"
    ),
    Signature("global_avg_pool", (), "mean over all spatial axes, which vanish: [batch, channels]"),
    Signature(
        "upsample",
        (
            Parameter("scale", "positive", doc="factor on every spatial axis"),
            Parameter(
                "mode", "'nearest' | 'linear'", "nearest", "interpolation; linear in each spatial axis"
            ),
        ),
        "enlarge the spatial axes",
    ),
)

_NORMS = (
    Signature(
        "batch_norm",
        (_EPS, Parameter("momentum", "share", 0.1, "weight of the new statistics"), _AFFINE),
        "normalise each channel over the batch",
    ),
    Signature(
        "layer_norm",
        (Parameter("dims", "size", 1, "number of last axes normalised together"), _EPS, _AFFINE),
        "normalise each sample over its last axes",
    ),
    Signature(
        "group_norm",
        (Parameter("groups", "size", doc="number of groups; divides the channels"), _EPS, _AFFINE),
        "normalise each sample over groups of channels",
    ),
    Signature(
        "instance_norm",
        (_EPS, Parameter("affine", "bool", False, "learn a scale and a shift per channel")),
        "normalise each channel of each sample",
    ),
    Signature(
        "rms_norm",
        (
            Parameter("eps", "none | rate", None, "added to the mean square; none: the dtype's resolution"),
            _AFFINE,
            Parameter("outside", "bool", False, "add eps to the root instead, as Forward-Forward does"),
        ),
        "divide the last axis by its root mean square",
    ),
)

_ACTIVATIONS = (
    Signature(
        "relu",
        (Parameter("backward", "'masked' | 'identity'", "masked", "gradient below 0: none, or passed on"),),
        "max(x, 0)",
    ),
    Signature("leaky_relu", (Parameter("slope", "float", 0.01, "slope below 0"),), "x, or slope * x below 0"),
    Signature("gelu", (Parameter("approximate", "none | 'tanh'", None, "exact, or by tanh"),), "x * Phi(x)"),
    Signature("silu", (), "x * sigmoid(x)"),
    Signature("tanh", (), "hyperbolic tangent"),
    Signature("sigmoid", (), "1 / (1 + exp(-x))"),
    Signature(
        "elu", (Parameter("alpha", "float", 1.0, "limit below 0"),), "x, or alpha * (exp(x) - 1) below 0"
    ),
    Signature("softplus", (Parameter("beta", "positive", 1.0, "sharpness"),), "log(1 + exp(beta * x)) / beta"),
    Signature(
        "hardtanh",
        (
            Parameter("low", "float", -1.0, "smallest output"),
            Parameter("high", "float", 1.0, "largest output"),
        ),
        "x clipped to [low, high]",
    ),
    Signature(
        "sign",
        (Parameter("gradient", "'identity' | 'clip'", "identity", "passed on; or where -1 <= x <= 1 alone"),),
        "1 above 0, else -1, with a straight-through gradient",
    ),
    Signature("softmax", (_DIM,), "exp(x) over its sum along an axis"),
    Signature("log_softmax", (_DIM,), "logarithm of softmax"),
    Signature("identity", (), "x"),
    Signature(
        "dropout", (Parameter("p", "share", 0.5, "probability that a value is zeroed"),), "random zeros"
    ),
)

_SHAPES = (
    Signature(
        "flatten",
        (Parameter("start", "int", 1, "first axis that is merged"),),
        "merge the axes from `start` on",
    ),
    Signature(
        "patches",
        (Parameter("size", _SIZE, doc="height and width of a patch"),),
        "an image as rows of patches: [patches, pixels], in a patch by row, column and channel",
    ),
    Signature(
        "reshape",
        (Parameter("shape", "[int]", doc="per-sample shape, without the batch axis; one -1 is inferred"),),
        "give every sample another shape",
    ),
    Signature(
        "transpose",
        (Parameter("a", "int", 1, "an axis"), Parameter("b", "int", 2, "an axis")),
        "swap two axes",
    ),
    Signature(
        "permute", (Parameter("dims", "[int]", doc="all axes in the new order, 0 first"),), "reorder the axes"
    ),
    Signature(
        "mean",
        (
            Parameter("dim", _AXES, doc="axis or axes that are averaged"),
            Parameter("keep", "bool", False, "keep the axis with length 1"),
        ),
        "mean along axes",
    ),
    Signature(
        "select",
        (Parameter("dim", "int", doc="the axis"), Parameter("index", "int", doc="the position on it")),
        "one slice along an axis",
    ),
)

_MERGES = (
    Signature("add", (), "sum of the layers in `from`"),
    Signature("multiply", (), "product of the layers in `from`"),
    Signature(
        "concat", (Parameter("dim", "int", 1, "axis of joining"),), "the layers in `from` side by side"
    ),
)

LAYERS = vocabulary(_WEIGHTED + _POOLING + _NORMS + _ACTIVATIONS + _SHAPES + _MERGES)

MERGES = tuple(signature.name for signature in _MERGES)

STRUCTURES = vocabulary(
    (
        Signature("residual", (), "input plus the body's output"),
        Signature(
            "repeat", (Parameter("n", "size", doc="number of copies, each with its own parameters"),), "copies"
        ),
        Signature(
            "branch",
            (
                Parameter(
                    "merge", "'concat' | 'add' | 'multiply'", "concat", "how the branches' outputs are joined"
                ),
                Parameter("dim", "int", 1, "axis of joining, for concat"),
            ),
            "several bodies on the same input",
        ),
    )
)
