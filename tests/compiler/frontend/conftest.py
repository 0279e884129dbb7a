"""What do the front end's tests share? Specs around a network, and the proof that a trace computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lpc.compiler.frontend.network import BuiltNetwork, build_network, call
from lpc.compiler.frontend.outputs import select
from lpc.compiler.frontend.trace import Traced, trace
from lpc.specs.model import Data, Decompose, Layer, Network, Run, Spec
from lpc.specs.model import Tensor as TensorSpec
from lpc.specs.term import Term

NETWORKS = Path(__file__).with_name("sample_networks.py")


def layer(op: str, *args: Any, name: str | None = None, **kwargs: Any) -> Layer:
    body, branches = kwargs.pop("body", ()), kwargs.pop("branches", {})
    kwargs = {key.rstrip("_"): value for key, value in kwargs.items()}
    return Layer(name=name, op=Term(op, args, kwargs), body=tuple(body), branches=branches)


def spec_of(network: dict[str, Any], dtype: str = "float64", seed: int = 0, batch: int | None = None) -> Spec:
    shapes = network.pop("shapes", {"x": [8]})
    inputs = {
        name: TensorSpec(shape=tuple(shape), dtype="int64" if name.endswith("ids") else "float32")
        for name, shape in shapes.items()
    }
    return Spec(
        adapters=tuple(network.pop("adapters", ())),
        network=Network(inputs=inputs, **network),
        data=None if batch is None else Data(batch=batch),
        decompose=Decompose(blocks=Term("per_layer")),
        learn=(),
        run=Run(dtype=dtype, seed=seed),  # type: ignore[arg-type]
    )


def example(built: BuiltNetwork, batch: int, length: int = 7) -> dict[str, torch.Tensor]:
    values = {}
    for name, tensor in built.inputs.items():
        shape = [batch, *(length if isinstance(d, str) else d for d in tensor.shape)]
        dtype = getattr(torch, tensor.dtype)
        values[name] = torch.randn(shape, dtype=dtype) if dtype.is_floating_point else torch.randint(0, 8, shape)
    return values


def assert_same(built: BuiltNetwork, traced: Traced, batches: tuple[int, ...] = (2, 3, 5)) -> None:
    """Outputs, gradients and buffers of both modes equal the original's, from the same random state."""
    original = copy.deepcopy(built.module)
    for batch in batches:
        values = example(built, batch)
        for training, graph in ((True, traced.train), (False, traced.eval)):
            original.load_state_dict(built.module.state_dict())
            original.train(training).zero_grad()
            built.module.zero_grad()
            torch.manual_seed(batch)
            expected = select(call(original, values), built.output)
            torch.manual_seed(batch)
            found = graph(*[values[name] for name in traced.inputs])
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(built.module.state_dict(), original.state_dict())
            if expected.requires_grad:
                expected.square().sum().backward()
                found.square().sum().backward()
            assert gradients(built.module).keys() == gradients(original).keys()
            torch.testing.assert_close(gradients(built.module), gradients(original), rtol=1e-9, atol=1e-11)


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


Sample = Callable[..., tuple[BuiltNetwork, Traced]]


@pytest.fixture
def sample() -> Sample:
    """Build and trace a class of sample_networks.py."""

    def make(name: str, output: str | int | None = None, **shapes: list[int | str]) -> tuple[BuiltNetwork, Traced]:
        network = {"module": f"sample_networks:{name}", "output": output, "shapes": shapes or {"x": [8]}}
        spec = spec_of(network)
        built = build_network(spec, [str(NETWORKS)])
        return built, trace(built, spec)

    return make


@pytest.fixture
def tools() -> Any:
    """The helpers of this file: importlib mode gives tests no way to import it."""

    class Tools:
        pass

    Tools.layer, Tools.spec_of = staticmethod(layer), staticmethod(spec_of)  # type: ignore[attr-defined]
    Tools.assert_same, Tools.example = staticmethod(assert_same), staticmethod(example)  # type: ignore[attr-defined]
    Tools.networks = str(NETWORKS.parent)  # type: ignore[attr-defined]
    return Tools
