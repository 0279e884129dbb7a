"""Which values do parameters begin with? Laws of torch.nn.init by name, and weights from a file."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lpc.compiler.frontend.modules import GroupedLinear
from lpc.compiler.frontend.places import first_line
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.model import Spec
from lpc.specs.signatures import INITS

Law = Callable[..., Any]

LAWS: dict[str, Law] = {
    "uniform": lambda t, low, high: nn.init.uniform_(t, low, high),
    "normal": lambda t, mean, std: nn.init.normal_(t, mean, std),
    "trunc_normal": lambda t, mean, std, low, high: nn.init.trunc_normal_(t, mean, std, low, high),
    "constant": lambda t, value: nn.init.constant_(t, value),
    "zeros": nn.init.zeros_,
    "ones": nn.init.ones_,
    "eye": nn.init.eye_,
    "dirac": lambda t, groups: nn.init.dirac_(t, groups),
    "xavier_uniform": lambda t, gain: nn.init.xavier_uniform_(t, gain),
    "xavier_normal": lambda t, gain: nn.init.xavier_normal_(t, gain),
    "kaiming_uniform": lambda t, slope, mode, nonlinearity: nn.init.kaiming_uniform_(t, slope, mode, nonlinearity),
    "kaiming_normal": lambda t, slope, mode, nonlinearity: nn.init.kaiming_normal_(t, slope, mode, nonlinearity),
    "orthogonal": lambda t, gain: nn.init.orthogonal_(t, gain),
    "sparse": lambda t, sparsity, std: nn.init.sparse_(t, sparsity, std),
}


def initialise(module: nn.Module, spec: Spec) -> None:
    """Apply `network.init` in place: per parameter the last pattern that matches its name.

    Raises LpcError where a pattern matches no parameter, or a law cannot fill one (kaiming on a vector).
    """
    names = [name for name, _ in module.named_parameters()]
    for pattern in spec.network.init:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise _problem(spec, pattern, f"`{pattern}` matches no parameter", did_you_mean(pattern, names))
    grouped = {f"{path}.weight" for path, layer in module.named_modules() if isinstance(layer, GroupedLinear)}
    for name, parameter in module.named_parameters():
        matching = [pattern for pattern in spec.network.init if fnmatchcase(name, pattern)]
        if matching:
            # The fan of a law is that of one group's map: the groups do not mix.
            for part in parameter.unbind() if name in grouped else (parameter,):
                _apply(spec, matching[-1], name, part)


def load_weights(module: nn.Module, spec: Spec) -> None:
    """Load `network.weights`, a safetensors file with exactly the network's state, in place."""
    path = Path(spec.network.weights).expanduser()
    try:
        found = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise _weights(spec, f"there is no file {path}") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise _weights(spec, f"{path} is no readable safetensors file", first_line(error)) from error
    expected = module.state_dict()
    # A file may leave out all but one name of a tied tensor.
    tied = {name for name, t in expected.items() if any(t is not o and _same(t, o) for o in expected.values())}
    wrong = [f"missing: {n}" for n in expected if n not in found and n not in tied]
    wrong += [f"not in the network: {n}" for n in found if n not in expected]
    wrong += [
        f"{n}: found {list(found[n].shape)}, expected {list(t.shape)}"
        for n, t in expected.items()
        if n in found and found[n].shape != t.shape
    ]
    if wrong:
        raise _weights(spec, f"{path} does not fit the network", *wrong[:8])
    module.load_state_dict(found, strict=False)


def _apply(spec: Spec, pattern: str, name: str, parameter: Tensor) -> None:
    term = spec.network.init[pattern]
    if term.name not in LAWS:
        raise _problem(spec, pattern, f"there is no init law `{term.name}`", did_you_mean(term.name, LAWS))
    try:
        with torch.no_grad():
            LAWS[term.name](parameter, **INITS[term.name].bind(term))
    except (ValueError, TypeError, RuntimeError) as error:
        text = f"`{term}` cannot fill `{name}` of shape {list(parameter.shape)}: {error}"
        raise _problem(spec, pattern, text, None) from error


def _same(a: Tensor, b: Tensor) -> bool:
    return a.numel() > 0 and a.data_ptr() == b.data_ptr() and a.shape == b.shape


def _problem(spec: Spec, pattern: str, text: str, help: str | None) -> LpcError:
    span = spec.origin("network", "init", pattern)
    return LpcError(Diagnostic("0208", text, span, None if span else "spec: network.init", help=help))


def _weights(spec: Spec, text: str, *notes: str) -> LpcError:
    span = spec.origin("network", "weights")
    return LpcError(Diagnostic("0207", text, span, None if span else "spec: network.weights", notes))
