"""Does tracing freeze chance? Random numbers drawn outside the graph would become silent constants."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def python_state() -> tuple[Any, ...]:
    """Return the state of Python's and NumPy's global generators; it changes when a number is drawn."""
    _, keys, position, *_ = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), position


def every_state() -> tuple[Any, ...]:
    """Return `python_state` and the state of torch's CPU generator."""
    return (*python_state(), torch.get_rng_state().numpy().tobytes())
