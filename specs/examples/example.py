"""What is an example of a mistake? What the code means, a wrong and a right way to write it, and who finds it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from lpc.specs.spelling import begins_as_dsl

BASE = {
    "network": "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu, out: linear(10)]}\n",
    "data": "data: {source: digits}\n",
    "loss": "loss: cross_entropy\n",
    "decompose": "decompose: {blocks: {b1: fc1, head: out}, links: stop}\n",
    "learn": 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=1e-3)}]\n',
    "run": "run: {epochs: 1}\n",
}


class By(Enum):
    """What finds the mistake, and accepts its mending."""

    CHECK = "reading and checking a spec"
    NETWORK = "making and tracing the network of a spec"
    PARTITION = "cutting the network of a spec into blocks"
    BUILD = "building a spec"
    DATA = "opening the data of a spec"
    PLAN = "verifying the instructions of a plan"
    PYTHON = "Python, with a trainer and a batch"
    COMMAND = "the command, beside a spec and its plan"
    SHOWN = "what an example cannot hold, such as a damaged file"


CHECK: Final = By.CHECK
NETWORK: Final = By.NETWORK
PARTITION: Final = By.PARTITION
BUILD: Final = By.BUILD
DATA: Final = By.DATA
PLAN: Final = By.PLAN
PYTHON: Final = By.PYTHON
COMMAND: Final = By.COMMAND
SHOWN: Final = By.SHOWN


@dataclass(frozen=True)
class Example:
    """The meaning of a code, the mistake and its mending; `python` is what they find in a file `nets.py`.

    An example of a spec is some of its sections; with those of `BASE` that it leaves out it is a whole one.
    """

    meaning: str
    bad: str
    good: str
    by: By = CHECK
    python: str = ""


def whole(example: str) -> str:
    """Return an example's sections with those of `BASE` that it does not have; one in the DSL is whole already."""
    if begins_as_dsl(example):
        return example + "\n"
    own = set(re.findall(r"^(\w+):", example, re.MULTILINE))
    return "".join(text for key, text in BASE.items() if key not in own) + example + "\n"
