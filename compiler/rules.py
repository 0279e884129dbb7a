"""What does `learn` say of a block? The last entry that matches wins, key by key."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from lpc.specs.model import Path, Rule, Spec
from lpc.specs.source import Span


def stated(spec: Spec, block: str, key: str, *, by_name: bool = False) -> Any:
    """Return what `learn` says about `key` of a block; None where it says nothing.

    With `by_name` only entries count that name the block without a wildcard.
    """
    for rule in reversed(spec.learn):
        if matches(rule, block, by_name=by_name) and getattr(rule, key) is not None:
            return getattr(rule, key)
    return None


def stated_at(spec: Spec, block: str, key: str) -> Span | None:
    """Return where `learn` says it, or where `learn` is."""
    return spec.origin(*stated_path(spec, block, key))


def stated_path(spec: Spec, block: str, key: str) -> Path:
    """Return the path of what `learn` says about `key` of a block, or that of `learn`."""
    for index, rule in reversed(list(enumerate(spec.learn))):
        if matches(rule, block) and getattr(rule, key) is not None:
            return ("learn", index, key)
    return ("learn",)


def matches(rule: Rule, block: str, *, by_name: bool = False) -> bool:
    """Does an entry speak of this block?"""
    patterns = rule.blocks or ()
    if by_name:
        patterns = tuple(p for p in patterns if not set(p) & set("*?["))
    return any(fnmatchcase(block, p) for p in patterns)


def parameter_rules(spec: Spec, block: str, name: str) -> tuple[float | None, float]:
    """Return the weight decay (None: the optimizer's own) and learning-rate factor of a block's parameter."""
    decay, factor = None, 1.0
    for rule in spec.learn:
        here = rule.blocks is None or matches(rule, block)
        if here and any(fnmatchcase(name, p) for p in rule.params or ()):
            decay = rule.weight_decay if rule.weight_decay is not None else decay
            factor = rule.lr_factor if rule.lr_factor is not None else factor
    return decay, factor
