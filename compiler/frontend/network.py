"""Which nn.Module does a spec describe? Layers written in it, a class of a package, or a network of ours."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter
from typing import Any

import torch
from torch import nn

from lpc.compiler.frontend.adapters import adapt
from lpc.compiler.frontend.fakes import BATCH, SymbolicShapes
from lpc.compiler.frontend.importing import network_class
from lpc.compiler.frontend.initial import initialise, load_weights
from lpc.compiler.frontend.places import first_line
from lpc.compiler.frontend.pretrained import HUB, is_transformers, make_transformers
from lpc.compiler.frontend.quiet import quiet
from lpc.compiler.frontend.stack import StackBuilder
from lpc.compiler.frontend.zoo import ZOO
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.model import Spec, Tensor
from lpc.specs.signatures import ZOO as ZOO_SIGNATURES
from lpc.specs.source import Span
from lpc.specs.term import Term


@dataclass(frozen=True)
class BuiltNetwork:
    """The network on the CPU in train mode, initialised from `run.seed`, its numbers in `run.dtype`.

    `inputs` are per-sample tensors by name in the order of the module's `forward`; `output` tells which part
    of what it returns is the network's output (a key, an attribute or an index). `native`: written as layers.
    `adapted` are the paths of the layers that carry an adapter.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    output: str | int | None
    native: bool
    adapted: tuple[str, ...] = ()


def build_network(spec: Spec, allow: Sequence[str] = ()) -> BuiltNetwork:
    """Build the network of a spec. The same spec gives bitwise the same weights; global random state stays.

    `allow` lists packages and paths that `network.module` may import besides the default packages.
    Raises LpcError for layers that do not fit, classes that cannot be had, and inputs that `forward` lacks.
    """
    network = spec.network
    make = _layers if network.layers is not None else _library if network.zoo is not None else _package
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(spec.run.seed)
        built = make(spec, allow)
        built.module.to(_dtype(spec))
        if network.weights != "random" and not network.weights.startswith(HUB):
            load_weights(built.module, spec)
        initialise(built.module, spec)
        built = replace(built, adapted=adapt(built.module, spec))
    built.module.train()
    return built


def hint_batch(spec: Spec) -> int:
    """Return the batch size that costs are counted at: at least 2, since torch treats 0 and 1 apart."""
    return max(2, spec.data.batch if spec.data is not None else 8)


def call(module: nn.Module, values: Mapping[str, Any]) -> Any:
    """Call `forward` with inputs by name; a forward without such names takes them in order."""
    if set(values) <= set(inspect.signature(module.forward).parameters):
        return module.forward(**values)
    return module.forward(*values.values())


def _layers(spec: Spec, allow: Sequence[str]) -> BuiltNetwork:
    inputs = _inputs(spec, {})
    builder = StackBuilder(spec, SymbolicShapes(inputs, hint_batch(spec)), _dtype(spec))
    return BuiltNetwork(builder.build(inputs), inputs, None, native=True)


def _library(spec: Spec, allow: Sequence[str]) -> BuiltNetwork:
    name = spec.network.zoo or ""
    if name not in ZOO:
        raise _problem(
            spec, "0206", f"there is no network `{name}` in the library", "zoo", help=did_you_mean(name, ZOO)
        )
    signature = ZOO_SIGNATURES[name]
    known = [parameter.name for parameter in signature.parameters]
    for argument in spec.network.args:
        if argument not in known:
            help = did_you_mean(argument, known)
            raise _misnamed(spec, "0206", f"`{name}` has no argument `{argument}`", "args", argument, help=help)
    arguments = signature.bind(Term(name, (), dict(spec.network.args)))
    module = _make(spec, "args", ZOO[name].make, arguments)
    inputs = _inputs(spec, ZOO[name].inputs(arguments))
    if len(inputs) != 1:
        raise _misnamed(spec, "0203", f"`{name}` has one input, found {len(inputs)}", "inputs")
    return BuiltNetwork(module, inputs, spec.network.output, native=False)


def _package(spec: Spec, allow: Sequence[str]) -> BuiltNetwork:
    found = network_class(spec, allow)
    if is_transformers(found):
        module = make_transformers(found, spec)
    elif spec.network.weights.startswith(HUB):
        text = f"`weights: {spec.network.weights}` is for transformers models, `{found.__name__}` is none"
        raise _problem(spec, "0207", text, "weights")
    else:
        module = _make(spec, "config", found, spec.network.config)
    inputs = _in_forward_order(spec, module, _inputs(spec, {}))
    return BuiltNetwork(module, inputs, spec.network.output, native=False)


def _make(spec: Spec, key: str, make: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return make(**arguments)
    except Exception as error:
        text = f"`{getattr(make, '__name__', make)}` refuses its arguments"
        key = key if arguments else {"config": "module", "args": "zoo"}[key]
        raise _problem(spec, "0206", text, key, first_line(error)) from error


def _inputs(spec: Spec, default: Mapping[str, Tensor]) -> dict[str, Tensor]:
    given = dict(spec.network.inputs) or dict(default)
    if not given:
        raise _misnamed(spec, "0203", "the network's inputs are not declared", "inputs")
    for name, tensor in given.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise _misnamed(spec, "0203", f"`{name}` cannot name an input: it is no plain word", "inputs", name)
        _check_shape(spec, name, tensor)
    float_type = spec.run.dtype
    return {
        name: tensor.model_copy(update={"dtype": float_type}) if tensor.dtype == "float32" else tensor
        for name, tensor in given.items()
    }


def _check_shape(spec: Spec, name: str, tensor: Tensor) -> None:
    if not isinstance(getattr(torch, tensor.dtype, None), torch.dtype):
        text = f"input `{name}` has the unknown dtype `{tensor.dtype}`"
        raise _located("0203", text, spec.origin("network", "inputs", name, "dtype"), "inputs")
    for axis, size in enumerate(tensor.shape):
        if size == BATCH or (isinstance(size, int) and size < 1):
            text = f"input `{name}` has the length `{size}`"
            help = "give the shape of one sample, without the batch; lengths are 1 or more, or names"
            span = spec.origin("network", "inputs", name, "shape", axis)
            raise _located("0203", text, span, "inputs", help=help)


def _in_forward_order(spec: Spec, module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parameters = inspect.signature(module.forward).parameters
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    for name in inputs:
        if name not in parameters and not takes_any:
            text = f"`{type(module).__name__}.forward` takes no `{name}`; it takes {', '.join(parameters)}"
            raise _misnamed(spec, "0203", text, "inputs", name, help=did_you_mean(name, parameters))
    required = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    missing = [
        n for n, p in parameters.items() if p.default is Parameter.empty and p.kind in required and n not in inputs
    ]
    if missing:
        text = f"`{type(module).__name__}.forward` also needs {', '.join(missing)}"
        raise _misnamed(spec, "0203", text, "inputs", help=f"add `{missing[0]}` with its shape to `inputs`")
    order = [name for name in parameters if name in inputs]
    return {name: inputs[name] for name in [*order, *(n for n in inputs if n not in order)]}


def _dtype(spec: Spec) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, spec.run.dtype)
    return dtype


def _problem(spec: Spec, code: str, text: str, key: str, *notes: str, help: str | None = None) -> LpcError:
    """A diagnostic at the value of `network.key`."""
    return _located(code, text, spec.origin("network", key), key, *notes, help=help)


def _misnamed(spec: Spec, code: str, text: str, key: str, *name: str, help: str | None = None) -> LpcError:
    """A diagnostic at the key `network.key`, or at a name in that section."""
    return _located(code, text, spec.key_origin("network", key, *name), key, help=help)


def _located(
    code: str, text: str, span: Span | None, key: str, *notes: str, help: str | None = None
) -> LpcError:
    return LpcError(Diagnostic(code, text, span, None if span else f"spec: network.{key}", notes, help))
