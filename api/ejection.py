"""How does a plan become a program of its own? Its code in a folder, written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lpc.ejecting.package import files
from lpc.plan import Plan
from lpc.specs.diagnostics import Diagnostic, LpcError


def eject(plan: Plan, folder: str | Path, *, device: str = "cpu") -> Path:
    """Write a plan as Python code that does not need lpc, and return the folder.

    `train.py` in it reproduces `lpc run` bit for bit; it needs torch, numpy, safetensors and the libraries that the
    spec names. Raises LpcError: 0702 where the folder is already there and not empty, 0708 for what is not written as
    code, before anything is written.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise LpcError(Diagnostic("0702", "a file or folder is already there and is left as it is", place=str(target)))
    found = files(plan, device)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        for name, content in found.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        made.chmod(0o755)
        made.replace(target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return target
