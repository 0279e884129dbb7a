"""When does a block fit no variable? Where none stands for what it computes, `consistency` has no meaning."""

from __future__ import annotations

from typing import NoReturn

from lpc.compiler.losses.kind import Options
from lpc.compiler.setting import Setting


def consistency(options: Options, setting: Setting) -> NoReturn:
    """Refuse the loss: a block that a variable stands for has it from its link, in compiler/capture/relaxed.py."""
    raise ValueError("no boundary after the block has a `variable` link")
