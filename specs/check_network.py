"""Can the network be what the spec says? Rules across the keys of `network`, `data`, `fields` and `run`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lpc.specs.check_terms import placed_layers
from lpc.specs.diagnostics import Label
from lpc.specs.globs import split_globs
from lpc.specs.model import Layer, Path, Spec
from lpc.specs.problems import Problems
from lpc.specs.signatures import MERGES, STRUCTURES, VOCABULARIES

MAX_LAYERS = 10_000

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")

LONGEST_NAME = 100  # bytes, of a spec's name

_NO_FILE = re.compile(r"[/\\\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def one_network(spec: Spec, problems: Problems) -> None:
    """0130: exactly one of `layers`, `module` and `zoo`, each with its own arguments."""
    network = spec.network
    given = [key for key in ("layers", "module", "zoo") if getattr(network, key) is not None]
    if len(given) != 1:
        found = " and ".join(f"`{key}`" for key in given) or "none of `layers`, `module` and `zoo`"
        path: Path = ("network", given[1]) if given else ("network",)
        problems.add("0130", f"`network` has {found}", spec.key_origin(*path), path)
        return
    for key, owner in (("config", "module"), ("args", "zoo")):
        if getattr(network, key) and given[0] != owner:
            message = f"`{key}` goes with `{owner}`, this network is given by `{given[0]}`"
            problems.add("0130", message, spec.key_origin("network", key), ("network", key))


def inputs_given(spec: Spec, problems: Problems) -> None:
    """0141: layers and modules need the shape of a sample."""
    if not spec.network.inputs and spec.network.zoo is None:
        problems.add("0141", "`network` has no `inputs`", spec.key_origin("network"), ("network",))


def tensors(spec: Spec, problems: Problems) -> None:
    """0114: dtypes and lengths of inputs and fields."""
    tables = ((("network", "inputs"), spec.network.inputs), (("fields",), spec.fields))
    for prefix, table in tables:
        for name, tensor in table.items():
            path: Path = (*prefix, name)
            if tensor.dtype not in DTYPES:
                message, otherwise = f"there is no dtype `{tensor.dtype}`", f"the dtypes are {', '.join(DTYPES)}"
                span = spec.origin(*path, "dtype")
                problems.misspelt("0114", message, span, path, tensor.dtype, DTYPES, otherwise)
            for i, size in enumerate(tensor.shape):
                if size < 1 if isinstance(size, int) else not _NAME.fullmatch(size):
                    message = f"`{size}` is no length: a number from 1, or a name such as `T`"
                    problems.add("0114", message, spec.origin(*path, "shape", i), path)


def module_path(spec: Spec, problems: Problems) -> None:
    """0114: a module is named `package:Class`."""
    module = spec.network.module
    if module is not None and not _MODULE.fullmatch(module):
        message = f"`{module}` is no module path, expected `package:Class`"
        problems.add("0114", message, spec.origin("network", "module"), ("network", "module"))


def adapters(spec: Spec, problems: Problems) -> None:
    """0114: an adapter names the layers it goes to."""
    for i, term in enumerate(spec.adapters):
        for key in ("targets", "train"):
            given = term.kwargs.get(key, term.args[0] if key == "targets" and term.args else None)
            if given is not None and not split_globs(given):
                path: Path = ("adapters", i, key)
                message = f"`{key}` of `{term.name}` names nothing"
                problems.add("0114", message, spec.origin(*path), path, help=f'write `{key}="*.query|*.value"`')


def layer_names(spec: Spec, problems: Problems) -> None:
    """0140: names are words, and each is used once in its list."""
    for prefix, layers in _lists(spec.network.layers or (), ("network", "layers")):
        seen: dict[str, Path] = {}
        for i, layer in enumerate(layers):
            if layer.name is None:
                continue
            span, path = spec.origin(*prefix, i, "name"), (*prefix, i)
            if not _NAME.fullmatch(layer.name):
                help = "use letters, digits and `_`"
                problems.add("0140", f"`{layer.name}` cannot name a layer", span, path, help=help)
            if layer.name in seen:
                first = spec.origin(*seen[layer.name], "name")
                labels = (Label(first, "the first of them"),) if first else ()
                message = f"two layers are named `{layer.name}`"
                problems.add("0140", message, span, path, "rename one of them", labels=labels)
            seen.setdefault(layer.name, path)


def _lists(layers: tuple[Layer, ...], path: Path) -> Iterator[tuple[Path, tuple[Layer, ...]]]:
    """Yield every list of layers, outer ones first."""
    yield path, layers
    for i, layer in enumerate(layers):
        yield from _lists(layer.body, (*path, i, "body")) if layer.body else ()
        for name, body in layer.branches.items():
            yield from _lists(body, (*path, i, "branches", name))


def structures(spec: Spec, problems: Problems) -> None:
    """0140: a structure holds layers. 0103: repeats do not expand without bound."""
    layers = spec.network.layers
    if layers is None:
        return
    path: Path = ("network", "layers")
    if not layers:
        problems.add("0140", "the network has no layers", spec.origin(*path), path, help="add a layer")
    if _expanded(layers) > MAX_LAYERS:
        message = f"the repeats expand to more than {MAX_LAYERS} layers"
        problems.add("0103", message, spec.origin(*path), path)
    for place, layer in placed_layers(layers, path):
        if layer.op.name in STRUCTURES and not (layer.body or layer.branches):
            help = f"write the layers after a colon: `{layer.op}: [linear(10), relu]`"
            problems.add("0140", f"`{layer.op.name}` holds no layers", spec.origin(*place), place, help=help)
        if layer.op.name == "repeat" and _count(layer) < 1:
            problems.add("0140", "`repeat` needs a count from 1", spec.origin(*place, "op"), place)


def _count(layer: Layer) -> int:
    if layer.op.name != "repeat":
        return 1
    count = layer.op.args[0] if layer.op.args else layer.op.kwargs.get("n", 1)
    return count if isinstance(count, int) else 1


def _expanded(layers: tuple[Layer, ...]) -> int:
    """Return the number of layers after repeating."""
    inner = (sum(map(_expanded, (layer.body, *layer.branches.values()))) * _count(layer) for layer in layers)
    return len(layers) + sum(max(0, n) for n in inner)


def wiring(spec: Spec, problems: Problems) -> None:
    """0140: `from` names layers or inputs; merges name at least two."""
    placed = list(placed_layers(spec.network.layers or (), ("network", "layers")))
    known = {layer.name for _, layer in placed if layer.name} | set(spec.network.inputs)
    ops = {layer.op.name for _, layer in placed}
    for path, layer in placed:
        given = layer.op.kwargs.get("from")
        names = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        if layer.op.name in MERGES and len(names) < 2:
            message = f"`{layer.op.name}` joins at least two layers"
            help = f"write `{layer.op.name}(from=[a, b])`"
            problems.add("0140", message, spec.origin(*path, "op"), path, help=help)
        for i, name in enumerate(names):
            # Unnamed layers bear their op and a counter; inner ones are reached through dots.
            if not isinstance(name, str) or name in known or "." in name or name.rstrip("0123456789") in ops:
                continue
            message = f"`from` names `{name}`, which is no layer or input"
            otherwise = "name the layer: `NAME: linear(10)`"
            span = spec.origin(*path, "op", "from", *([i] if isinstance(given, list) else []))
            problems.misspelt("0140", message, span, path, name, sorted(known), otherwise)


def fractions(spec: Spec, problems: Problems) -> None:
    """0138: shares of the data are between 0 and 1."""
    for key in ("test", "validation"):
        share = getattr(spec.data, key, None)
        if isinstance(share, int | float) and not 0 < share < 1:
            path: Path = ("data", key)
            problems.add(
                "0138", f"`{key}` is `{share}`, expected a share between 0 and 1", spec.origin(*path), path
            )


def batch_fields(spec: Spec, problems: Problems) -> None:
    """0142: without `data`, `fields` declares what batches hold besides inputs that are targets themselves."""
    losses = [*spec.loss, *(loss for rule in spec.learn for loss in rule.loss or ())]
    known = VOCABULARIES["loss"]
    reading = [loss for loss in losses if loss.name not in known or known[loss.name].parameter("target")]
    bound = [known[loss.name].bind(loss) if loss.name in known else loss.kwargs for loss in reading]
    own = all(given.get("target") in list(spec.network.inputs) for given in bound)
    if spec.data is None and not spec.fields and not own:
        problems.add("0142", "the spec has neither `data` nor `fields`", spec.origin(), ())


def fields_once(spec: Spec, problems: Problems) -> None:
    """0102: what the network reads is declared by its inputs, and not otherwise under `fields`."""
    for name, declared in spec.fields.items():
        given = spec.network.inputs.get(name)
        if given is not None and given != declared:
            message = f"`{name}` is declared as an input of the network and, otherwise, under `fields`"
            path: Path = ("fields", name)
            span = spec.key_origin("network", "inputs", name)
            labels = (Label(span, "the input is here"),) if span else ()
            problems.add("0102", message, spec.key_origin(*path), path, labels=labels)


def name(spec: Spec, problems: Problems) -> None:
    """0114: the name of a spec is that of the folder of its runs as well."""
    if spec.name in ("", ".", "..") or len(spec.name.encode()) > LONGEST_NAME or _NO_FILE.search(spec.name):
        message = f"`{spec.name[:40]}` cannot name a spec: runs are kept in a folder of that name"
        help = f"use up to {LONGEST_NAME} letters, digits and signs, no `/`"
        problems.add("0114", message, spec.origin("name"), ("name",), help)


def precision(spec: Spec, problems: Problems) -> None:
    """0114: autocast takes float32 numbers to bfloat16, and leaves float64 as it is."""
    if spec.run.precision != "none" and spec.run.dtype == "float64":
        message = f"`precision: {spec.run.precision}` changes nothing where `run.dtype` is `float64`"
        help = "leave out one of the two"
        problems.add("0114", message, spec.origin("run", "precision"), ("run", "precision"), help)


def length(spec: Spec, problems: Problems) -> None:
    """0139: one of `epochs`, `steps` and `phases`; none, where batches come from Python alone."""
    given = [key for key in ("epochs", "steps", "phases") if getattr(spec.run, key) not in (None, ())]
    if not given and spec.data is not None:
        message = "`run` has neither `epochs` nor `steps`, nor `phases`"
        problems.add("0139", message, spec.key_origin("run"), ("run",))
    if len(given) > 1:
        first, other = given[:2]
        span = spec.key_origin("run", first)  # it may be in another file
        labels = (Label(span, f"`{first}` is here"),) if span else ()
        path: Path = ("run", other)
        problems.add("0139", f"`run` has both `{first}` and `{other}`", spec.key_origin(*path), path, labels=labels)


def run_words(spec: Spec, problems: Problems) -> None:
    """0114: the device is one that torch may have."""
    if not _DEVICE.fullmatch(spec.run.device):
        message = f"`{spec.run.device}` is no device, expected `auto`, `cpu`, `cuda` or `cuda:0`"
        problems.add("0114", message, spec.origin("run", "device"), ("run", "device"))
