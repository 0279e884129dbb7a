"""How do encoded images become an array? Decoding JPEG, PNG and the like to channels-first bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lpc.runtime.data.column import Array, Shape
from lpc.runtime.data.library import library
from lpc.runtime.data.problem import problem

Blob: TypeAlias = bytes | str
"""An encoded image, or the path of its file."""

MODES = dict.fromkeys(("1", "L", "LA"), "L") | dict.fromkeys(("P", "RGB", "RGBA", "CMYK", "YCbCr"), "RGB")
"""What a PIL mode is decoded to: grey or colour, 8 bits each. 16-bit grey is absent: it would be clipped."""

THREADED_PIXELS = 64 * 64
"""From here on threads pay; below, the interpreter lock makes two threads slower than one (32x32: 1.8 x)."""

CHUNK = 256


def image_shape(blob: Blob, size: int | None, place: str) -> Shape:
    """Return (channels, height, width) of one decoded image; `size` is that of `decode`."""
    return _pixels(blob, None, size, place).shape


def decode(blobs: Sequence[Blob], shape: Shape, size: int | None, place: str) -> Array:
    """Return images as uint8 [samples, channels, height, width].

    With `size`, every image is scaled and cut around its centre to size x size; without, all must have
    `shape`.
    Errors: 0617 for an image that cannot be decoded, or that differs from `shape`.
    """
    out = np.empty((len(blobs), *shape), np.uint8)
    work = partial(_fill, out, blobs, size, place)
    starts = range(0, len(blobs), CHUNK)
    if shape[1] * shape[2] < THREADED_PIXELS:
        _run_all(map(work, starts))
    else:
        with ThreadPoolExecutor() as pool:
            _run_all(pool.map(work, starts))
    return out


def _run_all(results: Iterable[None]) -> None:
    for _ in results:
        pass


def _fill(out: Array, blobs: Sequence[Blob], size: int | None, place: str, start: int) -> None:
    mode = "L" if out.shape[1] == 1 else "RGB"
    for row in range(start, min(start + CHUNK, len(blobs))):
        pixels = _pixels(blobs[row], mode, size, f"{place} row {row}")
        if pixels.shape != out.shape[1:]:
            raise _differs(pixels.shape, out.shape[1:], f"{place} row {row}")
        out[row] = pixels


def _pixels(blob: Blob, mode: str | None, size: int | None, place: str) -> Array:
    """Decode one image to [channels, height, width]; grey stays grey only where `mode` allows it."""
    image = _open(blob, place)
    own = MODES.get(image.mode)
    if own is None:
        raise problem("0617", f"an image has mode `{image.mode}`, which is not 8-bit grey or colour", place)
    if mode == "L" and own == "RGB":
        raise problem("0617", "an image has colour, the first image of this column is grey", place,
                      help="save all images with the same number of channels")
    image = image.convert(mode or own)
    if size is not None:
        image = library("PIL.ImageOps").fit(image, (size, size))
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(blob: Blob, place: str) -> Any:
    pil = library("PIL.Image")
    try:
        image = pil.open(BytesIO(blob) if isinstance(blob, bytes) else Path(blob))
        image.load()
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        # PIL reports a broken PNG as SyntaxError, a truncated file as OSError.
        raise problem("0617", "an image cannot be decoded", place, notes=[str(error)]) from error
    return image


def _differs(found: Shape, expected: Shape, place: str) -> Exception:
    return problem("0617", f"an image has shape {list(found)}, the first image has {list(expected)}", place,
                   help="give the source a common size, for example `imagefolder(size=64)`")


