"""What is a selector that matches nothing which is called: a misspelt name, or a module that runs under another one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from lpc.compiler.partition.selectors import SelectorTable, with_parents
from lpc.compiler.partition.view import View
from lpc.specs.diagnostics import Diagnostic, did_you_mean, listing
from lpc.specs.source import Span


def unmatched(view: View, selector: str, span: Span | None, names: list[str]) -> Diagnostic:
    """Return what is told of a selector without a match (0301); `names` may be meant besides modules that run."""
    called = with_parents(s.path for s in view.sites)
    known: nn.Module | None = view.module.meta.get("network")
    modules = dict(known.named_modules(remove_duplicate=False)) if known is not None else {}
    found = next((path for path in modules if _matches(selector, path)), None)
    if found is not None:
        return _uncalled(found, modules, called, span)
    return Diagnostic(
        "0301",
        f"the selector `{selector}` matches no module of the network",
        span=span,
        notes=(f"the network's top level is {listing(path for path in called if '.' not in path)}",),
        help=did_you_mean(selector, called) or did_you_mean(selector, names),
    )


def _uncalled(found: str, modules: Mapping[str, nn.Module], called: Sequence[str], span: Span | None) -> Diagnostic:
    message = f"`{found}` is a module of the network, and is not called under that name"
    itself = [path for path in called if path != found and modules.get(path) is modules[found]]
    shared = [path for path in called if path in modules and _shared(modules[path], modules[found])]
    inside = [path for path in called if path.startswith(f"{found}.")]
    notes = {"it is called as": itself, "inside it are called": inside, "it shares its parameters with": shared}
    told, names = next(((told, names) for told, names in notes.items() if names), ("", []))
    help = f"select `{names[0]}` instead" if names else "leave it out: the network runs without it"
    return Diagnostic("0301", message, span, notes=(f"{told} {listing(names)}",) if names else (), help=help)


def _matches(selector: str, path: str) -> bool:
    table: SelectorTable[None] = SelectorTable()
    table.add(selector, None)
    return any(matched == path for matched, _ in table.find(path))


def _shared(one: nn.Module, other: nn.Module) -> bool:
    held, wanted = ({id(p) for p in module.parameters()} for module in (one, other))
    return bool(held) and held == wanted
