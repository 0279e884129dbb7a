"""Which values of a kernel share memory, and when is each piece of memory made and dropped?

This follows how a kernel is run: a value is dropped after its last reader, a view keeps what it looks at, an item
keeps its part of a tuple, and an elementwise node may write over an argument that it reads last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.memory.heap import TEMPORARY
from lpc.specs.plan.kernel import Kernel, Node, TensorType
from lpc.specs.plan.operators import GETITEM, limits
from lpc.specs.plan.overwrite import name_of, overwritten
from lpc.specs.plan.readers import last_readers, reads

Slots = tuple[int, ...]  # pieces of memory by number; arguments' ports come first


@dataclass(frozen=True)
class Event:
    """One node: the memory that it makes, by slot, and what is dropped behind it."""

    node: str
    made: tuple[tuple[int, TensorType], ...]
    dropped: Slots


@dataclass(frozen=True)
class Layout:
    """A kernel's memory: what is dropped unread, an event for each node, the slots of its results."""

    unread: Slots
    events: tuple[Event, ...]
    results: Slots
    labels: dict[int, tuple[str, str]]  # name and role


def layout(kernel: Kernel) -> Layout:
    """Return where a kernel's values live. Errors: 0562 where its nodes say nothing about their types."""
    if kernel.nodes and not any(node.types for node in kernel.nodes):
        message = f"the nodes of kernel `{kernel.name}` have no types"
        raise LpcError(Diagnostic("0562", message, place=f"kernel {kernel.name}"))
    return _Layout(kernel).found()


class _Layout:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.last = last_readers(kernel)
        self.over = overwritten(kernel)
        ports = [port for bundle in kernel.arguments for port in bundle.ports]
        self.slots: dict[str, Slots] = {port.value: (index,) for index, port in enumerate(ports)}
        self.types = {port.value: port.type for port in ports}
        self.users = Counter(slot for slots in self.slots.values() for slot in slots)
        self.next = len(ports)

    def found(self) -> Layout:
        unread = self.drop([name for name in self.slots if name not in self.last])
        events = tuple(self.event(index, node) for index, node in enumerate(self.kernel.nodes))
        ports = [(port, bundle.role) for bundle in self.kernel.results for port in bundle.ports]
        results = tuple(self.slots[port.value][0] for port, _ in ports)
        made = {slot: event.node for event in events for slot, _ in event.made}
        labels = {slot: (node, TEMPORARY) for slot, node in made.items()}
        for slot, (port, role) in zip(results, ports, strict=True):  # a residual's own name says nothing
            labels[slot] = (made.get(slot, port.source) if role == "residuals" else port.source, role)
        return Layout(unread, events, results, labels)

    def event(self, index: int, node: Node) -> Event:
        shared = self.shared(node)
        made = () if shared is not None else self.fresh(node)
        self.slots[node.name] = shared if shared is not None else tuple(slot for slot, _ in made)
        self.users.update(set(self.slots[node.name]))
        if len(node.types) == 1:
            self.types[node.name] = node.types[0]
        dead = [name for name in dict.fromkeys(reads(node)) if self.last[name] == index]
        dead += [] if node.name in self.last else [node.name]
        return Event(_told(node), made, self.drop(dead))

    def shared(self, node: Node) -> Slots | None:
        """The memory of an argument that a node's value is, if it is."""
        if node.op == GETITEM:
            return (self.slots[name_of(node.args[0])][int(str(node.args[1]))],)
        if limits(node.op).view:
            return self.slots[name_of(node.args[0])] * max(len(node.types), 1)
        if node.name in self.over:
            source = name_of(node.args[self.over[node.name]])
            others = {self.types.get(name) for name in reads(node)[:2]}  # what is written over must be like the rest
            if others == {self.types[source]} == set(node.types):
                return self.slots[source]
        return None

    def fresh(self, node: Node) -> tuple[tuple[int, TensorType], ...]:
        first, self.next = self.next, self.next + len(node.types)
        return tuple(zip(range(first, self.next), node.types, strict=True))

    def drop(self, names: list[str]) -> Slots:
        dropped = []
        for slot in (slot for name in names for slot in set(self.slots[name])):
            self.users[slot] -= 1
            if not self.users[slot]:
                dropped.append(slot)
        return tuple(dropped)


def _told(node: Node) -> str:
    return f"{node.op} from {node.origin}" if node.origin else node.op
