"""What is known of a value of a section before anything runs, and what fits where?"""

from __future__ import annotations

from dataclasses import dataclass

from lpc.specs.plan.kernel import Bundle, Kernel, TensorType

# What each role of a kernel's argument takes, by the role of the value; what other instructions take.
TAKES: dict[str, frozenset[str]] = {
    "input": frozenset({"input", "output"}),
    "random": frozenset({"random"}),
    "cotangent": frozenset({"cotangent"}),
    "residuals": frozenset({"residuals"}),
    "target": frozenset({"target"}),
    "gathered": frozenset({"gathered"}),
    "accumulate": frozenset({"gradients"}),
    "reduce": frozenset({"gradients"}),
    "update": frozenset({"gradients", "factors"}),
    "clip": frozenset({"gradients"}),
    "norms": frozenset({"norms"}),
    "correct": frozenset({"gradients"}),
    "offset": frozenset({"gradients"}),
    "part": frozenset({"input", "output"}),
    "begin": frozenset({"output"}),
    "relax": frozenset({"output"}),
    "slopes": frozenset({"slope"}),
    "index": frozenset({"input"}),
    "write": frozenset({"buffers"}),
    "record": frozenset({"loss", "metric"}),
    "return": frozenset({"input", "output", "loss", "metric"}),
    "send": frozenset({"input", "output", "cotangent", "slope", "loss", "metric", "norms"}),
}
OWN = frozenset({"residuals", "target"})  # roles of values that are for kernels of one block
ANYTHING = "anything"  # the role of what an unknown kernel returns (one mistake is told once), and of what is received


@dataclass(frozen=True)
class Value:
    """What is known of a live value: its role, its ports' types and outside names, the block that made it."""

    role: str
    types: tuple[TensorType, ...] = ()
    sources: tuple[str, ...] = ()
    block: str = ""


def returned(kernel: Kernel, bundle: Bundle) -> Value:
    types = tuple(port.type for port in bundle.ports)
    return Value(bundle.role, types, tuple(port.source for port in bundle.ports), kernel.block)


def fits(found: TensorType, expected: TensorType) -> bool:
    """Symbolic lengths are spelled by whoever captured them; only numbers can contradict each other."""
    if found.dtype != expected.dtype or len(found.shape) != len(expected.shape):
        return False
    pairs = zip(found.shape, expected.shape, strict=True)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))
