"""On which device does this run, and by which seed? Written anew for each plan that is ejected."""

from __future__ import annotations

import torch

SEED = 0
DEVICE = torch.device("cpu")
