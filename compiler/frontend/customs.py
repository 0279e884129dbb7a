"""Where does a network use its own backward? Calls of custom autograd functions, met while tracing.

`F.apply` is often kept in a variable at import (`binarize = Binarize.apply`), which no patch of the attribute
reaches, and is written in C++ since torch 2.15. It calls `F.forward`, which is exchanged while a trace runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch.autograd import Function

Apply = Callable[..., Any]
Handler = Callable[[type[Function], Apply, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class CustomFunction:
    """A custom autograd function as the target of one graph node; calling it keeps its backward."""

    function: type[Function]

    @property
    def __name__(self) -> str:
        return self.function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function.apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def __str__(self) -> str:
        return f"{self.function.__module__}.{self.function.__qualname__}"


@contextmanager
def custom_functions(handler: Handler) -> Iterator[None]:
    """Send every call of a custom function inside the block to `handler(function, original apply, args, kwargs)`."""
    redirections = [_Redirection(one, handler, one.forward, one.setup_context) for one in set(_below(Function))]
    with ExitStack() as stack:
        for redirection in redirections:
            stack.enter_context(redirection.active())
        yield


def _below(function: type[Function]) -> Iterator[type[Function]]:
    for one in function.__subclasses__():
        yield one
        yield from _below(one)


@dataclass
class _Redirection:
    """A function's `forward`, which `apply` calls without gradients, and the `setup_context` that some have apart."""

    function: type[Function]
    handler: Handler
    forward: Callable[..., Any]
    set_up: Callable[..., Any]
    ran: bool = False  # did `forward` itself run, so that there is a context to set up?

    @contextmanager
    def active(self) -> Iterator[None]:
        """Go to the handler instead."""
        apart = self.set_up is not Function.setup_context
        with ExitStack() as stack:
            stack.enter_context(_exchanged(self.function, "forward", self.redirected(apart)))
            if apart:
                stack.enter_context(_exchanged(self.function, "setup_context", self.set_up_after()))
            yield

    def redirected(self, apart: bool) -> Callable[..., Any]:
        @wraps(self.forward)
        def redirected(*given: Any, **kwargs: Any) -> Any:
            self.ran = False

            def apply(*_: Any, **__: Any) -> Any:
                with torch.no_grad():
                    found = self.forward(*given, **kwargs)
                self.ran = True
                return found

            with torch.enable_grad():
                return self.handler(self.function, apply, given if apart else given[1:], kwargs)

        return redirected

    def set_up_after(self) -> Callable[..., Any]:
        @wraps(self.set_up)
        def set_up_after(*given: Any, **kwargs: Any) -> Any:
            return self.set_up(*given, **kwargs) if self.ran else None

        return set_up_after


@contextmanager
def _exchanged(function: type[Function], name: str, value: Callable[..., Any]) -> Iterator[None]:
    """Give a class another static method for a while; what it inherits it inherits again afterwards."""
    before = vars(function).get(name)
    setattr(function, name, staticmethod(value))
    try:
        yield
    finally:
        delattr(function, name) if before is None else setattr(function, name, before)
