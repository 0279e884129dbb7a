"""What is in each block, and what crosses each boundary? Attributes, read off a finished placement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lpc.compiler.partition.shapes import dtype_name, per_sample
from lpc.compiler.partition.view import Site, View

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Placed:
    """One fx graph and the block of each of its sites."""

    view: View
    blocks: list[str]


@dataclass
class Block:
    """The contents of one block in graph order, gathered in one walk over each graph."""

    train: list[Site] = field(default_factory=list)
    eval: list[Site] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)

    def attributes(self, hint_batch: int, inputs: Sequence[str]) -> Attributes:
        """Return the attributes that are sums over nodes; flops and bytes are per sample."""
        computed = [site for site in self.train if site.kind == "tensor"]
        return {
            "modules": tuple(self.modules),
            "nodes": {"train": _names(self.train), "eval": _names(self.eval)},
            "buffers": _union(site.buffers for site in [*computed, *self.eval]),
            "reads": _sorted_like(inputs, _union(site.reads for site in computed)),
            "flops": sum(site.flops for site in computed) // hint_batch,
            "activation_bytes": sum(site.bytes for site in computed) // hint_batch,
        }


def gather(order: Iterable[str], train: Placed, evaluation: Placed) -> dict[str, Block]:
    """Return every block's contents, in the given order of blocks."""
    blocks = {name: Block() for name in order}
    for site, name in zip(train.view.sites, train.blocks, strict=True):
        blocks[name].train.append(site)
    for site, name in zip(evaluation.view.sites, evaluation.blocks, strict=True):
        blocks[name].eval.append(site)
    for path, name in folded_modules(train.view, train.blocks):
        blocks[name].modules.append(path)
    return blocks


def folded_modules(view: View, blocks: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (module path, block) for the outermost modules that lie in one block entirely, in graph order."""
    owner: dict[str, str | None] = {}
    paths: dict[str, None] = {}
    for site, block in zip(view.sites, blocks, strict=True):
        if site.kind != "tensor":
            continue
        paths.setdefault(site.path)
        for path in _with_ancestors(site.path):
            if owner.setdefault(path, block) != block:
                owner[path] = None
    seen: set[str] = set()
    for path in paths:
        whole = [p for p in _with_ancestors(path) if owner[p] is not None]
        if whole and whole[-1] not in seen:
            seen.add(whole[-1])
            yield whole[-1], str(owner[whole[-1]])


def boundary_tensors(view: View, blocks: list[str]) -> dict[tuple[str, str], tuple[Attributes, ...]]:
    """Return for each pair of blocks the tensors that cross, each once, in graph order of the producers."""
    crossing: dict[tuple[str, str], dict[int, None]] = {}
    for site in view.sites:
        if site.kind != "tensor":
            continue
        own = blocks[site.index]
        for producer in site.producers:
            if view.sites[producer].kind == "tensor" and blocks[producer] != own:
                crossing.setdefault((blocks[producer], own), {}).setdefault(producer)
    return {
        pair: tuple(entry for p in sorted(producers) for entry in _tensors(view, view.sites[p]))
        for pair, producers in crossing.items()
    }


def _tensors(view: View, site: Site) -> Iterator[Attributes]:
    """Describe a site's tensor; the tensors of a tuple that crosses whole are `name[0]`, `name[1]`, ..."""
    value = site.node.meta["val"]
    if isinstance(value, torch.Tensor):
        yield _tensor(view, site.node.name, value)
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, element in items:
        if isinstance(element, torch.Tensor):
            yield _tensor(view, f"{site.node.name}[{key}]", element)


def _tensor(view: View, name: str, tensor: torch.Tensor) -> Attributes:
    symbols: Mapping[str, str] = view.module.meta.get("symbols", {})
    sample = per_sample(tensor, symbols)
    return {
        "name": name,
        "shape": list(sample.shape),
        "dtype": dtype_name(tensor),
        "bytes": _sample_bytes(tensor, view.module.meta["hint_batch"] if sample.batched else 1),
    }


def _sample_bytes(tensor: torch.Tensor, batch: int) -> int:
    """Count the bytes at the lengths of the example inputs, for one sample."""
    elements = 1
    lengths: tuple[Any, ...] = tuple(tensor.shape)
    for size in lengths:
        elements *= int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)
    return elements * tensor.element_size() // batch


def _sorted_like(order: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    rank = {name: position for position, name in enumerate(order)}
    return tuple(sorted(names, key=lambda name: rank.get(name, len(rank))))


def _names(sites: Iterable[Site]) -> tuple[str, ...]:
    return tuple(site.node.name for site in sites)


def _union(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _with_ancestors(path: str) -> Iterator[str]:
    """Yield a module path and the modules above it, innermost first; the root is no module of a block."""
    while path:
        yield path
        path = path.rpartition(".")[0]
