"""Where do batches come from? Sources, splits, transforms, and batches in a reproducible order."""

from lpc.runtime.data.batching import batches, epoch_order, num_batches
from lpc.runtime.data.classes import ensure_classes
from lpc.runtime.data.opening import Splits, check_fields, describe, open_data
from lpc.runtime.data.split import Split

__all__ = [
    "Split",
    "Splits",
    "batches",
    "check_fields",
    "describe",
    "ensure_classes",
    "epoch_order",
    "num_batches",
    "open_data",
]
