"""Which losses reach which parameters, by the graphs alone?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lpc.specs.plan.instructions import Accumulate, Call, Every, Free, Instruction, Repeat, Update
from lpc.specs.plan.kernel import Node
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.verify import influence, reachability

WithStep = Callable[[Plan, dict[int, Instruction | None]], Plan]


def test_kernels(plan: Plan) -> None:
    kernels = plan.kernels["native"]
    nothing: frozenset[str] = frozenset()
    assert reachability(kernels["b1.local"]) == {
        ("h1", "h1"): nothing,
        ("loss", "loss"): nothing,
        ("gradients", "fc1.weight"): {"seed_loss"},
        ("buffers", "fc1.count"): nothing,
    }
    assert reachability(kernels["b2.backward"]) == {("gradients", "fc2.weight"): {"d_h2_b3"}}
    assert reachability(kernels["b3.local"])[("d_h2_b3", "h2@b3")] == {"seed_loss"}
    assert set(reachability(kernels["b3.eval"]).values()) == {nothing}


def test_plan(plan: Plan) -> None:
    assert influence(plan) == {
        "fc1.weight": {"b1.loss"},
        "fc2.weight": {"b3.loss"},
        "fc3.weight": {"b3.loss"},
    }


def test_a_target_uses_its_own_kernels(plan: Plan) -> None:
    deaf = replace(plan.kernels["native"]["b3.local"], nodes=_without_seed(plan))
    other = replace(plan, kernels={**plan.kernels, "portable": {"b3.local": deaf}})
    assert influence(other)["fc3.weight"] == {"b3.loss"}
    assert influence(other, "portable")["fc3.weight"] == frozenset()


def _without_seed(plan: Plan) -> tuple[Node, ...]:
    nodes = plan.kernels["native"]["b3.local"].nodes
    return tuple(replace(node, args=({"ref": "n1"},)) if node.name == "n3" else node for node in nodes)


def test_a_parameter_that_is_not_updated_is_not_influenced(plan: Plan, with_step: WithStep) -> None:
    assert influence(with_step(plan, {5: None}))["fc1.weight"] == frozenset()


def test_a_leak_shows(plan: Plan) -> None:
    """b1's kernel that adds another loss's cotangent, smuggled in through an input."""
    step = list(plan.program.step)
    call = next(i for i in step if isinstance(i, Call) and i.kernel == "b2.backward")
    leak = [call, Accumulate("b1.g2", "b2.g", 1.0), Update("b1", ("b1.g2",)), Free(("b1.g2",))]
    kernel = plan.kernels["native"]["b2.backward"]
    port = replace(kernel.results[0].ports[0], source="fc1.weight")
    changed = replace(kernel, results=(replace(kernel.results[0], ports=(port,)),))
    native = {**plan.kernels["native"], "b2.backward": changed}
    index = step.index(call)
    program = replace(plan.program, step=(*step[:index], *leak, *step[index + 1 :]))
    found = influence(replace(plan, program=program, kernels={"native": native}))
    assert found["fc1.weight"] == {"b1.loss", "b3.loss"}


def test_bodies_are_followed(plan: Plan) -> None:
    body = (*plan.program.step[:5], Accumulate("s", "b1.g", 0.5))
    program = replace(plan.program, step=(Repeat(2, body), Every(3, (Update("b1", ("s",)),))))
    assert influence(replace(plan, program=program))["fc1.weight"] == {"b1.loss"}
