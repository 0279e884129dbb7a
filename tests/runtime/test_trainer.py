"""Does a plan do what the same net does in plain PyTorch? Steps, gradients, predictions, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lpc.runtime.data import Splits
from lpc.runtime.trainer import Trainer
from lpc.specs.diagnostics import LpcError
from lpc.specs.plan.plan import ParameterGroup


def assert_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-12
) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, check_layout=False)


def test_gradients_equal_autograd_and_change_nothing(trainer_of: Any, batch_of: Any, reference: Any) -> None:
    trainer = trainer_of()
    before = {name: value.clone() for name, value in trainer.state_dict().items()}
    found = trainer.gradients(batch_of())
    assert found.keys() == reference.parameters.keys()
    assert_close(found, reference.gradients(batch_of()), 1e-14)
    assert all(torch.equal(before[name], value) for name, value in trainer.state_dict().items())
    assert trainer.steps_done == 0


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_twenty_steps_equal_plain_torch(name: str, trainer_of: Any, batch_of: Any, reference: Any) -> None:
    trainer = trainer_of(optimizer=name, options={"lr": 0.05})
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
    optimizer = kinds[name](reference.parameters.values(), lr=0.05)
    for step in range(20):
        batch = batch_of(5 + step % 3, seed=step)
        losses = reference.losses(batch)
        metrics = trainer.step(batch)
        assert metrics["b1.loss"].shape == ()
        torch.testing.assert_close(metrics["b1.loss"], losses[0].detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(metrics["b2.loss"], losses[1].detach(), rtol=1e-12, atol=1e-12)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    assert_close(trainer.state_dict(), {n: p.detach() for n, p in reference.parameters.items()})
    assert trainer.state_dict()["fc1.count"] == 20


def test_strided_fields_are_read_as_they_are_written(trainer_of: Any, batch_of: Any) -> None:
    trainer, batch = trainer_of(dropout=True), batch_of()
    strided = {name: value.t().contiguous().t() for name, value in batch.items()}
    assert not any(value.is_contiguous() for value in strided.values())
    mask = torch.ones(5, 8, dtype=torch.float64).tril().t()
    wanted = trainer.gradients(batch, {"fc1.dropout": mask.contiguous()})
    found = trainer.gradients(strided, {"fc1.dropout": mask})
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_step_makes_no_autograd_graph(trainer_of: Any, batch_of: Any) -> None:
    trainer = trainer_of()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: pytest.fail("saved"), lambda t: t):
        metrics = trainer.step(batch_of())
    assert metrics["b1.loss"].grad_fn is None
    assert all(parameter.grad is None for parameter in trainer.state.own.values())


def test_fixed_noise_enters_and_is_shared_by_forward_and_backward(
    trainer_of: Any, batch_of: Any, reference: Any
) -> None:
    trainer, mask = trainer_of(dropout=True), torch.tensor([[1.0, 0, 1, 0, 1]] * 8, dtype=torch.float64)
    found = trainer.gradients(batch_of(), noise={"fc1.dropout": mask})
    assert_close(found, reference.gradients(batch_of(), mask))


def test_drawn_noise_differs_between_steps_and_repeats_between_trainers(
    trainer_of: Any, batch_of: Any
) -> None:
    first, second = trainer_of(dropout=True), trainer_of(dropout=True)
    losses = [float(first.step(batch_of())["b1.loss"]) for _ in range(3)]
    assert losses == [float(second.step(batch_of())["b1.loss"]) for _ in range(3)]
    still = trainer_of(dropout=True, options={"lr": 0.0})
    assert len({float(still.step(batch_of())["b1.loss"]) for _ in range(3)}) == 3


@pytest.mark.parametrize("whole", [True, False])
def test_accumulation_equals_the_big_batch(whole: bool, trainer_of: Any, batch_of: Any) -> None:
    parts = [batch_of(4, seed) for seed in range(3)]
    big = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    accumulated, plain = trainer_of(accumulate=3), trainer_of()
    assert_close(accumulated.gradients(big if whole else parts), plain.gradients(big), 1e-14)
    for _ in range(3):
        metrics, expected = accumulated.step(big if whole else parts), plain.step(big)
        torch.testing.assert_close(metrics["b2.loss"], expected["b2.loss"], rtol=1e-12, atol=0)
    for name in ("fc1.weight", "fc2.bias"):
        torch.testing.assert_close(
            accumulated.state_dict()[name], plain.state_dict()[name], rtol=0, atol=1e-12
        )


def test_accumulated_parts_have_noise_of_their_own(trainer_of: Any, batch_of: Any) -> None:
    part = batch_of(16)
    trainer, plain = trainer_of(accumulate=2, dropout=True), trainer_of(dropout=True)
    twice, once = trainer.gradients([part, part]), plain.gradients(part)
    assert not torch.equal(twice["fc1.weight"], once["fc1.weight"])
    mask = torch.ones(16, 5, dtype=torch.float64)
    masks = trainer.gradients([part, part], noise={"fc1.dropout": [mask, 0 * mask]})
    whole = plain.gradients(part, noise={"fc1.dropout": mask})
    torch.testing.assert_close(masks["fc1.weight"], whole["fc1.weight"] / 2, rtol=0, atol=1e-14)


@pytest.mark.parametrize("norm", [0.01, 100.0])
def test_clipping_of_the_whole_net_equals_torch(
    norm: float, trainer_of: Any, batch_of: Any, reference: Any
) -> None:
    found = trainer_of(clip=norm).gradients(batch_of())
    for name, gradient in reference.gradients(batch_of()).items():
        reference.parameters[name].grad = gradient
    torch.nn.utils.clip_grad_norm_(reference.parameters.values(), norm)
    assert_close(found, {name: p.grad for name, p in reference.parameters.items()}, 1e-15)


def test_clipping_of_a_block_leaves_other_blocks(trainer_of: Any, batch_of: Any, reference: Any) -> None:
    found = trainer_of(block_clip=0.01).gradients(batch_of())
    for block in ("b1", "b2"):
        names = [n for n in found if n.startswith({"b1": ("fc1", "heads"), "b2": "fc2"}[block])]
        norm = torch.stack([found[n].norm() for n in names]).norm()
        torch.testing.assert_close(norm, torch.tensor(0.01, dtype=torch.float64), rtol=1e-3, atol=0)


def test_groups_have_their_own_decay_and_rate(trainer_of: Any, batch_of: Any, reference: Any) -> None:
    groups = {
        "b2": [ParameterGroup(("fc2.weight",), {"weight_decay": 0.5}, 0.1), ParameterGroup(("fc2.bias",))]
    }
    trainer = trainer_of(groups=groups)
    gradients = reference.gradients(batch_of())
    trainer.step(batch_of())
    weight, bias = (reference.parameters[f"fc2.{n}"].detach() for n in ("weight", "bias"))
    expected = weight - 0.01 * (gradients["fc2.weight"] + 0.5 * weight)
    assert_close(
        trainer.state_dict(), {"fc2.weight": expected, "fc2.bias": bias - 0.1 * gradients["fc2.bias"]}
    )


def test_predict_and_evaluate_equal_plain_torch(trainer_of: Any, batch_of: Any, reference: Any) -> None:
    trainer, parts = trainer_of(), [batch_of(8), batch_of(3, seed=2)]
    big = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    torch.testing.assert_close(
        torch.tensor(trainer.evaluate(parts)["b2.loss"], dtype=torch.float64),
        reference.losses(big)[1].detach(),
        rtol=1e-12,
        atol=0,
    )
    out = trainer.predict(big["x"])
    assert out.shape == (11, 3)
    assert not out.is_inference()
    assert torch.equal(out, trainer.predict({"x": big["x"]}))
    torch.testing.assert_close(((out - big["t"]) ** 2).mean(), reference.losses(big)[1].detach())


def test_schedules_set_the_rate_of_each_step(trainer_of: Any, batch_of: Any) -> None:
    schedule = {"warmup": 2, "then": "linear(floor=0.5)", "unit": "step"}
    trainer = trainer_of(schedule=schedule, run={"epochs": None, "steps": 6})
    before = trainer.state_dict()["fc2.bias"].clone()
    trainer.step(batch_of())
    assert torch.equal(trainer.state_dict()["fc2.bias"], before), "the first factor of a warm-up is 0"
    rates = []
    for _ in range(5):
        trainer.step(batch_of())
        rates.append(trainer.machine.optimizers["b2"].optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.05, 0.1, 0.0875, 0.075, 0.0625])


def test_state_round_trip(trainer_of: Any, batch_of: Any) -> None:
    trained, fresh = trainer_of(), trainer_of()
    trained.step(batch_of())
    fresh.load_state_dict({name: value.clone() for name, value in trained.state_dict().items()})
    assert torch.equal(fresh.predict(batch_of()["x"]), trained.predict(batch_of()["x"]))


def test_splits_by_name(plan_of: Any, splits: Splits) -> None:
    trainer = Trainer(plan_of(), "cpu", splits)
    assert trainer.evaluate() == trainer.evaluate("test") == trainer.evaluate(splits.test)
    assert trainer.evaluate("validation") != trainer.evaluate("test")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_portable_plan_gives_the_same_numbers_on_cuda(plan_of: Any, batch_of: Any) -> None:
    plan = plan_of(target="portable", optimizer="adam", options={"lr": 0.05})
    trainers = [Trainer(plan, device) for device in ("cpu", "cuda")]
    for trainer in trainers:
        for step in range(5):
            trainer.step(batch_of(seed=step))
    on_cpu, on_cuda = (trainer.state_dict() for trainer in trainers)
    assert_close({n: v.cpu() for n, v in on_cuda.items()}, on_cpu, 1e-10)


def wrong(batch: dict[str, torch.Tensor], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**batch, **changes}.items() if value is not None}


MISTAKES: dict[str, tuple[dict[str, Any], Any, str, str]] = {
    # name: (plan options, what is done, code, a part of the message)
    "missing field": ({}, lambda t, b: t.step(wrong(b, t=None, tt=b["t"])), "0656", "lacks the field `t`"),
    "no mapping": ({}, lambda t, b: t.predict(3), "0656", "not int"),
    "wrong dtype": ({}, lambda t, b: t.step(wrong(b, x=b["x"].float())), "0657", "float32[8, 4]"),
    "wrong shape": (
        {},
        lambda t, b: t.step(wrong(b, x=b["x"][:, :3])),
        "0657",
        "float64[8, 3], expected float64[B, 4]",
    ),
    "wrong rank": ({}, lambda t, b: t.step(wrong(b, x=b["x"][0])), "0657", "float64[4]"),
    "uneven batch": ({}, lambda t, b: t.step(wrong(b, t=b["t"][:5])), "0657", "float64[5, 3]"),
    "no tensor": ({}, lambda t, b: t.step(wrong(b, x=[1.0])), "0657", "is a list"),
    "too few parts": ({"accumulate": 3}, lambda t, b: t.step([b, b]), "0658", "takes 3 batches, 2"),
    "indivisible": ({"accumulate": 3}, lambda t, b: t.step(b), "0658", "no 3 equal parts"),
    "unknown site": (
        {"dropout": True},
        lambda t, b: t.gradients(b, noise={"x": b["x"]}),
        "0646",
        "no random site",
    ),
    "wrong noise": (
        {"dropout": True},
        lambda t, b: t.gradients(b, noise={"fc1.dropout": b["x"]}),
        "0646",
        "(8, 5)",
    ),
    "no data": ({}, lambda t, b: t.fit(), "0666", "no `data` section"),
    "no length": ({"schedule": {"then": "cosine"}}, lambda t, b: t.step(b), "0651", "steps of the run"),
    "shape": ({}, lambda t, b: t.load_state_dict({"fc2.bias": torch.ones(4)}, strict=False), "0647", "(4,)"),
    "unknown name": ({}, lambda t, b: t.load_state_dict({"fc2.bais": torch.ones(3)}), "0648", "`fc2.bais`"),
    "missing name": ({}, lambda t, b: t.load_state_dict({}), "0649", "`fc1.weight` is missing"),
    "no device": ({}, lambda t, b: Trainer(t.plan, "gpu"), "0663", "`gpu` is no device"),
    "other device": ({}, lambda t, b: Trainer(t.plan, "meta"), "0663", "no `meta` device"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name: str, trainer_of: Any, batch_of: Any) -> None:
    options, act, code, part = MISTAKES[name]
    trainer = trainer_of(**options)
    with pytest.raises(LpcError) as caught:
        act(trainer, batch_of())
    diagnostic = caught.value.diagnostics[0]
    assert diagnostic.code == code
    assert part in diagnostic.message
    assert diagnostic.place


def test_a_plan_without_kernels_for_the_device_names_the_remedy(plan_of: Any) -> None:
    plan = plan_of(target="cuda")
    bound = {name: replace(kernel, device="cuda") for name, kernel in plan.kernels["native"].items()}
    with pytest.raises(LpcError, match="build it with"):
        Trainer(replace(plan, kernels={"native": bound}), "cpu")
    Trainer(replace(plan, kernels={"native": bound, "portable": plan.kernels["native"]}), "cpu")
    Trainer(plan, "cpu")  # native kernels that run on any device serve as well


def test_a_failing_kernel_names_node_and_layer(trainer_of: Any, batch_of: Any) -> None:
    plan = trainer_of().plan
    kernel = plan.kernels["native"]["b2.predict"]
    broken = replace(
        kernel,
        nodes=(
            replace(kernel.nodes[1], name="wt", args=({"ref": "x"},), op="aten.t.default"),
            replace(kernel.nodes[1], args=({"ref": "b"}, {"ref": "x"}, {"ref": "wt"})),
        ),
    )
    trainer = Trainer(
        replace(plan, kernels={"native": {**plan.kernels["native"], "b2.predict": broken}}), "cpu"
    )
    with pytest.raises(LpcError) as caught:
        trainer.predict(batch_of()["x"])
    assert caught.value.diagnostics[0].code == "0662"
    assert caught.value.diagnostics[0].place == "kernel b2.predict, node p (aten.addmm.default, from test.p)"
