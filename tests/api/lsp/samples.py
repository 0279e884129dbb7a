"""One spec in both spellings, and pieces of each with the cursor, `§`, in them."""

from __future__ import annotations

import re

YAML = """\
name: sample
network:
  inputs: {image: [1, 8, 8]}
  layers:
    - flatten
    - fc1: linear(16)
    - relu
    - out: linear(10)
data: {source: digits}
loss: cross_entropy
decompose:
  blocks: {b1: fc1, head: out}
  links: {"b1->head": gradient, "*": stop}
learn:
  - {blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=1e-3)}
  - {blocks: b1, optimizer: sgd(lr=0.1)}
run: {epochs: 1}
"""

DSL = """\
spec sample
network
  input image: float32[1, 8, 8]
  flatten
  fc1 = linear(16)
  relu
  out = linear(10)
data digits
loss cross_entropy
decompose
  block b1 = fc1
  block head = out
  link b1->head = gradient
  link * = stop
learn *: head linear, loss cross_entropy, optimizer adam(lr=1e-3)
learn b1: optimizer sgd(lr=0.1)
run epochs 1
"""

SAMPLES = {"yaml": YAML, "lpc": DSL}


def with_cursor(spelling: str, before: str, after: str = "") -> str:
    """Return the sample with the cursor between two texts that stand side by side in it."""
    text = SAMPLES[spelling]
    assert text.count(before + after) == 1, f"`{before + after}` is {text.count(before + after)} times in the sample"
    return text.replace(before + after, f"{before}§{after}")


def without(spelling: str, section: str) -> str:
    """Return the sample without the lines of one section."""
    parts = re.split(r"^(?=\w)", SAMPLES[spelling], flags=re.MULTILINE)
    return "".join(part for part in parts if not re.match(rf"{section}\b", part))
