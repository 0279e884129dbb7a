"""lpc: a declarative compiler for local learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lpc.specs.lazy import lazily

if TYPE_CHECKING:
    from lpc.aligning import alignment
    from lpc.building import build
    from lpc.difference import diff
    from lpc.ejection import eject
    from lpc.estimating import estimate
    from lpc.joining import join
    from lpc.merging import merge_adapters
    from lpc.plan import Plan, load
    from lpc.profiling import profile
    from lpc.reading import check
    from lpc.specs import Diagnostic, LpcError, Spec, expand
    from lpc.trainer import Trainer
    from lpc.verification import verify
    from lpc.version import __version__

__all__ = [
    "Diagnostic",
    "LpcError",
    "Plan",
    "Spec",
    "Trainer",
    "__version__",
    "alignment",
    "build",
    "check",
    "diff",
    "eject",
    "estimate",
    "expand",
    "join",
    "load",
    "merge_adapters",
    "profile",
    "verify",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Diagnostic": "lpc.specs.diagnostics",
        "LpcError": "lpc.specs.diagnostics",
        "Plan": "lpc.plan",
        "Spec": "lpc.specs.model",
        "Trainer": "lpc.trainer",
        "__version__": "lpc.version",
        "alignment": "lpc.aligning",
        "build": "lpc.building",
        "check": "lpc.reading",
        "diff": "lpc.difference",
        "eject": "lpc.ejection",
        "estimate": "lpc.estimating",
        "expand": "lpc.specs.expanding",
        "join": "lpc.joining",
        "load": "lpc.plan",
        "merge_adapters": "lpc.merging",
        "profile": "lpc.profiling",
        "verify": "lpc.verification",
    },
)
