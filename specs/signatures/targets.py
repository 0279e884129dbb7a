"""Which words speak of targets? The link that makes them, and the losses that compare with them."""

from __future__ import annotations

from lpc.specs.signatures.signature import Parameter, Signature, vocabulary

TARGET = Signature(
    "target",
    (
        Parameter("step", "positive", 10.0, "the target is this many gradients away from what the block computes"),
        Parameter(
            "rule",
            "'gradient' | 'natural' | 'difference'",
            "gradient",
            "natural: the gradient times S^-1, S = B G'G; difference: learned inverses carry targets over blocks",
        ),
        Parameter("damping", "rate", 0.1, "of the natural rule: S + damping I"),
        Parameter("range", "none | 'clip'", None, "clip: a target of matching lies in the transfer's range"),
        Parameter("every", "size", 1, "the block's problem has every n-th sample of the batch"),
    ),
    "each block solves a problem of its own towards a target, one gradient step away (LocoProp, Amid et al. 2022)",
)

# Non-decreasing functions, each the gradient of a convex one, by name: what a layer may be followed by.
TRANSFERS: dict[str, str] = {
    "linear": "a",
    "step": "1 where a > 0, else 0",
    "relu": "max(a, 0)",
    "leaky_relu": "a, below 0 times a slope",
    "tanh": "tanh a",
    "sigmoid": "1 / (1 + e^-a)",
    "softmax": "e^a / sum e^a",
    "softplus": "log(1 + e^a)",
    "arctan": "arctan a",
    "elu": "a, below 0 alpha (e^a - 1)",
    "hardtanh": "a between two limits",
    "softsign": "a / (1 + |a|)",
    "squared_relu": "max(a, 0)^2",
}

_CHOICES = " | ".join(f"'{name}'" for name in ("auto", *TRANSFERS))

INVERSE = "inverse"  # the loss by which a block learns to carry targets back over itself

# Losses of a block that a link `target` leaves; they compare with that target and take no head.
TARGET_LOSSES = vocabulary(
    (
        Signature("squared", (), "half the squared distance of pre-activations to the target (LocoProp-S)"),
        Signature(
            "matching",
            (Parameter("transfer", _CHOICES, "auto", "what follows the layer; auto: read off the network"),),
            "the Bregman divergence whose gradient is transfer(a) - target (LocoProp-M)",
        ),
        Signature("distance", (), "the squared distance of what a block hands on to its target, of `rule=difference`"),
    )
)
