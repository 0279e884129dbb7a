"""Where does a network use its own backward? Calls of custom autograd functions, met while tracing.

`F.apply` is often kept in a variable at import (`binarize = Binarize.apply`), which no patch of the attribute
reaches; therefore the code of `torch.autograd.Function.apply` itself is exchanged while a trace runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from torch.autograd import Function

Apply = Callable[..., Any]
Handler = Callable[[type[Function], Apply, tuple[Any, ...], dict[str, Any]], Any]

_HANDLER = "_traced_apply"


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
    """Send every `Function.apply` inside the block to `handler(function, original apply, args, kwargs)`."""
    apply = _apply()
    code = apply.__code__
    original = FunctionType(code, apply.__globals__, "apply", apply.__defaults__, apply.__closure__)
    setattr(Function, _HANDLER, lambda cls, args, kwargs: handler(cls, original, args, kwargs))
    apply.__code__ = _redirecting()
    try:
        yield
    finally:
        apply.__code__ = code
        delattr(Function, _HANDLER)


def _apply() -> FunctionType:
    apply: FunctionType = Function.__dict__["apply"].__func__
    assert apply.__code__.co_freevars == ("__class__",), "torch.autograd.Function.apply has changed"
    return apply


def _redirecting() -> CodeType:
    """Return code with the one free variable of `apply`: its cell holds torch.autograd.Function itself."""
    __class__ = Function

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return __class__._traced_apply(cls, args, kwargs)  # type: ignore[attr-defined]

    return apply.__code__
