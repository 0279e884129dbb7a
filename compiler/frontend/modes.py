"""How can one network be in train and in eval mode at once? Two views of its modules share all tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def in_mode(module: nn.Module, training: bool) -> nn.Module:
    """Return a view of `module` that is in the given mode: other module objects, the same tensors.

    Parameters and buffers live in the same dictionaries, so that a buffer that is replaced is replaced in
    every view.
    """
    return _view(module, training, {})


@contextmanager
def set_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put a module into train or eval mode inside the block, every part back into its own mode after it."""
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


def _view(module: nn.Module, training: bool, made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    view = module.__class__.__new__(module.__class__)
    made[id(module)] = view
    view.__dict__.update(module.__dict__)
    view.__dict__["training"] = training
    view.__dict__["_modules"] = {
        name: None if part is None else _view(part, training, made) for name, part in module._modules.items()
    }
    return view
