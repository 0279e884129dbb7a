"""Which specs do these tests share?"""

from __future__ import annotations

from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(params=sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def sample(request: pytest.FixtureRequest) -> Path:
    """Every sample spec."""
    path = request.param
    assert isinstance(path, Path)
    return path


@pytest.fixture
def digits() -> Path:
    """The smallest sample."""
    return SAMPLES / "digits.yaml"
