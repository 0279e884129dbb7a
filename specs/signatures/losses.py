"""Which losses can a block or the output have? Each with its arguments.

A loss with an argument `split` couples the samples of a batch: on parts of a batch it is another loss.
"""

from __future__ import annotations

from lpc.specs.signatures.signature import Parameter, Signature, vocabulary
from lpc.specs.signatures.targets import INVERSE

WEIGHTS = vocabulary(
    (
        Signature(
            "linear",
            (
                Parameter("first", "float", doc="weight at the first block"),
                Parameter("last", "float", doc="weight at the last block but one"),
            ),
            "from the first block to the last but one in equal steps",
        ),
    )
)

_WEIGHT = Parameter("weight", "float | term", 1.0, "factor in the sum of losses; `linear(first, last)` over the blocks")
_TARGET = Parameter("target", "none | str", None, "batch field; none: the only field that is not an input")
_HEAD = Parameter("head", "none | str | term", None, "head of this term alone; none: the block's head")
_SPLIT = Parameter("split", "'refused' | 'allowed'", "refused", "whether a step may compute it on parts of the batch")
_SCALE = Parameter("scale", "float", 1.0, "factor on the prediction before the loss")
_REDUCTION = Parameter(
    "reduction", "'mean' | 'sum' | 'batchmean'", "mean", "batchmean: sum over outputs, mean over the batch"
)
_GOODNESS_OF = Parameter("target", "str", "positive", "batch field that marks the positive samples")
_CHANNELS = "float | [float]"


def _head(default: str) -> Parameter:
    return Parameter("head", "none | str | term", default, "head of this term alone; none: the block's output itself")


def _goodness(goodness: str, threshold: float | str) -> tuple[Parameter, ...]:
    return (
        _WEIGHT,
        _GOODNESS_OF,
        Parameter("goodness", "'sum' | 'mean'", goodness, "of the squared activities of a sample"),
        Parameter("threshold", "float | 'width'", threshold, "goodness of even odds; width: number of activities"),
    )


_OUTPUTS = (
    Signature(
        "cross_entropy",
        (
            _WEIGHT,
            _TARGET,
            Parameter("reduction", "'mean' | 'sum'", "mean", "over all rows that count"),
            Parameter("ignore_index", "int", -100, "class index that does not count"),
            Parameter("shift", "natural", 0, "1: position t predicts the token at t + 1"),
            Parameter("label_smoothing", "share", 0.0, "share of the target spread over all classes"),
            _SCALE,
            _HEAD,
        ),
        "softmax cross-entropy against class indices",
    ),
    Signature(
        "hinge",
        (_WEIGHT, _TARGET, _REDUCTION, _SCALE, _HEAD),
        "of each class score z: max(1 - z, 0) where it is the target's, max(z, 0) elsewhere",
    ),
    Signature("mse", (_WEIGHT, _TARGET, _REDUCTION, _SCALE, _HEAD), "squared error"),
    Signature(
        "binary_cross_entropy",
        (
            _WEIGHT,
            _TARGET,
            _REDUCTION,
            Parameter("logits", "bool", True, "the prediction is before the sigmoid"),
            _SCALE,
            _HEAD,
        ),
        "cross-entropy of independent bits",
    ),
)

_GOODNESS = (
    Signature("ff_bce", _goodness("sum", "width"), "cross-entropy of `goodness - threshold` as log-odds of `positive`"),
    Signature("ff_softplus", _goodness("mean", 2.0), "softplus of the goodness missing, or in excess"),
    Signature(
        "peer",
        (
            Parameter("weight", "float | term", 0.03, "factor in the sum of losses"),
            _GOODNESS_OF,
            Parameter("momentum", "share", 0.9, "weight of the running mean against the batch's"),
            Parameter("init", "float", 0.5, "running mean at the start"),
            _SPLIT,
        ),
        "variance over units of their mean activity on positive samples",
    ),
    Signature(
        "cwc",
        (
            _WEIGHT,
            _TARGET,
            _head("class_channels"),
            Parameter("eps", "rate", 0.0, "added to both exponentials' sums, with scores clipped to 50; 0: neither"),
        ),
        "softmax cross-entropy on the energies of channel groups",
    ),
)

_SIMILARITY = (
    Signature("sim", (_WEIGHT, _TARGET, _head("square_map"), _SPLIT), "similarities of samples against their labels'"),
    Signature("sim_x", (_WEIGHT, _head("square_map"), _SPLIT), "similarities of samples against their inputs'"),
)

_RECONSTRUCTION = (
    Signature(
        "recon",
        (
            _WEIGHT,
            Parameter("target", "none | str", None, "batch field; none: the network's first input"),
            _head("decoder"),
            Parameter("distance", "'bce' | 'mse'", "bce", "cross-entropy with the image in [0, 1], or squared error"),
            Parameter("mean", _CHANNELS, 0.0, "what the data's normalize subtracted, so that it can be undone"),
            Parameter("std", _CHANNELS, 1.0, "what the data's normalize divided by"),
        ),
        "the decoded image against the network's input image",
    ),
    Signature(
        "recon_input",
        (_WEIGHT, _head("transposed_decoder")),
        "what the block's output tells of the block's own input",
    ),
    Signature(
        INVERSE,
        (
            _WEIGHT,
            _head("back_map"),
            Parameter("noise", "rate", 0.5, "deviation of the noise that is added to the block's input first"),
        ),
        "how well a head takes what the block computes back to the block's input; the head alone learns from it",
    ),
)

_CONTRASTIVE = (
    Signature(
        "infonce",
        (
            _WEIGHT,
            _head("nce_maps"),
            Parameter("negatives", "size", 16, "drawn for each positive, with replacement"),
            Parameter("skip", "natural", 0, "rows left out between a row and the first that it predicts"),
            Parameter("eps", "rate", 0.0, "added to the softmax before its logarithm"),
            Parameter("within", "'batch' | 'sample'", "batch", "where negatives come from"),
            _SPLIT,
        ),
        "a position against others as continuation k steps on, along the rows of a map or along tokens",
    ),
    Signature(
        "nt_xent",
        (
            _WEIGHT,
            _HEAD,
            Parameter("temperature", "positive", 0.1, "divides cosines"),
            Parameter("keys", "'live' | 'detached'", "live", "detached: what a view is compared with has no gradient"),
            Parameter("reduction", "'mean' | 'sum' | 'pairs'", "mean", "over views; pairs: their sum over the samples"),
            _SPLIT,
        ),
        "a view against all others in the batch; the second half of a batch holds the first half's other views",
    ),
    Signature(
        "supcon",
        (
            _WEIGHT,
            _TARGET,
            _HEAD,
            Parameter("temperature", "positive", 0.07, "divides cosines"),
            Parameter("base_temperature", "positive", 0.07, "divides the loss times the temperature"),
            _SPLIT,
        ),
        "samples of one class against all others in the batch",
    ),
)

_VARIABLES = (
    Signature(
        "consistency",
        (
            Parameter("weight", "none | positive", None, "of the penalty, for the weights alone; none: the link's"),
            Parameter("l1", "rate", 0.0, "weight of the absolute values of the block's matrices and kernels"),
        ),
        "the penalty between what the block computes and the auxiliary variable that stands for it",
    ),
)

LOSSES = vocabulary(_OUTPUTS + _GOODNESS + _SIMILARITY + _RECONSTRUCTION + _CONTRASTIVE + _VARIABLES)
