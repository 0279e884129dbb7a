"""What do mistakes in cutting a network into blocks look like? 03xx."""

from __future__ import annotations

from lpc.specs.examples.example import PARTITION, Example

_DEEP = "network: {inputs: {image: [64]}, layers: [fc1: linear(8), fc2: linear(8), fc3: linear(8), out: linear(10)]}\n"
_TIED = """\
from torch import nn


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.b.weight = self.a.weight

    def forward(self, image):
        return self.b(self.a(image.flatten(1)))
"""
_MODULE = 'network: {module: "nets:Tied", inputs: {image: [1, 8, 8]}}\n'

PARTITIONS: dict[str, Example] = {
    "0301": Example(
        "A selector of a block is a module path or a pattern, and the network has no such module.",
        "decompose: {blocks: {b1: fc, head: out}}",
        "decompose: {blocks: {b1: fc1, head: out}}",
        PARTITION,
    ),
    "0302": Example(
        "What a pattern matches is in another block already.",
        'decompose: {blocks: {b1: fc1, head: [out, "f*"]}}',
        'decompose: {blocks: {b1: "f*", head: out}}',
        PARTITION,
    ),
    "0303": Example(
        "Parameters outside all blocks would never be trained.",
        "decompose: {blocks: {b1: fc1}}",
        "decompose: {blocks: {b1: fc1, head: out}}",
        PARTITION,
    ),
    "0304": Example(
        "A block needs the output of another that needs its own: neither can go first.",
        f"{_DEEP}decompose: {{blocks: {{b1: [fc1, fc3], b2: fc2, head: out}}}}",
        f"{_DEEP}decompose: {{blocks: {{b1: [fc1, fc2], b2: fc3, head: out}}}}",
        PARTITION,
    ),
    "0305": Example(
        "One parameter belongs to two blocks, and the spec does not say which of them trains it.",
        f"{_MODULE}decompose: {{blocks: {{b1: a, head: b}}}}",
        f"{_MODULE}decompose: {{blocks: {{b1: a, head: b}}, shared: sum}}",
        PARTITION,
        _TIED,
    ),
    "0306": Example(
        "The network cannot be cut between any two operators: more blocks are asked for than there are places to cut.",
        "decompose: {blocks: balanced(count=30)}",
        "decompose: {blocks: balanced(count=2)}",
        PARTITION,
    ),
    "0307": Example(
        "Under the name `*` stands a rule that names its blocks itself; other names hold modules.",
        'decompose: {blocks: {"*": fc1, head: out}}',
        'decompose: {blocks: {"*": each("fc*"), head: out}}',
        PARTITION,
    ),
    "0308": Example(
        "`per_layer` makes a block of each operator with parameters, and there is none.",
        "network: {inputs: {image: [10]}, layers: [relu]}\ndecompose: {blocks: per_layer}",
        "network: {inputs: {image: [10]}, layers: [linear(10)]}\ndecompose: {blocks: per_layer}",
        PARTITION,
    ),
    "0309": Example(
        "A link belongs to a boundary, and no tensor goes from the first block to the second.",
        'decompose: {blocks: {b1: fc1, head: out}, links: {"head->b1": stop, "*": stop}}',
        'decompose: {blocks: {b1: fc1, head: out}, links: {"b1->head": stop, "*": stop}}',
        PARTITION,
    ),
}
