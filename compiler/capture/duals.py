"""How does a block's graph run with tangents? Node by node, noise added at its sites.

A value may have a tangent: the direction in which the noise upstream moves it. A node's tangent is found for that node
alone, so that one without a derivative is known by name. What a node computes does not change.

The derivative along a direction is taken by transposing the transpose: the vjp is linear in its cotangent, and the vjp
of that map is the jvp. In a captured graph nothing is left of the detour. Forward mode itself cannot be captured with a
free batch size: for every operand that does not move it makes a zero tangent of fixed sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from lpc.compiler.capture.redraw import Redraw
from lpc.compiler.capture.rewrites import RewrittenOperators
from lpc.compiler.capture.sites import NoiseSite
from lpc.compiler.capture.tracing import LabelledRun
from lpc.compiler.frontend.places import first_line
from lpc.compiler.state import named_state
from lpc.specs.diagnostics import Diagnostic, LpcError

NO_TANGENT = "has no forward derivative, which `estimator: forward` needs"


class Tangents:
    """The tangents of values, by the identity of the value."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, value: Any) -> Tensor | None:
        """Return the tangent of a value, None where it does not move."""
        held = self._held.get(id(value))
        return held[1] if held is not None else None

    def add(self, value: Tensor, tangent: Tensor) -> None:
        """Move a value further."""
        before = self.of(value)
        self._held[id(value)] = (value, tangent if before is None else before + tangent)

    def set(self, value: Tensor, tangent: Tensor) -> None:
        """Say how a value moves."""
        self._held[id(value)] = (value, tangent)


Compute = Callable[[Any, Any, Mapping[str, Tensor]], Any]  # of arguments, keyword arguments and moving parameters


@dataclass(frozen=True)
class Operator:
    """One call of an operator whose operands move: `flat` are all of them as they were before it, off the tape.

    `plain` computes it once more, which changes nothing but its operands; `rewrite` does so with rewritten operators.
    `moving` are the places of those that move, along `directions`; `result` is what came out.
    """

    name: str
    flat: Sequence[Any]
    tree: TreeSpec
    plain: Compute
    rewrite: Compute
    moving: Sequence[int]
    directions: Sequence[Tensor]
    redraw: Redraw
    result: Any

    def operands(self, moved: Sequence[Tensor]) -> Any:
        """Return arguments, keyword arguments and parameters, copied, with others in place of those that move."""
        flat = [v.clone() if isinstance(v, Tensor) else v for v in self.flat]
        for index, value in zip(self.moving, moved, strict=True):
            flat[index] = value.clone()
        return tree_unflatten(flat, self.tree)


class DualRun(LabelledRun):
    """Runs a block's graph with tangents.

    `noise` gives each site's direction; where it has none, only `tangents` of inputs and parameters flow. At every
    site the value before it is kept in `seen`, with a tape from the segment's parameters; beyond, it is cut off it.
    `alive` tells where a rectifier behind a site lets its noise pass. Without `norms` the tape takes the norm of a
    segment for the identity.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        sites: Sequence[NoiseSite],
        noise: Mapping[str, Tensor],
        tangents: Tangents,
        norms: bool,
    ) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.ends = {site.end.name: site for site in sites}
        self.layers = {site.layer.name: site for site in sites if site.layer is not site.end and not norms}
        self.before: dict[str, Tensor] = {}
        self.noise = noise
        self.tangents = tangents
        self.seen: dict[str, Tensor] = {}
        self.alive: dict[str, Tensor] = {}
        self.current: fx.Node | None = None
        self.operators = RewrittenOperators()
        self.stops: dict[str, list[str]] = {}
        for site in sites:
            if (stop := site.rectifier) is not None:
                self.stops.setdefault(stop.name, []).append(site.name)

    def run_node(self, n: fx.Node) -> Any:
        self.current = n
        if n.name in self.stops:
            self.alive |= dict.fromkeys(self.stops[n.name], self.passing(n))
        result = super().run_node(n)
        if n.name in self.layers:
            self.before[self.layers[n.name].name] = result
            result = self.cut(result)
        site = self.ends.get(n.name)
        if site is None:
            return result
        assert isinstance(result, Tensor), "a site is a tensor"
        layer = self.before.get(site.name)
        self.seen[site.name] = result if layer is None else result + (layer - layer.detach())
        moved, noise = self.cut(result), self.noise.get(site.name)
        if noise is not None:
            self.tangents.add(moved, noise.to(moved.dtype).expand_as(moved))
        return moved

    def passing(self, n: fx.Node) -> Tensor:
        """Return where a rectifier lets what it reads pass: ones and zeros."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        leaf = args[0].detach().requires_grad_()
        with torch.enable_grad():
            made: Tensor = getattr(super(), n.op)(n.target, (leaf.clone(), *args[1:]), kwargs)
        (slope,) = torch.autograd.grad(made, leaf, torch.ones_like(made))
        passes: Tensor = slope != 0
        return passes.to(slope.dtype)

    def called(self, name: str) -> str:
        """Name the operator at hand, and its module."""
        path = self.current.meta.get("path") if self.current is not None else None
        return f"`{name}`{f' in `{path}`' if path else ''}"

    def refusal(self, text: str, name: str, *notes: str) -> Diagnostic:
        """Say what is wrong with the tangent of the operator at hand."""
        meta = self.current.meta if self.current is not None else {}
        place = str(meta.get("place") or meta.get("path") or "capture")
        return Diagnostic("0421", f"{self.called(name)} {text}", place=place, notes=notes)

    def cut(self, value: Tensor) -> Tensor:
        """Return a copy of a value off the tape, which moves as it did: whoever reads it may write over it."""
        moved, tangent = value.detach().clone(), self.tangents.of(value)
        if tangent is not None:
            self.tangents.set(moved, tangent)
        return moved

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        def compute(args: Any, kwargs: Any, parameters: Mapping[str, Tensor]) -> Any:
            return target(*args, **kwargs)

        def rewrite(args: Any, kwargs: Any, parameters: Mapping[str, Tensor]) -> Any:
            return self.operators.apply(target, args, kwargs)

        name = getattr(target, "__name__", str(target))
        return self.dual(compute, compute, rewrite, args, kwargs, {}, name)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        def compute(args: Any, kwargs: Any, parameters: Mapping[str, Tensor]) -> Any:
            return getattr(args[0], target)(*args[1:], **kwargs)

        return self.dual(compute, compute, compute, args, kwargs, {}, str(target))

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)

        def compute(args: Any, kwargs: Any, parameters: Mapping[str, Tensor]) -> Any:
            return functional_call(module, dict(parameters), args, kwargs) if parameters else module(*args, **kwargs)

        state, again = _moving(module, self.tangents), _on_copies(module, compute)
        return self.dual(compute, again, again, args, kwargs, state, type(module).__name__)

    def dual(
        self,
        compute: Compute,
        plain: Compute,
        rewrite: Compute,
        args: Any,
        kwargs: Any,
        parameters: Mapping[str, Tensor],
        name: str,
    ) -> Any:
        """Run one operator; where what it reads moves, find how its results move. Random draws happen once."""
        flat, tree = tree_flatten((args, kwargs, dict(parameters)))
        moving = [i for i, value in enumerate(flat) if self.tangents.of(value) is not None]
        directions = [d for i in moving if (d := self.tangents.of(flat[i])) is not None]
        # Copies, as the operator may write over what it reads; captured, nothing is left of them.
        before = [v.detach().clone() if isinstance(v, Tensor) else v for v in flat] if moving else []
        redraw = Redraw()
        with redraw.run():
            result = compute(args, kwargs, {})
        if not moving:
            return result
        one = Operator(name, before, tree, plain, rewrite, moving, directions, redraw, result)
        try:
            tangents = self.derive(one)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise LpcError(self.refusal(NO_TANGENT, name, first_line(error))) from error
        for value, tangent in zip(floating(result), tangents, strict=True):
            if tangent is not None:
                self.tangents.set(value, tangent)
        return result

    def derive(self, one: Operator) -> list[Tensor | None]:
        """Return the tangents of an operator's results; None where it is zero whatever the directions."""
        leaves = [one.flat[i].requires_grad_() for i in one.moving]
        with one.redraw.run(), self.operators, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            again = one.rewrite(*one.operands(leaves))
        return _along(leaves, floating(again), one.directions)


def _along(
    leaves: Sequence[Tensor], results: Sequence[Tensor], directions: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Return the derivative of each result along the leaves' directions; None where it is zero whatever they are."""
    moving = [r for r in results if r.requires_grad]
    cotangents = [torch.zeros_like(r).requires_grad_() for r in moving]
    found = torch.autograd.grad(moving, leaves, cotangents, create_graph=True, allow_unused=True) if moving else ()
    linear = [(g, d) for g, d in zip(found, directions, strict=False) if g is not None and g.requires_grad]
    if not linear:
        return [None] * len(results)
    back = torch.autograd.grad([g for g, _ in linear], cotangents, [d for _, d in linear], allow_unused=True)
    known = iter(back)
    return [next(known) if r.requires_grad else None for r in results]


def _moving(module: nn.Module, tangents: Tangents) -> dict[str, Tensor]:
    return {n: p for n, p in named_state(module).items() if tangents.of(p) is not None}


def _on_copies(module: nn.Module, compute: Callable[..., Any]) -> Callable[..., Any]:
    """The module's function with buffers of its own, which it may overwrite, and parameters without a tape."""

    def run(args: Any, kwargs: Any, parameters: Mapping[str, Tensor]) -> Any:
        state = {name: tensor.detach() for name, tensor in module.named_parameters(remove_duplicate=False)}
        state |= {name: buffer.clone() for name, buffer in module.named_buffers(remove_duplicate=False)}
        return functional_call(module, {**state, **parameters}, args, kwargs)

    return run


def floating(values: Any) -> list[Tensor]:
    """Return the floating-point tensors in a result."""
    return [v for v in tree_flatten(values)[0] if isinstance(v, Tensor) and v.is_floating_point()]
