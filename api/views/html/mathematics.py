"""What does a block solve, in mathematical notation? Its variables, its objective, its gradient and its update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lpc.compiler.rules import stated
from lpc.specs.model import Spec
from lpc.specs.plan.plan import Optimizer, Program
from lpc.specs.signatures import ESTIMATORS, LINKS
from lpc.specs.term import Term
from lpc.specs.term_text import parse_term

Line = tuple[str, str]  # what is said, and the formula

MOMENTS = "m ← β₁m + (1 − β₁)g,  v ← β₂v + (1 − β₂)g²,  θ ← θ − η m̂ / (√v̂ + ε)"
UPDATES: dict[str, str] = {
    "adam": MOMENTS,
    "adamw": f"{MOMENTS} − ηλθ",
    "nadam": "Adam's moments, with Nesterov's look-ahead in m̂",
    "radam": "Adam's moments, rectified while v̂ is uncertain",
    "adamax": "m ← β₁m + (1 − β₁)g,  u ← max(β₂u, |g|),  θ ← θ − η m̂ / u",
    "adagrad": "v ← v + g²,  θ ← θ − η g / (√v + ε)",
    "rmsprop": "v ← αv + (1 − α)g²,  θ ← θ − η g / (√v + ε)",
}
GRADIENTS: dict[str, str] = {
    "backprop": "g = ∂L/∂θ",
    "forward": "ĝ = (∂L/∂z · u) u,  u drawn anew, at the perturbed z",
    "feedback_alignment": "g = ∂L/∂θ with B for Wᵀ on the way back",
}
# How a block reads what crosses a link, if it does not read it without its gradient.
READ = {"gradient": "{}", "variable": "ĥ[{}]"}
SYMBOLS = {
    "lr": "η", "momentum": "μ", "weight_decay": "λ", "betas": "(β₁, β₂)", "eps": "ε", "alpha": "α", "dampening": "δ",
}  # fmt: skip


def problem(
    spec: Spec, program: Program, partition: Mapping[str, Any], block: str, losses: Sequence[str]
) -> list[Line]:
    """Return a block's local problem; `losses` are those that reach its parameters, as `block.loss`."""
    judged = block == partition["graph"].get("output_block")
    objective = _matching(spec, partition, block) or _objective(spec, program, block, losses, judged)
    return [*_inputs(partition, block), *objective, *_steps(spec, program, block)]


def _inputs(partition: Mapping[str, Any], block: str) -> Iterator[Line]:
    node = next((node for node in partition["nodes"] if node["id"] == block), None)
    read = [] if node is None else [str(name) for name in node["reads"]]
    for edge in partition["edges"]:
        if edge["target"] != block:
            continue
        form = READ.get(str(edge["link"]).partition("(")[0], "sg[{}]")
        read += [form.format(tensor["name"]) for tensor in edge["tensors"]]
    yield "input", "x = " + (", ".join(read) or "none")
    if node is not None:
        yield "output", f"h = f(x; θ),  θ ∈ ℝ^{node['num_parameters']:,}"
    for edge in partition["edges"]:
        if edge["target"] == block and str(edge["link"]) not in ("stop", "gradient"):
            yield f"link from {edge['source']}", _told(str(edge["link"]))


def _told(link: str) -> str:
    """Return a link with the meaning that the language gives it."""
    signature = LINKS.get(link.partition("(")[0])
    return f"{link}: {signature.doc}" if signature is not None else link


def _matching(spec: Spec, partition: Mapping[str, Any], block: str) -> list[Line]:
    """Return the objective of a block whose output is to match a variable or a target."""
    links = [parse_term(str(edge["link"])) for edge in partition["edges"] if edge["source"] == block]
    term = next((link for link in links if link.name in ("variable", "target")), None)
    if term is None:
        return []
    written = next(iter(stated(spec, block, "loss") or ()), None)
    penalty = written or LINKS[term.name].bind(term).get("penalty", Term("squared"))
    return [("objective", f"min over θ:  L = {penalty} of h and ĥ, the {term.name} of this block's output")]


def _objective(
    spec: Spec, program: Program, block: str, losses: Sequence[str], judged: bool
) -> Iterator[Line]:
    own = [loss for loss in losses if loss.rpartition(".")[0] == block]
    other = [loss for loss in losses if loss not in own]
    terms = [_loss(spec, block, loss.rpartition(".")[2], judged) for loss in own] + [f"L({loss})" for loss in other]
    heads = any(name.startswith(f"heads.{block}.") for name in program.state)
    variables = "θ, φ" if heads else "θ"
    if block not in program.optimizers:
        yield "objective", "none: nothing in this block learns"
    elif terms:
        yield "objective", f"min over {variables}:  L = {' + '.join(terms)}"
    if heads:
        yield "head", f"q = {stated(spec, block, 'head') or _readout_head(spec, block)}(h; φ)"


def _readout_head(spec: Spec, block: str) -> str:
    return str(spec.readouts[block].head) if block in spec.readouts else "head"


def _loss(spec: Spec, block: str, name: str, judged: bool) -> str:
    """Return one of the block's own losses as it was written, on what it judges; `judged` is the network's output."""
    named = stated(spec, block, "loss", by_name=True) or (spec.loss if judged else ())
    written = [*named, *(stated(spec, block, "loss") or ()), *spec.loss]
    if block in spec.readouts:
        written = [spec.readouts[block].loss]
    term = next((term for term in written if name in ("loss", term.name)), Term(name))
    return f"{term.name}(q; {_arguments(term)})" if term.args or term.kwargs else f"{term}(q)"


def _arguments(term: Term) -> str:
    return str(term).partition("(")[2].removesuffix(")")


def _steps(spec: Spec, program: Program, block: str) -> Iterator[Line]:
    optimizer = program.optimizers.get(block)
    if optimizer is None:
        return
    estimator = stated(spec, block, "estimator") or Term("backprop")
    formula = GRADIENTS.get(estimator.name) or ESTIMATORS[estimator.name].doc
    yield "gradient", formula + (f"   ({estimator})" if estimator.kwargs or estimator.args else "")
    correction = program.corrections.get(block)
    if correction is not None:
        law = "" if correction.decay == 1 else f"{correction.decay}^age · "
        yield "correction", (
            f"g ← {correction.alpha} g + {correction.scale} · {law}D,  D = true − {correction.alpha} · local gradient,"
            f" measured every {correction.period} steps"
        )
    yield "update", _update(optimizer)
    yield "with", _constants(optimizer)
    yield from _around(optimizer)


def _around(optimizer: Optimizer) -> Iterator[Line]:
    """Yield what happens around the update: inner steps on one batch, a proximal term, an outer optimizer."""
    if optimizer.prox is not None:
        yield "proximal term", f"g ← g + (θ − θ₀) / {optimizer.prox}"
    if optimizer.steps > 1:
        memory = ", whose state begins anew with each batch" if optimizer.state == "reset" else ""
        yield "inner steps", f"{optimizer.steps} updates on each batch from θ₀, its inputs and targets frozen{memory}"
    if optimizer.outer:
        yield "outer update", f"θ ← {optimizer.outer}(θ₀, θ₀ − θ)"


def _update(optimizer: Optimizer) -> str:
    """Return the rule by which an optimizer moves a parameter."""
    if optimizer.name == "sgd":
        return _descent(optimizer.options)
    return UPDATES.get(optimizer.name, f"θ ← {optimizer.name}(θ, g)")


def _descent(options: Mapping[str, Any]) -> str:
    decayed = "g + λθ" if options.get("weight_decay") else "g"
    if not options.get("momentum"):
        return f"θ ← θ − η ({decayed})" if "λ" in decayed else "θ ← θ − η g"
    step = f"{decayed} + μm" if options.get("nesterov") else "m"
    return f"m ← μm + {decayed},  θ ← θ − η {f'({step})' if '+' in step else step}"


def _constants(optimizer: Optimizer) -> str:
    named = {name: value for name, value in optimizer.options.items() if value not in (None, False, 0, 0.0)}
    parts = [f"{SYMBOLS.get(name, name)} = {_number(value)}" for name, value in named.items()]
    law = optimizer.schedule.get("then")
    if law is not None:
        warm = optimizer.schedule.get("warmup")
        name = law.get("name") if isinstance(law, Mapping) else law
        parts.append(f"η times {name}" + (f" after {warm} of warm-up" if warm else ""))
    factors = {group.lr_factor for group in optimizer.groups} - {1.0}
    parts += [f"η times {factor} for some parameters" for factor in sorted(factors)]
    return ",  ".join(parts) or "the optimizer's own defaults"


def _number(value: Any) -> str:
    return f"({', '.join(map(_number, value))})" if isinstance(value, list | tuple) else str(value)
