"""What is alive? Storages with their users, the most bytes that lived at once, and what they were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GRADIENTS = "gradients"
TEMPORARY = "temporary"  # the role of what a kernel makes and does not return


@dataclass(eq=False, slots=True)
class Storage:
    """The memory of one tensor and of its views. `role` is that of the kernel's result, or `temporary`."""

    size: int
    name: str
    role: str
    users: int = 0


@dataclass(slots=True)
class Mark:
    """The most that lived during one instruction: bytes, how many of them are gradients, the node then run."""

    block: str | None
    line: str
    size: int = 0
    gradients: int = 0
    node: str = ""


class Heap:
    """Counts the live bytes while a plan's instructions are gone through in thought."""

    def __init__(self) -> None:
        self.live = 0
        self.gradients = 0
        self.held: dict[Storage, None] = {}
        self.marks: list[Mark] = []
        self.peak = Mark(None, "")
        self.alive: tuple[Storage, ...] = ()  # at the peak
        self.node = ""

    def enter(self, block: str | None, line: str) -> None:
        """An instruction begins."""
        self.node = ""
        self.marks.append(Mark(block, line))
        self._measure()

    def make(self, size: int, name: str, role: str) -> Storage:
        """Return new memory that has one user."""
        storage = Storage(size, name, role)
        self.hold(storage)
        return storage

    def hold(self, storage: Storage | None) -> None:
        """One more user; None is memory that lives anyway."""
        if storage is None:
            return
        storage.users += 1
        if storage.users == 1:
            self._add(storage, 1)
            self.held[storage] = None
            self._measure()

    def drop(self, storage: Storage | None) -> None:
        """One user less; without any the memory is free."""
        if storage is None:
            return
        storage.users -= 1
        if storage.users == 0:
            self._add(storage, -1)
            del self.held[storage]

    def drop_all(self, storages: Iterable[Storage | None]) -> None:
        """Drop one user of each."""
        for storage in storages:
            self.drop(storage)

    def pulse(self, size: int, name: str, role: str = TEMPORARY) -> None:
        """Memory that an instruction takes and gives back."""
        self.drop(self.make(size, name, role))

    def _add(self, storage: Storage, sign: int) -> None:
        self.live += sign * storage.size
        if storage.role == GRADIENTS:
            self.gradients += sign * storage.size

    def _measure(self) -> None:
        mark = self.marks[-1]
        if self.live > self.peak.size:
            self.peak, self.alive = mark, tuple(self.held)
        if self.live > mark.size:
            mark.size, mark.gradients, mark.node = self.live, self.gradients, self.node
