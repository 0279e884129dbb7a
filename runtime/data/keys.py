"""How is randomness in data keyed? Random numbers as a pure function of integers, everywhere the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPLIT_SEED = 0x6C7063
"""Seed of held-out fractions: a test set must not change with `run.seed`."""

ORDER = 0
"""Site of the order of samples; transform number i draws at site i + 1."""


def raw(count: int, seed: int, *key: int) -> NDArray[np.uint64]:
    """Return `count` random 64-bit words.

    Words, because numpy promises the stream of a bit generator for ever, but not that of its distributions.
    """
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=key)
    words: NDArray[np.uint64] = np.random.Philox(sequence).random_raw(count)
    return words


def uniform(shape: tuple[int, ...], seed: int, *key: int) -> NDArray[np.float64]:
    """Return numbers in [0, 1) with 53 random bits each."""
    words = raw(int(np.prod(shape)), seed, *key) >> np.uint64(11)
    return (words.astype(np.float64) * 2.0**-53).reshape(shape)


def permutation(count: int, seed: int, *key: int) -> NDArray[np.int64]:
    """Return a random order of 0..count-1."""
    return np.argsort(raw(count, seed, *key), kind="stable")
