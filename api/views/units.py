"""How are counts and sizes written? Three digits and a unit."""

from __future__ import annotations


def count(number: int) -> str:
    """Return a count with a decimal unit: `532`, `16.6 k`, `1.81 G`."""
    return _scaled(number, 1000, ("", " k", " M", " G", " T", " P"))


def size(number: int) -> str:
    """Return a number of bytes with a binary unit: `48 B`, `1.00 KiB`, `2.5 MiB`."""
    return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def duration(seconds: float) -> str:
    """Return a time to two digits where it is short: `0.42 s`, `12.3 s`, `3 min 20 s`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def time(seconds: float) -> str:
    """Return a time with a decimal unit, to three digits: `12.3 ms`, `450 us`."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _scaled(number: int, base: int, units: tuple[str, ...]) -> str:
    if number < base:
        return f"{number}{units[0]}"
    scaled, unit = float(number), 0
    while scaled >= base and unit + 1 < len(units):
        scaled, unit = scaled / base, unit + 1
    digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:.{digits}f}{units[unit]}"
