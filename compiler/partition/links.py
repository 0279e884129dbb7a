"""Which link does a boundary have? `decompose.links`, resolved for every pair of blocks that meet.

`a->b` beats a pattern such as `a->*`, which beats `*`; of two equally exact keys the later wins; the default
is `stop`. Block names are plain labels here: in a pattern `*` also matches dots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from lpc.compiler.partition.selectors import is_glob
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean, listing
from lpc.specs.model import Spec
from lpc.specs.term import Term

ARROW = "->"
Boundary = tuple[str, str]


def resolve_links(boundaries: Iterable[Boundary], spec: Spec) -> Mapping[Boundary, Term]:
    """Return the link of every boundary. Raises LpcError for a key other than `*` that names no boundary."""
    edges = list(boundaries)
    links = dict.fromkeys(edges, Term("stop"))
    unused = [key for key in _by_exactness(spec.decompose.links) if not _apply(key, spec, links)]
    if unused:
        raise LpcError([_unmatched(key, edges, spec) for key in unused])
    return links


def _apply(key: str, spec: Spec, links: dict[Boundary, Term]) -> bool:
    """Set the link wherever `key` matches; return whether the key was of use."""
    one, arrow, other = (part.strip() for part in key.partition(ARROW))
    if key == "*":
        one, arrow, other = "*", ARROW, "*"
    if arrow and not is_glob(one + other):
        matches = [(one, other)] if (one, other) in links else []
    else:
        matches = [e for e in links if arrow and fnmatchcase(e[0], one) and fnmatchcase(e[1], other)]
    links.update(dict.fromkeys(matches, spec.decompose.links[key]))
    return key == "*" or bool(matches)


def _by_exactness(keys: Iterable[str]) -> list[str]:
    return sorted(keys, key=lambda key: (key != "*") + (key != "*" and not is_glob(key)))


def _unmatched(key: str, edges: list[Boundary], spec: Spec) -> Diagnostic:
    known = [f"{one}{ARROW}{other}" for one, other in edges]
    return Diagnostic(
        "0309",
        f"the link `{key}` names no boundary",
        span=spec.key_origin("decompose", "links", key),
        notes=(
            f"the boundaries are {listing(known)}" if known else "the network has one block and no boundary",
        ),
        help=did_you_mean(key, known),
    )
