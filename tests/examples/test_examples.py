"""Is every example a spec that checks, builds, and takes a step? On data of the same kind, but small."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import lpc
from lpc.compiler.build import PIPELINE, Build, run_pipeline

ROOT = Path(__file__).resolve().parents[2] / "examples"
SPECS = sorted(ROOT.rglob("*.yaml"))

# Models of another library, made small and with fewer layers; they are cut into as many blocks as the large ones.
# That those without adapters train is for tests/models to tell.
SMALL = {
    "resnet50": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 32, 64],
        "depths": [1, 1, 1, 1],
        "num_labels": 10,
    },
    "vit": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "num_labels": 10,
    },
    "bert": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 50,
        "num_labels": 2,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 32},
}
# Adapters train no embedding: with two layers a block would have nothing to train, and be joined to the next.
SMALL |= {"resnet50_lokr": SMALL["resnet50"], "vit_lora": {**SMALL["vit"], "num_hidden_layers": 4}}
ADAPTED = ("resnet50_lokr", "vit_lora")
SHAPES = {name: [3, 32, 32] for name in SMALL if name not in ("bert", "gpt2")}


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a little noise in the formats of MNIST and CIFAR-10."""
    monkeypatch.setenv("LPC_DATA", str(tmp_path))
    return tmp_path


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write unsigned bytes as an IDX file."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


def write_mnist(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "t10k"):
        write_idx(folder / f"{split}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{split}-labels-idx1-ubyte", rng.integers(0, 10, count))


def write_cifar10(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        images = []
        for pixels in rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, format="PNG")
            images.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"image": images, "label": rng.integers(0, 10, count)})
        pq.write_table(table, folder / f"{split}.parquet")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_example_checks_and_is_short(path: Path) -> None:
    spec = lpc.check(path)
    assert spec.name != "unnamed"
    assert len(path.read_text().splitlines()) < 20
    assert (path.parent / "README.md").exists()
    assert f"{path.parent.name}" in (path.parent / "README.md").read_text()


def test_digits_learns_to_the_stated_accuracy() -> None:
    summary = lpc.Trainer(lpc.build(ROOT / "digits" / "spec.yaml"), device="cpu").fit()
    assert summary["test_accuracy"] >= 0.96


def test_readme_and_example_say_the_same() -> None:
    readme = (ROOT.parent / "README.md").read_text()
    shown = readme.split("```yaml file=digits.yaml\n")[1].split("```")[0]
    assert lpc.check(shown) == lpc.check(ROOT / "digits" / "spec.yaml")


@pytest.mark.parametrize("name", ["local", "supervision", "backprop"])
def test_mnist_builds_and_runs(name: str, data_root: Path) -> None:
    write_mnist(data_root / "mnist", 300)
    plan = lpc.build(ROOT / "mnist" / f"{name}.yaml", {"run.epochs": 1})
    link = "stop" if name == "local" else "gradient"
    assert [link] * 2 == [data["link"] for *_, data in plan.partition.edges(data=True)]
    local = {metric for metric in plan.data.program.metrics if metric.endswith(".loss")}
    assert len(local) == (1 if name == "backprop" else 3)
    assert lpc.Trainer(plan, device="cpu").fit()["steps"] == 3  # 128 + 128 + 44 samples


def test_sequential_mnist_builds_and_runs(data_root: Path) -> None:
    write_mnist(data_root / "mnist", 250)
    small = {"run.epochs": 1, "run.target": "cpu", "network.args.steps": 4}
    plan = lpc.build(ROOT / "mnist" / "sequential.yaml", small)
    assert list(plan.partition) == ["frames", "cell", "cell#2", "cell#3", "cell#4", "out"]
    trainer = lpc.Trainer(plan, device="cpu")
    assert trainer.fit()["steps"] == 2  # 200 + 50 samples
    assert len(trainer.variables()) == 4


def test_cifar10_builds_and_runs(data_root: Path) -> None:
    write_cifar10(data_root / "cifar10", 12)
    small = {"network.args.width": 8, "data.batch": 6, "run.epochs": 1}
    plan = lpc.build(ROOT / "cifar10" / "resnet18.yaml", small)
    assert list(plan.partition) == ["b1", "b2", "b3", "b4"]
    assert lpc.Trainer(plan, device="cpu").fit()["steps"] == 2


def small(name: str) -> dict[str, object]:
    """For this device alone, which takes half as long: tests/models compares both kinds of kernels."""
    overrides: dict[str, object] = {"network.config": SMALL[name], "run.target": "cpu"}
    return overrides | ({"network.inputs.pixel_values": SHAPES[name]} if name in SHAPES else {})


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ADAPTED])
def test_transformers_are_cut_in_four(name: str) -> None:
    pytest.importorskip("transformers")
    spec = lpc.check(ROOT / "transformers" / f"{name}.yaml", small(name))
    graph = run_pipeline(Build(spec), PIPELINE[:3]).graph
    assert graph is not None
    assert len(graph) == 4


@pytest.mark.parametrize("name", ADAPTED)
def test_transformers_with_adapters_build_and_step(name: str) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    plan = lpc.build(ROOT / "transformers" / f"{name}.yaml", small(name))
    assert len(plan.partition) == (3 if name == "resnet50_lokr" else 4)
    fields = plan.data.program.fields
    batch = {field: sample(kind.dtype, kind.shape) for field, kind in fields.items()}
    metrics = lpc.Trainer(plan, device="cpu").step(batch)
    assert all(torch.isfinite(value) for value in metrics.values())


def sample(dtype: str, shape: tuple[int | str, ...]) -> torch.Tensor:
    """Draw one tensor for 3 samples, symbolic lengths being 7."""
    sizes = [3 if size == "B" else 7 if isinstance(size, str) else size for size in shape]
    return torch.rand(sizes) if dtype == "float32" else torch.randint(0, 2, sizes)
