"""How much of what a rank has sent is kept for one that is started again, if a run is not told otherwise?"""

from __future__ import annotations

LIMIT = 512 * 2**20  # bytes, of `lpc run --keep`
