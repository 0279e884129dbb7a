"""Does every block learn? Rules across `decompose`, `learn` and `loss`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from lpc.specs.check_solving import without_optimizers
from lpc.specs.check_terms import placed_terms
from lpc.specs.diagnostics import Label
from lpc.specs.model import Path, Rule, Spec
from lpc.specs.plan.optimizers import misnamed
from lpc.specs.problems import Problems
from lpc.specs.signatures import LOSSES, OTHER_OPTIMIZER
from lpc.specs.term import Term

_PROBLEM_KEYS = (
    "head", "loss", "aggregate", "reduction", "estimator", "correct", "optimizer", "solver", "steps", "state", "prox",
    "outer", "schedule", "clip", "memory",
)  # fmt: skip
_PARAMETER_KEYS = ("train", "weight_decay", "lr_factor")


def block_names(spec: Spec) -> tuple[str, ...] | None:
    """Return the names of the blocks; None where only the network tells them."""
    blocks = spec.decompose.blocks
    if isinstance(blocks, Term) or any(isinstance(s, Term) for group in blocks.values() for s in group):
        return None
    return tuple(blocks)


def said(spec: Spec, block: str, key: str) -> tuple[int, Any] | None:
    """Return the position and value of the last entry that matches the block and says `key`."""
    for i in range(len(spec.learn) - 1, -1, -1):
        rule = spec.learn[i]
        value = getattr(rule, key)
        if value is not None and any(fnmatchcase(block, pattern) for pattern in rule.blocks or ()):
            return i, value
    return None


def may_freeze(spec: Spec) -> bool:
    """Tell whether a block may have nothing to train, and so need neither loss nor optimizer; building tells which."""
    return bool(spec.adapters) or any(rule.train is False for rule in spec.learn)


def selectors_once(spec: Spec, problems: Problems) -> None:
    """0131: no selector stands in two blocks."""
    blocks = spec.decompose.blocks
    if isinstance(blocks, Term):
        return
    owners: dict[str, str] = {}
    for name, selectors in blocks.items():
        for i, selector in enumerate(selectors):
            path: Path = ("decompose", "blocks", name, i)
            owner = owners.setdefault(str(selector), name)
            if owner != name or str(selector) in map(str, selectors[:i]):
                message = f"`{selector}` is already in block `{owner}`"
                first = spec.origin("decompose", "blocks", owner)
                labels = (Label(first, f"block `{owner}`"),) if first else ()
                problems.add("0131", message, spec.origin(*path), path, labels=labels)


def blocks_hold(spec: Spec, problems: Problems) -> None:
    """0114: there are blocks, and each selects something."""
    blocks = spec.decompose.blocks
    path: Path = ("decompose", "blocks")
    if isinstance(blocks, Term):
        count = blocks.args[0] if blocks.args else blocks.kwargs.get("count", 1)
        if blocks.name == "balanced" and isinstance(count, int) and count < 1:
            problems.add("0114", "`balanced` needs a count from 1", spec.origin(*path), path)
        return
    if not blocks:
        problems.add("0114", "`blocks` names no block", spec.origin(*path), path, help="add `b1: LAYER`")
    for name, selectors in blocks.items():
        if not selectors:
            message = f"block `{name}` selects nothing"
            problems.add(
                "0114", message, spec.key_origin(*path, name), (*path, name), help="add module paths"
            )
        if not name or "->" in name or any(c.isspace() for c in name):
            message = f"`{name}` cannot name a block"
            problems.add("0114", message, spec.key_origin(*path, name), (*path, name), help="use a word")


def link_ends(spec: Spec, problems: Problems) -> None:
    """0137: links stand under `*` or `a->b`, with blocks that exist."""
    names = block_names(spec)
    for key in spec.decompose.links:
        path: Path = ("decompose", "links", key)
        if key == "*":
            continue
        ends = [end.strip() for end in key.split("->")]
        if len(ends) != 2 or not all(ends):
            problems.add("0137", f"`{key}` is no boundary", spec.key_origin(*path), path)
            continue
        for end in ends:
            if names is not None and not any(fnmatchcase(name, end) for name in names):
                message = f"the link `{key}` names `{end}`, which is no block"
                otherwise = f"the blocks are {', '.join(names)}"
                problems.misspelt("0137", message, spec.key_origin(*path), path, end, names, otherwise)


def entries(spec: Spec, problems: Problems) -> None:
    """0143: a `learn` entry sets local problems by `blocks`, or parameter rules by `params`."""
    for i, rule in enumerate(spec.learn):
        path: Path = ("learn", i)
        if rule.blocks is None and rule.params is None:
            problems.add(
                "0143", "a `learn` entry has neither `blocks` nor `params`", spec.origin(*path), path
            )
            continue
        wrong = _PROBLEM_KEYS if rule.params is not None else _PARAMETER_KEYS
        wanted = "blocks" if rule.params is not None else "params"
        for key in wrong:
            if getattr(rule, key) is not None:
                message = f"`{key}` belongs to an entry with `{wanted}`" + (" alone" if rule.params else "")
                problems.add("0143", message, spec.key_origin(*path, key), (*path, key))


def entries_match(spec: Spec, problems: Problems) -> None:
    """0132: every pattern of a `learn` entry matches a block."""
    names = block_names(spec) or ()
    for path, pattern in _idle_patterns(spec):
        message, otherwise = f"`{pattern}` matches no block", f"the blocks are {', '.join(names)}"
        problems.misspelt("0132", message, spec.origin(*path), path, pattern, names, otherwise)


def _idle_patterns(spec: Spec) -> list[tuple[Path, str]]:
    """Return the patterns of `learn` that match no block; what they should have said, their blocks seem to lack."""
    names = block_names(spec)
    placed = [(("learn", i, "blocks", j), p) for i, r in enumerate(spec.learn) for j, p in enumerate(r.blocks or ())]
    return [(path, p) for path, p in placed if names is not None and not any(fnmatchcase(n, p) for n in names)]


def optimizers(spec: Spec, problems: Problems) -> None:
    """0133: every block has an optimizer; where a solver finds the weights at once, building tells who needs one."""
    if _idle_patterns(spec) or without_optimizers(spec):
        return
    names = block_names(spec)
    if names is None or not any(rule.optimizer for rule in spec.learn):
        if not any(rule.optimizer for rule in spec.learn):
            message = "no `learn` entry has an optimizer"
            problems.add("0133", message, spec.key_origin("learn"), ("learn",))
        return
    for name in names if not may_freeze(spec) else ():
        if said(spec, name, "optimizer") is None:
            path: Path = ("decompose", "blocks", name)
            problems.add("0133", f"block `{name}` has no optimizer", spec.key_origin(*path), path)


def optimizer_classes(spec: Spec, problems: Problems) -> None:
    """0652: a class of a package is written `package:Class`, of a package that plans may name."""
    for vocabulary, path, term in placed_terms(spec):
        if vocabulary == "optimizer" and term.name == OTHER_OPTIMIZER.name:
            where: Path = (*path, 0) if term.args else (*path, "path")
            name = term.args[0] if term.args else term.kwargs.get("path")
            wrong = misnamed(name) if isinstance(name, str) else None
            if wrong is not None:
                problems.add("0652", wrong, spec.origin(*where), where)


def output_loss(spec: Spec, problems: Problems) -> None:
    """0134: some loss exists."""
    if not spec.loss and not any(rule.loss for rule in spec.learn):
        problems.add("0134", "the spec has no loss at all", spec.origin(), ())


def signals(spec: Spec, problems: Problems) -> None:
    """0135: behind stop links, every block but the output's has a local loss."""
    links = spec.decompose.links.values()
    excused = may_freeze(spec) or _idle_patterns(spec)
    if excused or any(link.name != "stop" for link in links) or "*" not in spec.decompose.links:
        return
    notes = spec.by_default("decompose", "links")
    silent = "only stop links leave it, so nothing would train it"
    names = block_names(spec)
    if names is None:
        blocks = spec.decompose.blocks
        if isinstance(blocks, Term) and blocks.name == "balanced" and not any(r.loss for r in spec.learn):
            path: Path = ("decompose", "blocks")
            message = "no block but the last has a loss: only stop links leave the others"
            if blocks.args[:1] != (1,) and blocks.kwargs.get("count") != 1:
                problems.add("0135", message, spec.origin(*path), path, notes=notes)
        return
    # Which block owns the output only the network tells; one block may have no loss of its own.
    mute = [name for name in names if not (said(spec, name, "loss") or (0, ()))[1]]
    for name in mute[:-1]:
        path = ("decompose", "blocks", name)
        message = f"block `{name}` has no local loss and {silent}"
        problems.add("0135", message, spec.key_origin(*path), path, notes=notes)


def split_batches(spec: Spec, problems: Problems) -> None:
    """0144: a loss that couples the samples of a batch is not computed on parts of it, unless it says so."""
    keys = spec.run.splits
    if not keys:
        return
    said = f"`{keys[0]}` splits it into {getattr(spec.run, keys[0])}"
    pieces = tuple(key for key in keys if key != "accumulate")
    placed: list[tuple[Term, Path]] = [(loss, ("loss", i)) for i, loss in enumerate(spec.loss)]
    placed += [(loss, ("learn", i, "loss", j)) for i, rule in enumerate(spec.learn)
               for j, loss in enumerate(rule.loss or ())]  # fmt: skip
    for loss, path in placed:
        signature = LOSSES.get(loss.name)
        given = signature.bind(loss) if signature is not None else loss.kwargs
        if pieces and given.get("reduction") == "sum":
            message = f"`{loss.name}` is a sum over a batch, and those of its pieces are averaged: {said}"
            problems.add("0144", message, spec.origin(*path), path, help="take the mean, or remove the key")
        if signature is None or signature.parameter("split") is None or given["split"] == "allowed":
            continue
        problems.add("0144", f"`{loss.name}` couples the samples of a batch, and {said}", spec.origin(*path), path)
    data = spec.data
    if pieces and data is not None and (data.contrast is not None or data.views > 1):
        what = "a contrast" if data.contrast is not None else "views"
        message = f"samples of a batch belong together by {what}, and {said}"
        problems.add("0144", message, spec.origin("run", pieces[0]), ("run", pieces[0]), help=f"remove `{pieces[0]}`")


def heads(spec: Spec, problems: Problems) -> None:
    """0136: a head serves a loss."""
    names = block_names(spec)
    for i, rule in enumerate(spec.learn):
        if rule.head is None or rule.head.name == "identity":
            continue
        if _head_is_idle(spec, i, rule, names):
            path: Path = ("learn", i, "head")
            problems.add("0136", f"the head `{rule.head}` has no loss", spec.origin(*path), path)


def _head_is_idle(spec: Spec, i: int, rule: Rule, names: tuple[str, ...] | None) -> bool:
    """Tell whether no block that takes its head from entry `i` has a local loss."""
    if names is None:
        return not any(other.loss for other in spec.learn)
    takers = [name for name in names if (said(spec, name, "head") or (-1, None))[0] == i]
    return bool(takers) and not any((said(spec, name, "loss") or (0, ()))[1] for name in takers)
