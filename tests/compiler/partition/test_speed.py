"""Is partitioning fast? A bound loose enough for a busy machine; benchmarks/partition.py measures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "partition.py"


def test_four_thousand_nodes_take_no_second() -> None:
    description = importlib.util.spec_from_file_location("partition_benchmark", BENCHMARK)
    assert description is not None
    assert description.loader is not None
    benchmark = importlib.util.module_from_spec(description)
    sys.modules[description.name] = benchmark
    description.loader.exec_module(benchmark)
    times = benchmark.measure(4_000, 0, repeats=1)[4_000]
    assert set(times) == {"each", "per_layer", "balanced"}
    assert max(times.values()) < 1.0
