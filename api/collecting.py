"""How does a short command spend no time on looking for garbage? It makes none: what it reads, it keeps."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def keeping_all() -> Iterator[None]:
    """Collect no garbage inside, and never look again at what was made there.

    Importing and reading make a hundred thousand objects that live as long as the process; the collector would look
    at them several times on the way, and once more at the end.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def load(*names: str) -> None:
    """Import modules, which makes no garbage, and have the collector pass over them from then on."""
    if not sys.modules.keys() >= set(names):
        with keeping_all():
            for name in names:
                import_module(name)
