"""Are a block's tangents the derivatives of its values? Operator by operator, by central differences in float64.

A block that perturbs runs once, on its real modules and two random samples, with a tangent wherever its noise enters.
Of every operator that moves, the tangent that capture would take is compared with what the operator's values do a
little to either side. Where the two sides differ, at a kink, it must lie between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten

from lpc.compiler.capture.duals import DualRun, Operator, Tangents, floating
from lpc.compiler.capture.sites import NoiseSite, noise_sites
from lpc.compiler.frontend.places import first_line
from lpc.compiler.rehearsal import Rehearsal
from lpc.specs.diagnostics import LpcError

OWN = ("torch", "_operator", "builtins", "math", "lpc.")
STEP = 1e-6
AGREEMENT = 1e-6  # of the largest tangent of an operator's result
NEGLIGIBLE = 0.1  # of the largest direction: a tangent below is taken for this large
ROUNDING = 1e-13  # of a value and of the mean one, divided by the step
LARGE = 1e6  # values beyond, such as masked scores, say nothing of the mean

OVERWRITTEN = "reads what was written over through another view of it, which no tangent follows"


@dataclass(frozen=True)
class Known:
    """Of an operator that was compared: which of its results move, what was written anew, and a remark."""

    moves: tuple[bool, ...]
    rewrites: Mapping[str, int]
    remark: str | None = None


@dataclass(frozen=True)
class Proof:
    """How many operators move, what was written anew for their tangents, and what a reader should know."""

    operators: int = 0
    rewrites: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.operators:
            return "not compared with differences"
        rewritten = "".join(f"; {name} ({count})" for name, count in sorted(self.rewrites.items()))
        return f"those of {self.operators} operators equal central differences in float64{rewritten}"


def prove(rehearsed: Rehearsal, known: dict[Hashable, Known]) -> Proof:
    """Compare all tangents of a block that perturbs, inside `rehearsing`.

    `known` holds what was compared before: an operator of torch or of ours is compared once for each shape it reads.
    Raises LpcError (0421) for an operator whose tangent is none. A block that cannot run in float64 is not compared.
    """
    options, parameters = rehearsed.problem.estimator.options, rehearsed.parameters()
    weights = parameters if options["perturb"] == "weight" else []
    sites = () if weights else noise_sites(rehearsed.block.module.graph, parameters, options["site"])
    tangents = Tangents()
    for moved in (*(rehearsed.inputs[v] for v in rehearsed.problem.moves_in), *(rehearsed.state[n] for n in weights)):
        tangents.set(moved, torch.randn_like(moved))
    run = _Compared(rehearsed.block.module, sites, tangents, known)
    try:
        with torch.no_grad():
            rehearsed.run(run)
    except LpcError:
        raise
    except Exception as error:  # the user's own code, in a dtype that it was not written for
        return Proof(remarks=(f"it does not run in float64 ({first_line(error)})",))
    return Proof(run.moving, dict(run.rewrites), tuple(run.remarks))


class _Compared(DualRun):
    """Runs a block's graph with tangents, each compared when it is made."""

    def __init__(
        self,
        module: fx.GraphModule,
        sites: Sequence[NoiseSite],
        tangents: Tangents,
        known: dict[Hashable, Known],
    ) -> None:
        super().__init__(module, sites, {}, tangents, norms=True)
        self.places = {site.end.name for site in sites}
        self.versions: dict[int, tuple[Tensor, int]] = {}
        self.known = known
        self.moving = 0
        self.rewrites: Counter[str] = Counter()
        self.remarks: dict[str, None] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.places:
            self.tangents.add(result, torch.randn_like(result))
        for value in _tensors(result):
            self.versions[id(value)] = (value, value._version)
        return result

    def dual(self, compute: Any, plain: Any, rewrite: Any, args: Any, *rest: Any) -> Any:
        for value in _tensors((args, rest[0])):
            written = self.versions.get(id(value), (value, value._version))[1] != value._version
            if written:
                raise LpcError(self.refusal(OVERWRITTEN, rest[-1]))
        return super().dual(compute, plain, rewrite, args, *rest)

    def derive(self, one: Operator) -> list[Tensor | None]:
        self.moving += 1
        key, results = self.key(one), floating(one.result)
        known = self.known.get(key) if key is not None else None
        if known is not None:
            tangents = [torch.randn_like(v) if moves else None for v, moves in zip(results, known.moves, strict=True)]
        else:
            before = self.operators.used.copy()
            tangents = super().derive(one)
            remark = self.compared(one, tangents)
            known = Known(tuple(t is not None for t in tangents), self.operators.used - before, remark)
            if key is not None:
                self.known[key] = known
        self.rewrites.update(known.rewrites)
        self.remarks |= dict.fromkeys([known.remark] if known.remark else [])
        return tangents

    def key(self, one: Operator) -> Hashable:
        """Return what tells an operator of torch or of ours from others; None of one that is the user's own."""
        node = self.current
        assert node is not None
        module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        owner = type(module).__module__ if module is not None else str(getattr(node.target, "__module__", "torch"))
        if not owner.startswith(OWN):
            return None
        told = repr(module) if module is not None else str(node.target)
        read = tuple((tuple(v.shape), v.dtype) if isinstance(v, Tensor) else repr(v) for v in one.flat)
        return node.op, one.name, told, module is not None and module.training, read, str(one.tree), tuple(one.moving)

    def compared(self, one: Operator, tangents: Sequence[Tensor | None]) -> str | None:
        """Compare an operator's tangents. Raises LpcError (0421); returns a remark on a derivative that it declares."""
        sides = [_beside(one, sign * _step(one)) for sign in (1, -1)]
        results = zip(floating(one.result), tangents, *sides, strict=True)
        if all(self.agrees(one, *result) for result in results):
            return None
        if not _declared(one, tangents):
            raise LpcError(self.refusal("has a tangent that is not the central difference of its values", one.name))
        return f"{self.called(one.name)} declares another derivative than its values have"

    def agrees(self, one: Operator, value: Tensor, tangent: Tensor | None, ahead: Tensor, behind: Tensor) -> bool:
        """Is a tangent the central difference? Raises LpcError (0421) for one that is not finite."""
        found = torch.zeros_like(value) if tangent is None else tangent
        known = value.isfinite() & ahead.isfinite() & behind.isfinite()
        if not bool(found[known].isfinite().all()):
            raise LpcError(self.refusal("has a tangent that is not finite", one.name))
        return _excess(one, found[known], value[known], ahead[known], behind[known]) <= 0


def _excess(one: Operator, found: Tensor, value: Tensor, ahead: Tensor, behind: Tensor) -> float:
    """Return by how much a tangent misses the central difference beyond what kinks and rounding allow, or at most 0."""
    if not found.numel():
        return 0.0
    width = 2 * _step(one)
    central, kink = (ahead - behind) / width, (ahead - 2 * value + behind).abs() / width
    scale = max(float(found.abs().max()), float(central.abs().max()), NEGLIGIBLE * _longest(one))
    rounding = (value.abs() + value.abs().clamp(max=LARGE).mean()) * (2 * ROUNDING / width)
    return float(((found - central).abs() - 1.01 * kink - rounding).max()) - AGREEMENT * scale


def _longest(one: Operator) -> float:
    """Return the largest element of the directions."""
    return max(float(d.abs().max()) for d in one.directions if d.numel())


def _step(one: Operator) -> float:
    """Return the step along directions of any size."""
    return STEP / max(1.0, _longest(one))


def _beside(one: Operator, step: float) -> list[Tensor]:
    """Return an operator's results a step along its directions, with what it drew before."""
    moved = [one.flat[i].detach() + step * d for i, d in zip(one.moving, one.directions, strict=True)]
    with one.redraw.run(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        return floating(one.plain(*one.operands(moved)))


def _declared(one: Operator, tangents: Sequence[Tensor | None]) -> bool:
    """Is it the derivative that the operator itself gives backwards, such as a straight-through estimator's?"""
    leaves = [one.flat[i].detach().requires_grad_() for i in one.moving]
    with one.redraw.run(), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        again = floating(one.plain(*one.operands(leaves)))
    cotangents = [torch.randn_like(value) for value in again]
    roots = [(value, c) for value, c in zip(again, cotangents, strict=True) if value.requires_grad]
    back = torch.autograd.grad([v for v, _ in roots], leaves, [c for _, c in roots], allow_unused=True) if roots else ()
    earned = [float((g * d).sum()) for g, d in zip(back, one.directions, strict=False) if g is not None]
    found = [float((t * c).sum()) for t, c in zip(tangents, cotangents, strict=True) if t is not None]
    return abs(sum(earned) - sum(found)) <= AGREEMENT * sum(map(abs, (*earned, *found)))


def _tensors(values: Any) -> list[Tensor]:
    return [v for v in tree_flatten(values)[0] if isinstance(v, Tensor)]
