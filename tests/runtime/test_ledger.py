"""Does the ledger count what lives at once, each storage once?"""

from __future__ import annotations

import torch

from lpc.runtime.ledger import Ledger


def test_what_lives_at_once() -> None:
    """Of three new tensors of 400 bytes at most two live together; a view and an old tensor count nothing."""
    old = torch.ones(100)
    with Ledger() as ledger:
        made = old + 1
        made = made + 1
        view = made.view(10, 10)
        del made
        view = view + 1
    assert ledger.peak == 800
    assert ledger.live == 400


def test_residents_count_until_they_die() -> None:
    old = torch.ones(100)
    with Ledger([old, old.view(10, 10)]) as ledger:
        assert ledger.live == 400
        old = old + 1
        assert ledger.live == 400
    assert ledger.peak == 800


def test_an_address_that_comes_again_is_counted() -> None:
    """Storages from before that die inside the block leave their addresses to new ones."""
    old = [torch.ones(100) for _ in range(20)]
    with Ledger() as ledger:
        for index in range(20):
            old[index].view(10, 10)
            old[index] = torch.zeros(1)
        made = [torch.ones(100) for _ in range(20)]
        assert ledger.live == 20 * (400 + 4)
    assert len(made) == 20
