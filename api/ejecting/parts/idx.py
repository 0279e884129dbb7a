"""How are IDX files read? The format of MNIST: a magic number, big-endian sizes, then plain bytes."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def folder_of(root: Path) -> Path:
    """Return the folder inside `root` in which MNIST usually lies, or `root` itself."""
    return next((path for path in (root / "mnist", root / "MNIST" / "raw") if path.is_dir()), root)


def read(folder: Path, name: str) -> NDArray[Any]:
    """Return an array of bytes from a file, raw or gzipped."""
    path = folder / name
    content = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    axes = content[3]
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * axes).reshape(shape)
