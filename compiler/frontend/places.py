"""Where in the user's code did it happen? Lines of tracebacks, of running frames and of recorded stacks."""

from __future__ import annotations

import inspect
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

import torch
from torch import nn

# Unresolved, as frames name files: an installation may lie behind a link.
_HERE = Path(__file__).parent
_TORCH = str(Path(torch.__file__).parent)
_PYTHON = sysconfig.get_paths()["stdlib"]
_ZOO = str(_HERE / "zoo.py")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def raised_at(error: BaseException) -> str | None:
    """Return `file:line` of the innermost frame outside torch and the tracer, or None."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f"{f.filename}:{f.lineno}" for f in reversed(frames) if is_foreign(f.filename)), None)


def running_at() -> str | None:
    """Return `file:line` of the innermost running frame outside torch and the tracer, or None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_foreign(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else None


def defined_at(module: nn.Module) -> str:
    """Return `file:line` of a module's forward."""
    code = inspect.unwrap(type(module).forward).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def recorded_at(stack: str | None) -> str | None:
    """Return `file:line` of the innermost frame outside torch in a recorded stack text, or None."""
    found = [(m["file"], m["line"]) for m in _FRAME.finditer(stack or "")]
    return next((f"{file}:{line}" for file, line in reversed(found) if is_foreign(file)), None)


def first_line(error: BaseException, limit: int = 300) -> str:
    """Return an error's type and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:limit]


def is_foreign(file: str) -> bool:
    """Tell whether a file is neither Python's, torch's nor the tracer's; our networks count as the user's."""
    packaged = "site-packages" in file or "dist-packages" in file
    ours = file.startswith((str(_HERE), _TORCH, "torch/", "<")) or (file.startswith(_PYTHON) and not packaged)
    return file == _ZOO or not ours
