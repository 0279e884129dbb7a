"""Which models are tested? Those of examples/transformers made small, a Llama, and a network of one's own.

Only GPT-2 has two layers, and so tied weights on both sides of one that is repeated: each layer is seconds of build.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import lpc

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "transformers"
CNN = Path(__file__).with_name("sample_cnn.py")

WORDS = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 1}
ONE_LAYER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
HALVES = {"decompose.blocks": "balanced(count=2, by=memory)", "learn[0].optimizer": "adamw(lr=0.01)"}


@dataclass(frozen=True)
class Case:
    """The arguments of `lpc.build`, and the lengths of a batch."""

    source: str | dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    symbols: dict[str, int] = field(default_factory=lambda: {"B": 6, "T": 9})

    def build(self, **more: Any) -> lpc.Plan:
        source = self.source if isinstance(self.source, dict) else Path(self.source)
        return lpc.build(source, {**self.overrides, **more}, allow=self.allow)


def example(name: str, config: dict[str, Any], **more: Any) -> Case:
    return Case(str(EXAMPLES / f"{name}.yaml"), {**HALVES, "network.config": config, **more})


def written(module: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "network": {"module": module, "inputs": inputs, **more},
        "decompose": {"blocks": "balanced(count=2, by=memory)", "links": "stop"},
        "learn": [{"blocks": "*", "head": "linear(pool=mean)", "loss": "cross_entropy", "optimizer": "adamw(lr=0.01)"}],
    }


CASES = {
    "resnet": example(
        "resnet50",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "num_labels": 5},
        **{"network.inputs.pixel_values": [3, 32, 32]},
    ),
    "vit": example(
        "vit",
        {**ONE_LAYER, "image_size": 16, "patch_size": 4, "num_labels": 5},
        **{"network.inputs.pixel_values": [3, 16, 16]},
    ),
    "gpt2": example("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, **WORDS}),
    "bert": example("bert", {**ONE_LAYER, "vocab_size": 40, "max_position_embeddings": 32, "num_labels": 2}),
    "llama": Case(
        written(
            "transformers:LlamaForCausalLM",
            {"input_ids": {"shape": ["T"], "dtype": "int64"}},
            config={**ONE_LAYER, **WORDS, "num_key_value_heads": 1},
            output="logits",
        )
        | {"loss": "cross_entropy(target=input_ids, shift=1)"},
        {"decompose.links": "gradient", "learn[0].loss": "none", "learn[0].head": "identity", "run.target": "cpu"},
    ),
    "cnn": Case(
        written("sample_cnn:Net", {"image": [3, 16, 16]})
        | {"loss": "cross_entropy", "fields": {"label": {"shape": [], "dtype": "int64"}}},
        allow=(str(CNN),),
    ),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread, so that sums are taken in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def originals() -> ModuleType:
    """The benchmarks' module that runs the original of a plan."""
    path = ROOT / "benchmarks" / "originals.py"
    description = importlib.util.spec_from_file_location("originals", path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[description.name] = module
    description.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    return CASES


@pytest.fixture(scope="session")
def planned(built_once: Callable[[str, Callable[[], lpc.Plan]], lpc.Plan]) -> Callable[[str], lpc.Plan]:
    """Build the plan of a case, once for all workers."""
    return cache(lambda name: built_once(name, CASES[name].build))


@pytest.fixture(scope="session")
def sampled() -> Callable[[lpc.Plan, dict[str, int]], dict[str, Tensor]]:
    """Draw a batch of the lengths given: normal numbers, masks whose last quarter is 0, classes and tokens below 2."""
    return sample


def sample(plan: lpc.Plan, symbols: dict[str, int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = {}
    for name, kind in plan.data.program.fields.items():
        shape = [symbols[size] if isinstance(size, str) else size for size in kind.shape]
        if kind.dtype == "float32":
            batch[name] = torch.randn(shape, generator=generator)
        elif "mask" in name:
            batch[name] = (torch.arange(shape[-1]) <= 3 * shape[-1] // 4).to(torch.int64).expand(shape)
        else:
            batch[name] = torch.randint(2, shape, generator=generator)
    return batch
