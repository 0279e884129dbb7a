"""How is a model of the transformers library made? From its config class, or from published weights."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

from torch import nn

from lpc.compiler.frontend.places import first_line
from lpc.compiler.frontend.quiet import quiet
from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.model import Spec

HUB = "hf:"


def is_transformers(found: type[nn.Module]) -> bool:
    """Tell whether a class is a model of the transformers library."""
    return getattr(found, "config_class", None) is not None and hasattr(found, "from_pretrained")


def make_transformers(found: Any, spec: Spec) -> nn.Module:
    """Make the model from `network.config`, with weights of the hub where `weights: hf:NAME` asks for them.

    Key-value caches are switched off: a training graph has no use for them, and they cannot be traced.
    """
    options = dict(spec.network.config)
    check_config(found.config_class, options, spec)
    if "use_cache" in known_options(found.config_class):
        options.setdefault("use_cache", False)
    with quiet():
        try:
            if spec.network.weights.startswith(HUB):
                return _published(found, spec.network.weights.removeprefix(HUB), options, spec)
            model: nn.Module = found(found.config_class(**options))
            return model
        except LpcError:
            raise
        except Exception as error:
            raise _problem(
                spec, "0206", f"`{found.__name__}` refuses its config", "config", first_line(error)
            ) from error


def check_config(config_class: Any, options: dict[str, Any], spec: Spec) -> None:
    """Refuse options that the config does not know: transformers would keep them and do nothing with them."""
    known = known_options(config_class)
    for name in options if known else ():
        if name not in known:
            help = did_you_mean(name, known)
            raise _problem(spec, "0206", f"`{config_class.__name__}` has no option `{name}`", "config", help=help)


def known_options(config_class: Any) -> set[str]:
    """Return the names a config class takes: its fields and those that it has under another name."""
    try:
        with quiet():
            default = config_class()
    except Exception:  # a config that has no default cannot tell what it knows
        return set()
    names = {name for name in dir(default) if not name.startswith("_")}
    named = {n for n, p in signature(config_class).parameters.items() if p.kind is not Parameter.VAR_KEYWORD}
    return names | named | set(getattr(config_class, "attribute_map", {})) | {"attn_implementation"}


def _published(found: Any, name: str, options: dict[str, Any], spec: Spec) -> nn.Module:
    try:
        model: nn.Module = found.from_pretrained(name, use_safetensors=True, trust_remote_code=False, **options)
        return model
    except (OSError, ValueError) as error:
        text = f"the weights `{name}` cannot be had"
        help = "check the name and the network, or give a safetensors file"
        raise _problem(spec, "0207", text, "weights", first_line(error), help=help) from error


def _problem(spec: Spec, code: str, text: str, key: str, *notes: str, help: str | None = None) -> LpcError:
    span = spec.origin("network", key)
    return LpcError(Diagnostic(code, text, span, None if span else f"spec: network.{key}", notes, help))
