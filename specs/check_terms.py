"""Are all names and arguments in the vocabulary? Every term of a spec against its signature."""

from __future__ import annotations

from collections.abc import Iterator

from lpc.specs.diagnostics import without_quotes
from lpc.specs.later import name_comes_later
from lpc.specs.model import Layer, Path, Schedule, Spec
from lpc.specs.problems import Problems
from lpc.specs.signatures import FROM, REQUIRED, VOCABULARIES, Parameter, Signature
from lpc.specs.signatures.variables import VARIABLE
from lpc.specs.term import Term, Value, print_value

NUMBERS = frozenset({"int", "natural", "size", "float", "rate", "positive", "share"})
NOTHING = Term("none")  # a term that is not there
# A term with the vocabulary that it is a word of, and its path.
Placed = tuple[str, Path, Term]

_WORDS = {
    "int": "a whole number",
    "natural": "a whole number of at least 0",
    "size": "a whole number of at least 1",
    "float": "a number",
    "rate": "a number of at least 0",
    "positive": "a number above 0",
    "share": "a number from 0 to 1",
    "bool": "`true` or `false`",
    "str": "a text",
    "dict": "a mapping",
    "term": "a term",
    "none": "`none`",
    "[int]": "a list of whole numbers",
    "[natural]": "a list of whole numbers of at least 0",
    "[size]": "a list of whole numbers of at least 1",
    "[float]": "a list of numbers",
    "[str]": "a list of texts",
    "[any]": "a list",
}


def check_terms(spec: Spec, problems: Problems) -> None:
    """Note 0111 and 0120 to 0124 for every term of the spec."""
    for vocabulary, path, term in placed_terms(spec):
        check_term(vocabulary, path, term, spec, problems)


def placed_terms(spec: Spec) -> Iterator[Placed]:
    """Yield every term of a spec."""
    yield from _network_terms(spec)
    for i, adapter in enumerate(spec.adapters):
        yield "adapter", ("adapters", i), adapter
    if spec.data is not None:
        yield "data source", ("data", "source"), spec.data.source
        for i, transform in enumerate(spec.data.transforms):
            yield "transform", ("data", "transforms", i), transform
        if spec.data.contrast is not None:
            yield "contrast", ("data", "contrast"), spec.data.contrast
    yield from _decompose_terms(spec)
    yield from _learn_terms(spec)
    for i, loss in enumerate(spec.loss):
        yield from _loss_terms(loss, ("loss", i))
    for name, readout in spec.readouts.items():
        place = ("readouts", name)
        yield "head", (*place, "head"), readout.head
        yield from _loss_terms(readout.loss, (*place, "loss"))
        yield "optimizer", (*place, "optimizer"), readout.optimizer
        if readout.with_ is not None:
            yield "overlay", (*place, "with"), readout.with_
        if readout.schedule is not None:
            yield from _schedule_terms(readout.schedule, (*place, "schedule"))
    run = spec.run
    yield "predictor", ("run", "predict"), run.predict
    yield from (("period", ("run", key), term) for key, term in
                (("log", run.log), ("checkpoint", run.checkpoint), ("validate", run.validate_)))  # fmt: skip
    if run.early_stop is not None:
        yield "early stop", ("run", "early_stop"), run.early_stop
    for i, metric in enumerate(run.metrics):
        yield "metric", ("run", "metrics", i), Term(metric)


def _network_terms(spec: Spec) -> Iterator[Placed]:
    network = spec.network
    if network.zoo is not None:
        path: Path = (
            ("network", "args")
            if network.zoo in VOCABULARIES["network"] and network.args
            else ("network", "zoo")
        )
        yield "network", path, Term(network.zoo, (), network.args)
    for path, layer in placed_layers(network.layers or (), ("network", "layers")):
        structure = bool(layer.body or layer.branches) or layer.op.name in VOCABULARIES["structure"]
        yield "structure" if structure else "layer", (*path, "op"), layer.op
    for name, law in network.init.items():
        yield "init law", ("network", "init", name), law


def placed_layers(layers: tuple[Layer, ...], path: Path) -> Iterator[tuple[Path, Layer]]:
    """Yield every layer with its path, structures before what they hold."""
    for i, layer in enumerate(layers):
        yield (*path, i), layer
        yield from placed_layers(layer.body, (*path, i, "body"))
        for name, body in layer.branches.items():
            yield from placed_layers(body, (*path, i, "branches", name))


def _decompose_terms(spec: Spec) -> Iterator[Placed]:
    blocks, path = spec.decompose.blocks, ("decompose", "blocks")
    if isinstance(blocks, Term):
        yield "block rule", path, blocks
    else:
        for name, selectors in blocks.items():
            for i, selector in enumerate(selectors):
                if isinstance(selector, Term):
                    yield "block rule", (*path, name, i), selector
    for name, link in spec.decompose.links.items():
        yield from _link_terms(link, ("decompose", "links", name))


def _link_terms(link: Term, path: Path) -> Iterator[Placed]:
    """Yield a link, and of one by variables its penalty, its optimizer, and the laws of their factors."""
    yield "link", path, link
    if link.name != VARIABLE.name:
        return
    places = _arguments(link, VARIABLE)
    for name, vocabulary in (("penalty", "penalty"), ("optimizer", "optimizer"), ("scale", "penalty weight")):
        key, value = places.get(name, (name, None))
        if isinstance(value, str | Term):
            term = value if isinstance(value, Term) else Term(value)
            yield vocabulary, (*path, key), term
            weight = term.kwargs.get("weight", term.args[0] if term.args else None)
            if name == "penalty" and isinstance(weight, Term):
                yield "penalty weight", (*path, key, "weight" if "weight" in term.kwargs else 0), weight


def _learn_terms(spec: Spec) -> Iterator[Placed]:
    for i, rule in enumerate(spec.learn):
        if rule.head is not None:
            yield "head", ("learn", i, "head"), rule.head
        for j, loss in enumerate(rule.loss or ()):
            yield from _loss_terms(loss, ("learn", i, "loss", j))
        if rule.estimator is not None:
            yield "estimator", ("learn", i, "estimator"), rule.estimator
        if rule.correct is not None:
            yield from _correction_terms(rule.correct, ("learn", i, "correct"))
        if rule.optimizer is not None:
            yield "optimizer", ("learn", i, "optimizer"), rule.optimizer
        if rule.solver is not None:
            yield "solver", ("learn", i, "solver"), rule.solver
        if rule.outer is not None and rule.outer != NOTHING:
            yield "optimizer", ("learn", i, "outer"), rule.outer
        if rule.schedule is not None:
            yield from _schedule_terms(rule.schedule, ("learn", i, "schedule"))


def _schedule_terms(schedule: Schedule, path: Path) -> Iterator[Placed]:
    yield "schedule law", (*path, "then"), schedule.then
    yield "schedule law", (*path, "inner"), schedule.inner


def _loss_terms(loss: Term, path: Path) -> Iterator[Placed]:
    """Yield a loss, and the terms among its arguments: its head, which may be a bare word, and a law of its weight."""
    yield "loss", path, loss
    places = _arguments(loss, VOCABULARIES["loss"].get(loss.name))
    key, head = places.get("head", ("head", None))
    if isinstance(head, Term | str):
        yield "head", (*path, key), head if isinstance(head, Term) else Term(head)
    key, weight = places.get("weight", ("weight", None))
    if isinstance(weight, Term):
        yield "loss weight", (*path, key), weight


def _correction_terms(correction: Term, path: Path) -> Iterator[Placed]:
    """Yield a correction, and the laws that its factors follow."""
    yield "correction", path, correction
    places = _arguments(correction, VOCABULARIES["correction"].get(correction.name))
    for name in ("alpha", "scale"):
        key, law = places.get(name, (name, None))
        if isinstance(law, Term):
            yield "schedule law", (*path, key), law


def _arguments(term: Term, signature: Signature | None) -> dict[str, tuple[str | int, Value]]:
    """Return a term's arguments by name, those given by position too, each with its key in the term's path."""
    places: dict[str, tuple[str | int, Value]] = {name: (name, value) for name, value in term.kwargs.items()}
    names = [parameter.name for parameter in signature.parameters] if signature is not None else []
    return places | {name: (i, value) for i, (name, value) in enumerate(zip(names, term.args, strict=False))}


def check_term(vocabulary: str, path: Path, term: Term, spec: Spec, problems: Problems) -> None:
    """Note what is wrong with one term's name and arguments."""
    signature = VOCABULARIES[vocabulary].get(term.name)
    if signature is None:
        _unknown_name(vocabulary, path, term, spec, problems)
        return
    parameters = (*signature.parameters, FROM) if vocabulary == "layer" else signature.parameters
    named = {parameter.name: parameter for parameter in parameters}
    _positional(signature, path, term, spec, problems)
    for key, value in term.kwargs.items():
        if key in named:
            _value(named[key], value, term, (*path, key), spec, problems)
        elif not signature.open:
            _unknown_argument(vocabulary, key, list(named), term, path, spec, problems)
    given = {p.name for p in signature.parameters[: len(term.args)]} | set(term.kwargs)
    for parameter in parameters:
        if parameter.default is REQUIRED and parameter.name not in given:
            message = f"`{term.name}` needs `{parameter.name}`: {parameter.doc or describe(parameter)}"
            problems.add("0122", message, spec.origin(*path), path, help=f"write `{usage(signature)}`")


def _unknown_name(vocabulary: str, path: Path, term: Term, spec: Spec, problems: Problems) -> None:
    span = spec.origin(*path)
    if name_comes_later(vocabulary, term.name):
        message = f"the {vocabulary} `{term.name}` is not supported by this version of lpc"
        problems.add("0111", message, span, path)
        return
    names = sorted(VOCABULARIES[vocabulary])
    message, otherwise = f"there is no {vocabulary} `{term.name}`", f"the names are {', '.join(names)}"
    problems.misspelt("0120", message, span, path, term.name, names, otherwise)


def _positional(signature: Signature, path: Path, term: Term, spec: Spec, problems: Problems) -> None:
    for i, value in enumerate(term.args):
        if i >= len(signature.parameters):
            message = f"`{term.name}` takes at most {len(signature.parameters)} arguments"
            problems.add(
                "0124", message, spec.origin(*path, i), (*path, i), help=f"write `{usage(signature)}`"
            )
            return
        parameter = signature.parameters[i]
        if parameter.name in term.kwargs:
            message = f"`{parameter.name}` of `{term.name}` is given by position and by name"
            problems.add("0124", message, spec.key_origin(*path, parameter.name), (*path, parameter.name))
        _value(parameter, value, term, (*path, i), spec, problems)


def _value(
    parameter: Parameter, value: Value, term: Term, path: Path, spec: Spec, problems: Problems
) -> None:
    if parameter.accepts(value):
        return
    message = f"`{parameter.name}` of `{term.name}` is `{print_value(value)}`, expected {describe(parameter)}"
    found = value if isinstance(value, str) else ""
    otherwise = without_quotes(found) if set(parameter.alternatives) & NUMBERS else None
    problems.misspelt("0123", message, spec.origin(*path), path, found, parameter.choices, otherwise)


def _unknown_argument(
    vocabulary: str, key: str, known: list[str], term: Term, path: Path, spec: Spec, problems: Problems
) -> None:
    span = spec.key_origin(*path, key)
    message = f"`{term.name}` has no argument `{key}`"
    otherwise = f"its arguments are {', '.join(known)}" if known else "it takes none"
    problems.misspelt("0121", message, span, (*path, key), key, known, otherwise)


def describe(parameter: Parameter) -> str:
    """Return a parameter's type in words."""
    return (
        " or ".join(_WORDS.get(a) or f"`{a[1:-1]}`" for a in parameter.alternatives if a != "any")
        or "a value"
    )


def usage(signature: Signature) -> str:
    """Return a signature as one would write it: `conv(out, kernel, stride=1, ...)`."""
    parts = [
        p.name if p.default is REQUIRED else f"{p.name}={print_value(p.default)}"
        for p in signature.parameters[:4]
    ]
    more = signature.open or len(signature.parameters) > 4
    return f"{signature.name}({', '.join(parts + ['...'] * more)})"
