"""Are norms of parts put together to the norm that torch has of the whole?"""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import get_total_norm

from lpc.runtime.gradients import clip, norms, scaled, total

MIXES = {
    "one": [torch.float32] * 9,
    "two by turns": [torch.float32, torch.float64] * 4,
    "three": [torch.float64, torch.float32, torch.bfloat16, torch.float32],
}


@pytest.mark.parametrize("mix", MIXES)
def test_norms_of_parts_are_the_norm_of_the_whole(mix: str) -> None:
    """Bit by bit, wherever the list is cut, and with gradients that are not there."""
    draw = torch.Generator().manual_seed(0)
    whole = [torch.randn(7 + 40 * i, generator=draw).to(dtype) for i, dtype in enumerate(MIXES[mix])]
    gradients = [*whole[:2], None, *whole[2:]]
    for cut in range(len(gradients) + 1):
        found = total([*norms(gradients[:cut]), *norms(gradients[cut:])])
        assert torch.equal(found, get_total_norm(whole))
        both = [*scaled(gradients[:cut], 0.5, found), *scaled(gradients[cut:], 0.5, found)]
        assert [g is None for g in both] == [g is None for g in gradients]
        for one, other in zip(both, clip(gradients, 0.5), strict=True):
            assert one is other is None or torch.equal(one, other)  # type: ignore[arg-type]
