"""Which heads turn a block's output into what its local loss reads? Each with its arguments."""

from __future__ import annotations

from lpc.specs.signatures.signature import Parameter, Signature, vocabulary

_LAYERS = "number of hidden layers"
_BIAS = Parameter("bias", "bool", True, "add a learned bias")
_WIDTH = Parameter("width", "none | size", None, "hidden width; none: that of what they read")

_SCORES = (
    Signature("identity", (), "the block's output itself"),
    Signature(
        "linear",
        (
            _BIAS,
            Parameter(
                "pool",
                "none | 'mean' | 'patches'",
                None,
                "average a map or tokens over their positions first; patches: [patches, groups, c] over patches",
            ),
            Parameter("norm", "none | 'last'", None, "layer norm of the last axis, without scale or shift, first"),
            Parameter("out", "none | size", None, "outputs; none: class scores"),
        ),
        "one linear map to the classes",
    ),
    Signature("gap_linear", (_BIAS,), "mean over all positions, then one linear map"),
    Signature(
        "pool_linear",
        (Parameter("dim", "size", 4096, "largest number of features that the linear map reads"),),
        "average pooling by powers of two until few enough features are left, then a linear map that starts at zero",
    ),
    Signature(
        "mlp",
        (Parameter("layers", "natural", 3, _LAYERS), _WIDTH),
        "hidden layers with batch norm and ReLU, on a map pooled to 2x2, then one linear map",
    ),
    Signature(
        "mlp_sr",
        (
            Parameter("convs", "natural", 3, "number of 1x1 convolutions on the map pooled to a quarter of its side"),
            Parameter("layers", "natural", 3, _LAYERS),
            _WIDTH,
        ),
        "1x1 convolutions with batch norm and ReLU on a pooled map, then `mlp`",
    ),
    Signature(
        "cnn",
        (
            Parameter("layers", "natural", 2, _LAYERS),
            Parameter("channels", "none | size", None, "hidden channels; none: those of the block's output"),
        ),
        "3x3 convolutions with batch norm and ReLU, pooled to 2x2, then one linear map",
    ),
    Signature(
        "convs_fcs",
        (
            Parameter("convs", "natural", 1, "number of 3x3 convolutions"),
            Parameter("fcs", "size", 2, "number of linear layers"),
            Parameter("widen", "positive", 1.0, "factor on the hidden channels and features"),
            Parameter("hidden", "size", 128, "features between linear layers"),
            Parameter("features", "none | size", None, "outputs; none: class scores"),
            Parameter("limit", "none | size", None, "channels from which on they are neither doubled nor strided"),
        ),
        "convolutions with batch norm and ReLU, mean over positions, linear layers with ReLU between",
    ),
    Signature(
        "aug",
        (
            Parameter("depth", "size", 2, "number of copies in the head of the first block"),
            Parameter("pyramid", "share", 0.5, "how far the depth falls towards 1 at the last block; 0: not at all"),
        ),
        "copies of blocks further on, at equal distances, with fresh weights; mean over positions, one linear map",
    ),
    Signature(
        "shared_readout",
        (
            Parameter(
                "weights",
                "'frozen' | 'tied'",
                "frozen",
                "a copy of its first weights, or its present ones, which the output's loss alone trains",
            ),
        ),
        "the network's own last block, in common to all blocks with outputs of its input's shape",
    ),
    Signature(
        "token",
        (Parameter("pool", "'cls' | 'mean'", "cls", "the first token, or the mean of all"),),
        "one token, layer norm, then one linear map",
    ),
    Signature(
        "class_channels",
        (Parameter("classes", "none | size", None, "number of groups; none: that of the loss's classes"),),
        "channels in equal groups, one for each class; a group's mean square is the class's score",
    ),
)

_MAPS = (
    Signature("linear_map", (), "a square linear map of the features, without bias"),
    Signature("conv3x3_map", (), "a 3x3 convolution to as many channels, without bias"),
    Signature("square_map", (), "`conv3x3_map` on maps, `linear_map` on anything else"),
    Signature(
        "nce_maps",
        (Parameter("k", "size", 5, "number of steps ahead"),),
        "for each step ahead a square linear map of the channels, without bias, beside the features themselves",
    ),
    Signature(
        "simclr_mlp",
        (
            Parameter("hidden", "none | size", None, "hidden width; none: the block's channels"),
            Parameter("out", "size", 128, "outputs"),
            Parameter("convs", "natural", 0, "3x3 convolutions with batch norm and ReLU before the pooling"),
        ),
        "mean over positions, then two linear layers with ReLU between",
    ),
    Signature(
        "decoder",
        (
            Parameter("channels", "size", 12, "hidden channels"),
            Parameter("mode", "'bilinear' | 'nearest'", "bilinear", "how the map is enlarged to the image's size"),
        ),
        "the map enlarged to the image's size, 3x3 convolution, batch norm, ReLU, 3x3 convolution to its channels",
    ),
    Signature(
        "transposed_decoder",
        (Parameter("kernel", "size", 3, "side of the kernels, odd"),),
        "transposed convolutions that double the map up to the target's size, with batch norm and ReLU between",
    ),
    Signature(
        "back_map",
        (
            Parameter("activation", "none | 'tanh' | 'relu' | 'sigmoid'", "tanh", "what follows the linear map"),
            Parameter("sign", "bool", False, "whether the map reads signs alone"),
        ),
        "one linear map to the target's shape, and an activation",
    ),
)

HEADS = vocabulary(_SCORES + _MAPS)
