"""Which layers of a network are adapted? Those that `adapters` names, through peft; everything else is frozen."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import fx, nn

from lpc.compiler.frontend.places import first_line
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean, listing
from lpc.specs.globs import split_globs
from lpc.specs.model import Spec
from lpc.specs.signatures import ADAPTERS
from lpc.specs.term import Term

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """An adapter of peft: its configuration class, what of it the options are, and the layers that it can adapt."""

    config: str
    arguments: Callable[[Options], dict[str, Any]]
    layers: tuple[type[nn.Module], ...]
    follows_dilation: bool


def _lora(options: Options) -> dict[str, Any]:
    return {"r": options["rank"], "lora_alpha": _alpha(options), "lora_dropout": options["dropout"]}


def _lokr(options: Options) -> dict[str, Any]:
    return {"r": options["rank"], "alpha": _alpha(options), "decompose_factor": options["factor"] or -1}


def _alpha(options: Options) -> float:
    alpha = options["alpha"]
    return float(options["rank"] if alpha is None else alpha)


# peft's LoRA convolutions leave the dilation of the layer that they adapt out.
KINDS: dict[str, Kind] = {
    "lora": Kind("LoraConfig", _lora, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d), follows_dilation=False),
    "lokr": Kind("LoKrConfig", _lokr, (nn.Linear, nn.Conv1d, nn.Conv2d), follows_dilation=True),
}


def adapt(module: nn.Module, spec: Spec) -> tuple[str, ...]:
    """Put the spec's adapters into a network, in place, and freeze all but them and what they `train`.

    Returns the paths of the adapted layers. A layer at `p` is then peft's: its own state is named `p.base_layer.*`, the
    adapter's `p.lora_A.default.weight`, `p.lokr_w1.default` and so on. Draws the adapters' values from torch's
    generator. Raises LpcError where a selector matches nothing, or a layer that cannot be adapted.
    """
    if not spec.adapters:
        return ()
    peft = _peft(spec)
    bound = [ADAPTERS[term.name].bind(term) for term in spec.adapters]
    trained = [p for i, options in enumerate(bound) for p in _trained(spec, i, options, module)]
    targets = [_targets(spec, i, options, module) for i, options in enumerate(bound)]
    _ensure_disjoint(spec, targets)
    for i, options in enumerate(bound):
        _inject(spec, i, options, targets[i], module, peft)
    paths = tuple(path for group in targets for path in group)
    module.requires_grad_(False)
    for parameter in (*_own(module, paths).values(), *trained):
        parameter.requires_grad_()
    return paths


def ensure_called(spec: Spec, module: nn.Module, graph: fx.GraphModule, paths: Iterable[str]) -> None:
    """Refuse adapters that the traced network never computes: some networks read a layer's weight by themselves."""
    used = {name for node in graph.graph.nodes for name in node.meta["parameters"]}
    for path in paths:
        if used.isdisjoint(_own(module, [path])):
            message = f"the network reads the weight of `{path}` without calling the layer, so no adapter can act there"
            raise _problem(spec, _index(spec, path), "targets", message, help="leave the layer out of `targets`")


def merge(spec: Spec, module: nn.Module, paths: Iterable[str]) -> None:
    """Add the adapters' changes to the weights that they adapt, in place, and leave the network's own layers.

    Raises LpcError where peft cannot merge: LoRA on grouped convolutions.
    """
    for path in paths:
        layer: Any = module.get_submodule(path)
        try:
            layer.merge()
        except NotImplementedError as error:
            message = f"peft cannot merge the adapter of `{path}`"
            raise _problem(spec, _index(spec, path), "targets", message, first_line(error)) from error
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, layer.get_base_layer())


def _index(spec: Spec, path: str) -> int:
    """Return which of the spec's adapters is that of a layer."""
    return next(i for i, term in enumerate(spec.adapters) if _selects(term, path))


def _selects(term: Term, path: str) -> bool:
    return any(fnmatchcase(path, glob) for glob in split_globs(ADAPTERS[term.name].bind(term)["targets"]))


def _own(module: nn.Module, paths: Iterable[str]) -> dict[str, nn.Parameter]:
    """Return the parameters that adapters brought along, by name."""
    return {
        f"{path}.{name}": parameter
        for path in paths
        for name, parameter in module.get_submodule(path).named_parameters()
        if not name.startswith("base_layer.")
    }


def _peft(spec: Spec) -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        span, message = spec.origin("adapters"), "`adapters` needs `peft`, which is not installed"
        place = None if span else "spec: adapters"
        raise LpcError(Diagnostic("0216", message, span, place, help="pip install 'lpc[models]'")) from error


def _trained(spec: Spec, index: int, options: Options, module: nn.Module) -> list[nn.Parameter]:
    """Return the network's own parameters that an adapter's `train` names."""
    named = dict(module.named_parameters(remove_duplicate=False))
    found = []
    for glob in split_globs(options["train"]):
        matching = [parameter for name, parameter in named.items() if fnmatchcase(name, glob)]
        if not matching:
            message = f"`{glob}` matches no parameter of the network"
            help = did_you_mean(glob, named) or f"its parameters are {listing(named)}"
            raise _problem(spec, index, "train", message, help=help)
        found += matching
    return found


def _targets(spec: Spec, index: int, options: Options, module: nn.Module) -> list[str]:
    """Return the paths of the layers that an adapter's `targets` name, each of a kind that it can adapt."""
    term, parts = spec.adapters[index], dict(module.named_modules(remove_duplicate=False))
    places = Counter(map(id, parts.values()))
    kind = KINDS[term.name]
    fitting = [path for path, part in parts.items() if path and unfit(kind, part) is None]
    found: dict[str, None] = {}
    for glob in split_globs(options["targets"]):
        matching = [path for path in parts if path and fnmatchcase(path, glob)]
        if not matching:
            help = did_you_mean(glob, fitting) or f"`{term.name}` can adapt {listing(fitting)}"
            raise _problem(spec, index, "targets", f"`{glob}` matches no layer of the network", help=help)
        for path in matching:
            cause = unfit(kind, parts[path])
            if cause is None and places[id(parts[path])] > 1:
                cause = "it stands at several places of the network"
            if cause is not None:
                others = [p for p in fitting if p != path]
                near = [p for p in others if p in matching or p.startswith(f"{path}.")] or others
                message = f"`{term.name}` cannot adapt `{path}`: {cause}"
                raise _problem(spec, index, "targets", message, help=f"name layers such as {listing(near)}")
        found |= dict.fromkeys(matching)
    return list(found)


def unfit(kind: Kind, layer: nn.Module) -> str | None:
    """Return why a layer cannot be adapted; None where it can."""
    if not isinstance(layer, kind.layers) and not (KINDS["lora"] is kind and _is_transposed_linear(layer)):
        kinds = ", ".join(f"`{known.__name__}`" for known in kind.layers)
        return f"it is of the kind `{type(layer).__name__}`, not one of {kinds}"
    if type(layer).__name__ == "NonDynamicallyQuantizableLinear":
        return "torch's attention reads its weight without calling it"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return f"its padding is `{layer.padding_mode}`, and the adapter would pad with zeros"
    if not kind.follows_dilation and any(step != 1 for step in getattr(layer, "dilation", ())):
        return f"its dilation is {layer.dilation}, which peft's adapter does not follow; `lokr` does"
    return None


def _is_transposed_linear(layer: nn.Module) -> bool:
    """GPT-2's linear layers are of a class of transformers' own."""
    return type(layer).__name__ == "Conv1D" and type(layer).__module__.startswith("transformers.")


def _ensure_disjoint(spec: Spec, targets: list[list[str]]) -> None:
    first: dict[str, int] = {}
    for index, paths in enumerate(targets):
        for path in paths:
            if first.setdefault(path, index) != index:
                message = f"`{path}` is adapted already, by `{spec.adapters[first[path]].name}`"
                raise _problem(spec, index, "targets", message, help="leave each layer to one adapter")


def _inject(spec: Spec, index: int, options: Options, paths: list[str], module: nn.Module, peft: Any) -> None:
    kind = KINDS[spec.adapters[index].name]
    # A list would also match layers whose paths merely end like one of these.
    pattern = "|".join(map(re.escape, paths))
    config = getattr(peft, kind.config)(target_modules=f"({pattern})", **kind.arguments(options))
    try:
        peft.inject_adapter_in_model(config, module)
    except Exception as error:
        message = f"peft refuses `{spec.adapters[index].name}` on this network"
        raise _problem(spec, index, "targets", message, first_line(error)) from error
    for path in paths:
        _always_apply(module.get_submodule(path))


def _always_apply(layer: nn.Module) -> None:
    """Keep peft from drawing whether to apply an adapter, as its LoKr layers do for `module_dropout` even at 0.

    They do so in train mode only, and their own mode decides nothing else here; that of the modules inside them,
    such as LoRA's dropout, is theirs.
    """
    if "module_dropout" in vars(layer):
        mode = property(lambda self: False, lambda self, training: None)
        layer.__class__ = type(type(layer).__name__, (type(layer),), {"training": mode})


def _problem(spec: Spec, index: int, key: str, text: str, *notes: str, help: str | None = None) -> LpcError:
    span = spec.origin("adapters", index, key)
    return LpcError(Diagnostic("0217", text, span, None if span else f"spec: adapters[{index}].{key}", notes, help))
