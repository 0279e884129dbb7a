"""Which words does the language know? One vocabulary per place where a term may stand."""

from __future__ import annotations

from lpc.specs.signatures.data import (
    CONTRASTS,
    INITS,
    METRICS,
    OVERLAYS,
    PERIODS,
    PREDICTORS,
    SOURCES,
    STOPS,
    TRANSFORMS,
    ZOO,
)
from lpc.specs.signatures.heads import HEADS
from lpc.specs.signatures.layers import FROM, LAYERS, MERGES, STRUCTURES
from lpc.specs.signatures.learning import (
    ADAPTERS,
    BLOCKS,
    CORRECTIONS,
    ESTIMATORS,
    LINKS,
    OPTIMIZER_ALIASES,
    OPTIMIZERS,
    OTHER_OPTIMIZER,
    SCHEDULES,
)
from lpc.specs.signatures.losses import LOSSES, WEIGHTS
from lpc.specs.signatures.signature import REQUIRED, Parameter, Signature, Vocabulary

VOCABULARIES: dict[str, Vocabulary] = {
    "layer": LAYERS,
    "structure": STRUCTURES,
    "network": ZOO,
    "adapter": ADAPTERS,
    "init law": INITS,
    "data source": SOURCES,
    "transform": TRANSFORMS,
    "contrast": CONTRASTS,
    "overlay": OVERLAYS,
    "predictor": PREDICTORS,
    "block rule": BLOCKS,
    "link": LINKS,
    "head": HEADS,
    "loss": LOSSES,
    "correction": CORRECTIONS,
    "estimator": ESTIMATORS,
    "loss weight": WEIGHTS,
    "optimizer": OPTIMIZERS,
    "schedule law": SCHEDULES,
    "period": PERIODS,
    "early stop": STOPS,
    "metric": METRICS,
}

__all__ = [
    "ADAPTERS",
    "BLOCKS",
    "CONTRASTS",
    "CORRECTIONS",
    "ESTIMATORS",
    "FROM",
    "HEADS",
    "INITS",
    "LAYERS",
    "LINKS",
    "LOSSES",
    "MERGES",
    "METRICS",
    "OPTIMIZERS",
    "OPTIMIZER_ALIASES",
    "OTHER_OPTIMIZER",
    "OVERLAYS",
    "PERIODS",
    "PREDICTORS",
    "REQUIRED",
    "SCHEDULES",
    "SOURCES",
    "STOPS",
    "STRUCTURES",
    "TRANSFORMS",
    "VOCABULARIES",
    "WEIGHTS",
    "ZOO",
    "Parameter",
    "Signature",
    "Vocabulary",
]
