"""What has the spec decided? The nodes it gives to blocks, before anything is filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["producer", "consumer"]


@dataclass(frozen=True)
class Assignment:
    """Blocks by name, and the tensor roots (site indices) that are certain to be in them.

    Undecided nodes join the block of their latest `producer`, or of their first `consumer`. With `covers`,
    undecided nodes may hold no parameters: the spec must say where every parameter learns.
    """

    blocks: tuple[str, ...]
    fixed: dict[int, str]
    toward: Direction = "producer"
    covers: bool = False
