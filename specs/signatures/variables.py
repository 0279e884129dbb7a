"""Which terms say what an auxiliary variable is? Its link, the penalty that ties it, laws of the penalty's weight."""

from __future__ import annotations

from lpc.specs.signatures.signature import Parameter, Signature, vocabulary
from lpc.specs.term import Term

_REDUCTION = Parameter(
    "reduction",
    "'sum' | 'mean' | 'sample'",
    "sum",
    "of the elements: a sample's sum or (`sample`) its mean, in a sum over the batch; or the mean over everything",
)
_WEIGHT = Parameter("weight", "positive | term", 1.0, "factor of the penalty; or a law over time, such as `grow`")

PENALTIES = vocabulary(
    (
        Signature("squared", (_WEIGHT, _REDUCTION), "(h - f)^2, of the variable h and what its block computes, f"),
        Signature(
            "huber",
            (_WEIGHT, _REDUCTION, Parameter("delta", "positive", 1.0, "distance from which it grows linearly")),
            "(h - f)^2 / 2 up to a distance delta, then delta |h - f| - delta^2 / 2",
        ),
    )
)

PENALTY_WEIGHTS = vocabulary(
    (
        Signature(
            "grow",
            (
                Parameter("start", "positive", doc="weight at first"),
                Parameter("add", "rate", 0.0, "what is added each time"),
                Parameter("factor", "positive", 1.0, "by which the sum is then multiplied"),
                Parameter("until", "none | positive", None, "weight from which on it stays; none: it never does"),
                Parameter("unit", "'step' | 'epoch'", "step", "how often"),
            ),
            "w <- (w + add) * factor after every step or epoch",
        ),
    )
)

SPLIT = Signature(
    "split",
    (
        Parameter("beta", "positive", 1.0, "weight of (z - W a - b)^2, of a layer, what it reads, and z after it"),
        Parameter("gamma", "positive", 10.0, "weight of (a - h(z))^2, of z and a around an activation h"),
        Parameter("order", "'forward' | 'backward'", "forward", "layers: the first one first, or the last"),
        Parameter("multiplier", "bool", True, "whether the output's z has one, which grows by beta (z - W a - b)"),
        Parameter("warmup", "natural", 0, "steps before it grows"),
        Parameter("hold", "rate", 0.0, "factor of the squared distances to the values before, weights included"),
        Parameter("init", "'normal' | 'forward'", "normal", "variables at first: standard normal, or a forward pass"),
    ),
    "two variables of every sample at each layer, before and after its activation, solved by formulas like the weights",
)

VARIABLE = Signature(
    "variable",
    (
        Parameter("penalty", "str | term", Term("squared"), "what ties the variable to what its block computes"),
        Parameter("optimizer", "str | term", Term("sgd", (), {"lr": 0.01}), "of the variable"),
        Parameter("steps", "size", 1, "of the optimizer, each time the variable is solved"),
        Parameter(
            "state",
            "'reset' | 'persistent'",
            "reset",
            "what the optimizer remembers: nothing, each time it begins; or all, of each place in the batch",
        ),
        Parameter("sweep", "'backward' | 'jacobi'", "backward", "one after another, the last first, or all at once"),
        Parameter("sweeps", "size", 1, "times that all variables are solved"),
        Parameter("init", "'forward' | 'cache'", "forward", "begin at the forward pass, or where it ended before"),
        Parameter("anchor", "bool", True, "whether the variable's own penalty pulls it"),
        Parameter("refresh", "size", 1, "visits of a sample from one solution to the next, with `init=cache`"),
        Parameter("weights_input", "'variable' | 'forward'", "variable", "what the next block's weights learn from"),
        Parameter("divide_by_weight", "bool", False, "divide the variable's objective by its penalty's weight"),
        Parameter("scale", "positive | term", 1.0, "factor of the variable's objective; or a law over time"),
        Parameter("l1", "rate", 0.0, "weight of the variable's absolute values, reduced as the penalty is"),
        Parameter("buffers", "'once' | 'every'", "once", "when batch-norm statistics move: in a step, or each time"),
    ),
    "an auxiliary variable between two blocks: solved for each batch, then a target for one and an input of the other",
)
