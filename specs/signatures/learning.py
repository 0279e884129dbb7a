"""Which terms say how a network learns? Blocks, links, schedule laws and optimizers."""

from __future__ import annotations

import json
from typing import Any

from lpc.specs.signatures.signature import REQUIRED, Parameter, Signature, vocabulary
from lpc.specs.signatures.targets import TARGET
from lpc.specs.signatures.variables import SPLIT, VARIABLE
from lpc.specs.texts import shipped_text

BLOCKS = vocabulary(
    (
        Signature(
            "per_layer", (), "a block for each operator with parameters, and the norm or activation after it"
        ),
        Signature(
            "each",
            (Parameter("pattern", "str", doc="glob over module paths"),),
            "a block per matching module",
        ),
        Signature(
            "balanced",
            (
                Parameter("count", "size", doc="number of blocks"),
                Parameter(
                    "by", "'params' | 'flops' | 'memory'", "params", "cost whose largest share is least"
                ),
            ),
            "a given number of blocks of similar cost",
        ),
        Signature(
            "unroll",
            (Parameter("cell", "str", doc="module path of what is called once a time step"),),
            "a block for each call of a module, and for each layer elsewhere; `frames` makes what they read of inputs",
        ),
    )
)

_GLOBS = "str | [str]"
_ADAPTER = (
    Parameter("targets", _GLOBS, doc="module paths of the adapted layers: globs, in a list or joined by `|`"),
    Parameter("rank", "size", 8, "rank of the weight's change"),
    Parameter("alpha", "none | positive", None, "the change is scaled by alpha / rank; none: the rank"),
    Parameter("train", f"none | {_GLOBS}", None, "names of other parameters that are trained too: globs"),
)

ADAPTERS = vocabulary(
    (
        Signature(
            "lora",
            (*_ADAPTER, Parameter("dropout", "share", 0.0, "probability that an input of the adapter is zeroed")),
            "adds (alpha / rank) B A to the weight of linear and convolution layers (Hu et al. 2022)",
        ),
        Signature(
            "lokr",
            (*_ADAPTER, Parameter("factor", "none | size", None, "size of the left factor; none: nearest the square")),
            "adds (alpha / rank) w1 (x) w2, a Kronecker product, to the weight (Yeh et al. 2024)",
        ),
    )
)

LINKS = vocabulary(
    (
        Signature(
            "gradient",
            (
                Parameter("reach", "none | size", None, "boundaries that a loss's gradient crosses at most; none: all"),
                Parameter("only", "'all' | 'furthest'", "all", "furthest: the loss at the largest distance alone"),
            ),
            "backpropagation through the boundary",
        ),
        Signature("stop", (), "no gradient crosses the boundary"),
        Signature(
            "feedback",
            (
                Parameter("law", "'gaussian' | 'uniform'", "gaussian", "of the fixed random projection"),
                Parameter("scale", "positive", 1.0, "deviation of its elements, times the root of the error's size"),
                Parameter("over", "'elements' | 'channels'", "elements", "channels: the same at every position"),
            ),
            "a fixed random projection of the error of the network's output (direct feedback alignment)",
        ),
        TARGET,
        VARIABLE,
        SPLIT,
    )
)

ESTIMATORS = vocabulary(
    (
        Signature("backprop", (), "the exact gradient"),
        Signature(
            "forward",
            (
                Parameter("perturb", "'activity' | 'weight'", "activity", "what noise is added to"),
                Parameter("site", "'output' | 'after_norm'", "output", "after a layer, or after the norm behind it"),
                Parameter("law", "'normal' | 'rademacher'", "normal", "of the noise, with variance 1"),
                Parameter(
                    "noise",
                    "none | 'independent' | 'views' | 'shared'",
                    None,
                    "for each sample (activities), for each sample's views alike, or for all",
                ),
                Parameter("passes", "size", 1, "directions that are averaged"),
                Parameter("norm_gradient", "'exact' | 'ignored'", "exact", "derivative of the norm behind a layer"),
                Parameter("credit", "'unit' | 'reach' | 'all'", "unit", "units whose losses count: own, reached, all"),
            ),
            "a random direction times the derivative along it, by one forward pass (Ren et al. 2023)",
        ),
        Signature(
            "feedback_alignment",
            (
                Parameter(
                    "kind",
                    "'random' | 'usf' | 'brsf' | 'frsf'",
                    "random",
                    "backward weights: fixed random, or the sign of the weights times 1, a fresh or a fixed size",
                ),
                Parameter("scale", "positive", 1.0, "backward weights relative to the size of the weights"),
            ),
            "the exact gradient with other weights on the way back (Lillicrap et al. 2016)",
        ),
    )
)

_FACTOR = "float | 'auto' | term"

CORRECTIONS = vocabulary(
    (
        Signature("none", (), "the local gradient as it is"),
        Signature(
            "bp_offset",
            (
                Parameter("period", "size", 10, "steps from one offset to the next"),
                Parameter("phase", "natural", 0, "step of the first offset"),
                Parameter("batch", "share | size", 0.25, "share of the batch that it is measured on, or samples"),
                Parameter("alpha", _FACTOR, 1.0, "factor on the local gradient; auto: of least squares; or a law"),
                Parameter("scale", _FACTOR, 1.0, "factor on the offset; auto: from successive offsets; or a law"),
                Parameter("decay", "share", 1.0, "factor on the offset for every step of its age"),
                Parameter("where", "'gradient' | 'update'", "gradient", "into the gradient, or after the optimizer"),
                Parameter(
                    "memory",
                    "'micro_batch' | 'recompute' | 'plain'",
                    "micro_batch",
                    "of the backpropagation: in pieces, block by block again from its input, or all at once",
                ),
                Parameter("pieces", "size", 4, "pieces of `micro_batch`"),
            ),
            "a periodic offset from the local gradient to that of backpropagation",
        ),
    )
)

SCHEDULES = vocabulary(
    (
        Signature("constant", (), "factor 1"),
        Signature("linear", (Parameter("floor", "rate", 0.0, "last factor"),), "from 1 to the floor"),
        Signature(
            "cosine",
            (Parameter("floor", "rate", 0.0, "last factor"),),
            "from 1 to the floor by a half cosine",
        ),
        Signature(
            "step",
            (
                Parameter("period", "size", doc="steps or epochs between drops"),
                Parameter("gamma", "rate", 0.1, "factor of a drop"),
            ),
            "drops by a factor",
        ),
        Signature(
            "exponential",
            (Parameter("gamma", "rate", doc="factor per step or epoch"),),
            "gamma to the power t",
        ),
    )
)

SOLVERS = vocabulary(
    (
        Signature("gradient", (), "steps of the optimizer"),
        Signature("exact", (), "the minimiser with `prox`: at once for squared, by Newton's method for matching"),
        Signature("closed_form", (), "what `steps` plain gradient steps would give, by one eigendecomposition"),
        Signature("fixed_point", (), "W = W0 - prox * gradient(W), `steps` times"),
        Signature(
            "cg",
            (Parameter("iterations", "size", doc="of the conjugate gradients"),),
            "conjugate gradients on the equations of `exact`, from W0",
        ),
        Signature(
            "memory",
            (
                Parameter("forget", "share", 0.0, "share that a batch takes of the memory; 0: it is added"),
                Parameter("shrink", "rate", 0.0, "soft threshold of the weights in each sweep"),
                Parameter("sweeps", "size", 1, "over the weights' columns, until they have settled"),
            ),
            "a linear layer's weights from all variables so far, by coordinate descent on their products (AM-mem)",
        ),
        Signature(
            "least_squares",
            (Parameter("hold", "rate", 0.0, "factor of the squared distance to the weights before, beside the sum"),),
            "a linear layer's weights that fit the batch's variables best; of several, the smallest",
        ),
    )
)

# Second names of optimizer arguments: the word of the paper -> the word of torch.
OPTIMIZER_ALIASES: dict[str, dict[str, str]] = {"rmsprop": {"decay": "alpha"}}


# Arguments that torch does not have, and the optimizer's name in plans where one is given.
_FLAVOR = Parameter("flavor", "'torch' | 'tensorflow'", "torch", "tensorflow: s from 1, eps in its root, lr in m")
FLAVORS: dict[str, dict[str, str]] = {"rmsprop": {"torch": "rmsprop", "tensorflow": "rmsprop_tensorflow"}}

KFAC = Signature(
    "kfac",
    (
        Parameter("lr", "rate", 1e-2, "learning rate"),
        Parameter("momentum", "rate", 0.9, "of the preconditioned gradients"),
        Parameter("damping", "positive", 1e-2, "lambda, shared between the two factors of a layer by their traces"),
        Parameter("decay", "share", 0.95, "of the factors: at most this share of the old ones is kept at each step"),
        Parameter("interval", "size", 10, "steps from one inversion of the factors to the next"),
        Parameter("trust", "none | positive", 1e-3, "most of lr^2 times gradient times step, in each layer"),
        Parameter("weight_decay", "rate", 0.0, "times the weights, added to the gradient"),
    ),
    "gradients times the inverse of a Kronecker-factored Fisher matrix (Martens and Grosse 2015)",
)

# Optimizers that are lpc's own, by their names in plans, with the options that they take.
OWN_OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "rmsprop_tensorflow": ("lr", "alpha", "eps", "momentum", "weight_decay"),
    "kfac": tuple(parameter.name for parameter in KFAC.parameters),
}

# Of these, those that need Kronecker factors beside gradients.
BY_FACTORS = frozenset({KFAC.name})

# Optimizer arguments that make no sense below 0.
NOT_NEGATIVE = frozenset({"lr", "weight_decay", "momentum", "eps", "lr_decay", "lambd", "initial_accumulator_value"})


OTHER_OPTIMIZER = Signature(
    "module",
    (Parameter("path", "str", doc="`package:Class`, such as `pytorch_optimizer:LARS`"),),
    "a subclass of torch.optim.Optimizer, with its own arguments by name",
    open=True,
)


def _optimizer(name: str, arguments: list[dict[str, Any]], doc: str) -> Signature:
    parameters = [
        Parameter(a["name"], _type(a["name"], a["type"]), a.get("default", REQUIRED), f"as in torch.optim.{doc}")
        for a in arguments
    ]
    for alias, word in OPTIMIZER_ALIASES.get(name, {}).items():
        kind = next(p.type for p in parameters if p.name == word)
        parameters.append(Parameter(alias, f"none | {kind}", None, f"another name of `{word}`"))
    parameters += [_FLAVOR] if name in FLAVORS else []
    return Signature(name, tuple(parameters), f"torch.optim.{doc}")


def _type(argument: str, kind: str) -> str:
    return "rate" if kind == "float" and argument in NOT_NEGATIVE else kind


def _optimizers() -> dict[str, Signature]:
    table = json.loads(shipped_text("lpc.specs", "tables/optimizers.json"))
    entries = table["optimizers"].items()
    of_torch = [_optimizer(name, entry["arguments"], entry["class"]) for name, entry in entries]
    return vocabulary([*of_torch, KFAC, OTHER_OPTIMIZER])


OPTIMIZERS = _optimizers()
