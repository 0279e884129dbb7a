"""Which version of lpc is installed? A module of its own: looking into the installation takes long."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("lpc")
