"""Does `lpc verify` find what is wrong? Faults that are put into sound plans, one function each, from plan to plan.

Every function changes one thing that a compiler, a file or a hand could get wrong; a fault that does not apply where it
is meant to raises, so that none can pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

import lpc
from lpc.specs.plan.instructions import Accumulate, Call, Clip, Every, Free, Instruction, Record, Update, Write
from lpc.specs.plan.kernel import Bundle, Kernel, Node
from lpc.specs.plan.plan import ParameterGroup, Plan

Fault = Callable[[Plan], Plan]
NodeChange = Callable[[Node], Node | None]


def in_kernel(plan: Plan, name: str, change: Callable[[Kernel], Kernel], target: str = "native") -> Plan:
    kernels = dict(plan.kernels[target])
    changed = change(kernels[name])
    assert changed != kernels[name], f"nothing changed in {name}"
    return replace(plan, kernels={**plan.kernels, target: {**kernels, name: changed}})


def in_node(op: str, change: Callable[[Node], Node], which: int = 0) -> Callable[[Kernel], Kernel]:
    """Change the `which`-th node of an operator (by its middle name)."""

    def changed(kernel: Kernel) -> Kernel:
        [*places] = [i for i, node in enumerate(kernel.nodes) if node.op.split(".")[1:2] == [op]]
        nodes = list(kernel.nodes)
        nodes[places[which]] = change(nodes[places[which]])
        return replace(kernel, nodes=tuple(nodes))

    return changed


def argument(index: int, value: Any) -> Callable[[Node], Node]:
    def change(node: Node) -> Node:
        args = list(node.args)
        args[index] = value(args[index]) if callable(value) else value
        return replace(node, args=tuple(args))

    return change


def swapped(first: int, second: int) -> Callable[[Node], Node]:
    def change(node: Node) -> Node:
        args = list(node.args)
        args[first], args[second] = args[second], args[first]
        return replace(node, args=tuple(args))

    return change


def as_operator(op: str, *args: int, kwargs: dict[str, Any] | None = None) -> Callable[[Node], Node]:
    """Make a node another operator, on some of its arguments."""
    return lambda node: replace(node, op=op, args=tuple(node.args[i] for i in args), kwargs=kwargs or {})


def in_results(role: str, change: Callable[[Bundle], Bundle]) -> Callable[[Kernel], Kernel]:
    def changed(kernel: Kernel) -> Kernel:
        results = tuple(change(b) if b.role == role else b for b in kernel.results)
        return replace(kernel, results=results)

    return changed


def values_swapped(one: str, other: str) -> Callable[[Bundle], Bundle]:
    """Let two ports of a bundle give each other's value."""

    def change(bundle: Bundle) -> Bundle:
        values = {port.source: port.value for port in bundle.ports}
        exchanged = {**values, one: values[other], other: values[one]}
        return replace(bundle, ports=tuple(replace(p, value=exchanged[p.source]) for p in bundle.ports))

    return change


def in_step(plan: Plan, change: Callable[[Instruction], list[Instruction]]) -> Plan:
    """Replace every instruction of the step, inside of bodies as well, by those that `change` gives."""

    def body(instructions: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
        found: list[Instruction] = []
        for instruction in instructions:
            inner = getattr(instruction, "body", None)
            one: Any = instruction if inner is None else replace(instruction, body=body(inner))  # type: ignore[call-arg]
            found += change(one)
        return tuple(found)

    step = body(plan.program.step)
    assert step != plan.program.step, "nothing changed in the step"
    return replace(plan, program=replace(plan.program, step=step))


def in_program(plan: Plan, **changes: Any) -> Plan:
    program = replace(plan.program, **changes)
    assert program != plan.program
    return replace(plan, program=program)


def groups(plan: Plan, block: str) -> tuple[ParameterGroup, ...]:
    return plan.program.optimizers[block].groups


def optimizer(plan: Plan, block: str, **changes: Any) -> Plan:
    found = plan.program.optimizers
    return in_program(plan, optimizers={**found, block: replace(found[block], **changes)})


def renamed(value: Any, names: dict[str, str]) -> Any:
    """Exchange names wherever they stand as a text."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, tuple):
        return tuple(renamed(item, names) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: renamed(getattr(value, f.name), names) for f in fields(value)})
    return value


def zero_gradient(kernel: Kernel) -> Kernel:
    """Give a gradient of zeros for the first parameter."""
    [bundle] = [b for b in kernel.results if b.role == "gradients"]
    port = bundle.ports[0]
    node = Node("zeros", "aten.zeros_like.default", ({"ref": port.value},), types=(port.type,))
    ports = (replace(port, value="zeros"), *bundle.ports[1:])
    results = tuple(replace(b, ports=ports) if b is bundle else b for b in kernel.results)
    return replace(kernel, nodes=(*kernel.nodes, node), results=results)


def not_a_number(kernel: Kernel) -> Kernel:
    """Divide the first gradient by zero."""
    [bundle] = [b for b in kernel.results if b.role == "gradients"]
    port = bundle.ports[0]
    nodes = (
        Node("nothing", "aten.zeros_like.default", ({"ref": port.value},), types=(port.type,)),
        Node("nan", "aten.div.Tensor", ({"ref": "nothing"}, {"ref": "nothing"}), types=(port.type,)),
    )
    ports = (replace(port, value="nan"), *bundle.ports[1:])
    results = tuple(replace(b, ports=ports) if b is bundle else b for b in kernel.results)
    return replace(kernel, nodes=(*kernel.nodes, *nodes), results=results)


def old_buffers(kernel: Kernel) -> Kernel:
    """Give the buffers back as they came."""
    came = {port.source: port.value for b in kernel.arguments if b.role == "state" for port in b.ports}
    return in_results(
        "buffers", lambda b: replace(b, ports=tuple(replace(p, value=came[p.source]) for p in b.ports))
    )(kernel)


def without(kind: type, nth: int = 0) -> Callable[[Plan], Plan]:
    """Drop the nth instruction of a kind from the step."""

    def fault(plan: Plan) -> Plan:
        seen = [0]

        def change(instruction: Instruction) -> list[Instruction]:
            if isinstance(instruction, kind):
                seen[0] += 1
                return [] if seen[0] == nth + 1 else [instruction]
            return [instruction]

        return in_step(plan, change)

    return fault


def each(kind: type, change: Callable[[Any], list[Instruction]]) -> Fault:
    return lambda plan: in_step(plan, lambda i: change(i) if isinstance(i, kind) else [i])


def kernel(name: str, change: Callable[[Kernel], Kernel]) -> Fault:
    return lambda plan: in_kernel(plan, name, change)


def noise(site: str, **changes: Any) -> Fault:
    def fault(plan: Plan) -> Plan:
        found = plan.program.noise
        return in_program(plan, noise={**found, site: replace(found[site], **changes)})

    return fault


def state(name: str, **changes: Any) -> Fault:
    def fault(plan: Plan) -> Plan:
        found = plan.program.state
        return in_program(plan, state={**found, name: replace(found[name], **changes)})

    return fault


def regrouped(plan: Plan) -> Plan:
    """Leave one parameter out of its optimizer."""
    found = plan.program.optimizers["b2"]
    groups = (replace(found.groups[0], parameters=found.groups[0].parameters[1:]), *found.groups[1:])
    return optimizer(plan, "b2", groups=groups)


def exchanged_updates(plan: Plan) -> Plan:
    """Give each block the other one's gradients."""
    names = {"b1.gradients": "b2.gradients", "b2.gradients": "b1.gradients"}
    return in_step(plan, lambda i: [renamed(i, names)] if isinstance(i, Update) else [i])


def stale_input(plan: Plan) -> Plan:
    """Let the third block read what the first one gave."""
    return in_step(
        plan, lambda i: [renamed(i, {"t2": "t1"})] if isinstance(i, Call) and i.kernel.startswith("b3.") else [i]
    )


def stale_input_kept(plan: Plan) -> Plan:
    """The same, with the first block's value kept alive until then."""
    stale = stale_input(plan)
    step = tuple(
        replace(i, values=tuple(v for v in i.values if v != "t1")) if isinstance(i, Free) else i
        for i in stale.program.step
    )
    return in_program(stale, step=(*step, Free(("t1",))))


def early_update(plan: Plan) -> Plan:
    """Update a block before its backward pass has read the parameters."""
    [update] = [i for i in plan.program.step if isinstance(i, Update) and i.block == "b1"]
    rest = [i for i in plan.program.step if i is not update]
    place = next(n for n, i in enumerate(rest) if isinstance(i, Call) and i.kernel == "b1.backward")
    return in_program(plan, step=(*rest[:place], update, *rest[place:]))


LEAST = as_operator("aten.argmin.default", 0, 1, 2)
SAME = as_operator("aten.clone.default", 0)

# plan, fault: what is wrong
FAULTS: dict[tuple[str, str], Fault] = {
    ("conv", "missing buffer update"): without(Write),
    ("conv", "buffers given back unchanged"): kernel("b1.local", old_buffers),
    ("conv", "momentum of batch norm"): kernel(
        "b1.local", in_node("_native_batch_norm_legit_functional", argument(6, 0.2))
    ),
    ("conv", "epsilon of batch norm in prediction"): kernel(
        "b1.predict", in_node("_native_batch_norm_legit_no_training", argument(6, 1e-3))
    ),
    ("conv", "epsilon of batch norm in evaluation"): kernel(
        "b1.eval", in_node("_native_batch_norm_legit_no_training", argument(6, 1e-3))
    ),
    ("conv", "loss of evaluation"): kernel("b2.eval", in_node("nll_loss_forward", argument(3, 2))),
    ("conv", "accuracy of evaluation"): kernel("b2.eval", in_node("argmax", LEAST)),
    ("conv", "accuracy of training"): kernel("b2.local", in_node("argmax", LEAST)),
    ("conv", "scale of dropout"): kernel("b1.local", in_node("mul", argument(1, 2.0))),
    ("conv", "probability of dropout"): noise("drop1", args=(0.9,)),
    ("conv", "law of dropout"): noise("drop1", law="uniform", args=(0.0, 1.0)),
    ("conv", "gradient of zeros"): kernel("b1.local", zero_gradient),
    ("conv", "gradient that is no number"): kernel("b1.local", not_a_number),
    ("conv", "learning rate"): lambda plan: optimizer(plan, "b1", options={"lr": 1.0}),
    ("conv", "optimizer"): lambda plan: optimizer(plan, "b1", name="sgd", options={"lr": 0.004}),
    ("conv", "weight decay of a group"): lambda plan: optimizer(
        plan, "b1", groups=tuple(replace(g, options={"weight_decay": 0.5}) for g in groups(plan, "b1"))
    ),
    ("conv", "factor on a learning rate"): lambda plan: optimizer(
        plan, "b1", groups=tuple(replace(g, lr_factor=0.1) for g in groups(plan, "b1"))
    ),
    ("conv", "clipping of a block"): lambda plan: optimizer(plan, "b1", clip=100.0),
    ("conv", "schedule"): lambda plan: optimizer(plan, "b1", schedule={"then": "linear", "unit": "step", "warmup": 0}),
    ("conv", "parameter left out of its optimizer"): regrouped,
    ("conv", "parameter frozen"): state("fc2.weight", trainable=False),
    ("conv", "metric that is summed"): lambda plan: in_program(
        plan, metrics={**plan.program.metrics, "b1.loss": "sum"}
    ),
    ("conv", "loss recorded as another's"): each(
        Record, lambda i: [replace(i, metric={"b1.loss": "b2.loss", "b2.loss": "b1.loss"}.get(i.metric, i.metric))]
    ),
    ("chain", "operands of a product swapped"): kernel("b2.local", in_node("mm", swapped(0, 1))),
    ("chain", "transpose dropped"): kernel("b2.local", in_node("t", SAME)),
    ("chain", "two gradients exchanged"): kernel(
        "b2.local", in_results("gradients", values_swapped("fc2.bias", "heads.b2.bias"))
    ),
    ("chain", "reduction of the loss"): kernel("b2.local", in_node("nll_loss_forward", argument(3, 2))),
    ("chain", "reduction of the gradient"): kernel("b2.local", in_node("nll_loss_backward", argument(4, 2))),
    ("chain", "labels that are ignored"): kernel("b2.local", in_node("nll_loss_backward", argument(5, 1))),
    ("chain", "axis of the softmax"): kernel("b2.local", in_node("_log_softmax_backward_data", argument(2, 0))),
    ("chain", "derivative of tanh left out"): kernel("b2.local", in_node("tanh_backward", SAME)),
    ("chain", "derivative of tanh at another value"): kernel("b2.local", in_node("tanh_backward", swapped(0, 1))),
    ("chain", "bias added twice"): kernel(
        "b2.local", in_node("addmm", lambda node: replace(node, kwargs={**node.kwargs, "beta": 2}))
    ),
    ("chain", "stale value"): stale_input,
    ("chain", "stale value that lives"): stale_input_kept,
    ("chain", "dropped update"): without(Update, 1),
    ("chain", "update made twice"): each(Update, lambda i: [i, i] if i.block == "b2" else [i]),
    ("chain", "updates exchanged"): exchanged_updates,
    ("chain", "link that says stop"): lambda plan: replace(
        plan, partition={**plan.partition, "edges": [{**e, "link": "gradient"} for e in plan.partition["edges"]]}
    ),
    ("deep", "update before the backward pass"): early_update,
    ("deep", "seed of another loss"): kernel(
        "b2.backward",
        lambda k: replace(
            k, arguments=tuple(
                replace(b, ports=tuple(replace(p, source="other") for p in b.ports)) if b.role == "seed" else b
                for b in k.arguments
            )
        ),
    ),
    ("sums", "scale of a sum"): each(Accumulate, lambda i: [replace(i, scale=1.0)]),
    ("sums", "clipping of the whole"): each(Clip, lambda i: [replace(i, norm=i.norm * 1e6)]),
    ("sums", "clipping left out"): without(Clip),
    ("offset", "period of an offset"): each(Every, lambda i: [replace(i, period=3)]),
    ("offset", "strength of an offset"): lambda plan: in_program(
        plan, corrections={b: replace(c, scale=2.0) for b, c in plan.program.corrections.items()}
    ),
    ("offset", "decay of an offset"): lambda plan: in_program(
        plan, corrections={b: replace(c, decay=0.5) for b, c in plan.program.corrections.items()}
    ),
}  # fmt: skip


def dropped_detach(stopped: Plan, through: Plan) -> Plan:
    """The program of gradient links under the spec and the partition of stops."""
    edges = [{**edge, "link": "stop"} for edge in through.partition["edges"]]
    return replace(through, spec=stopped.spec, partition={**through.partition, "edges": edges})


def dropped_detach_everywhere(stopped: Plan, through: Plan) -> Plan:
    """As before, with a partition that agrees with the program."""
    return replace(through, spec=stopped.spec)


LEARN = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: OPTIMIZER}]\n'
DATA = "data: {source: digits, batch: 16}\nloss: cross_entropy\nrun: {epochs: 1RUN}\n"
CHAIN = """
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(10), t1: tanh, fc2: linear(10), t2: tanh, fc3: linear(10), t3: tanh, out: linear(10)]
decompose: {blocks: {b1: fc1, b2: fc2, b3: fc3, head: out}, links: LINK}
"""
CONVOLUTION = """
network:
  inputs: {image: [1, 8, 8]}
  layers: ["conv(4, 3)", norm1: batch_norm, relu, drop1: dropout(0.3), flatten, fc2: linear(16), relu, out: linear(10)]
decompose: {blocks: {b1: [conv1, norm1, drop1], b2: fc2, head: out}, links: stop}
"""


def spec(network: str, link: str = "stop", optimizer: str = "sgd(lr=0.1)", run: str = "") -> str:
    text = DATA.replace("RUN", run) + network.replace("LINK", link)
    return text + LEARN.replace("OPTIMIZER", optimizer)


SPECS = {
    "conv": spec(CONVOLUTION, optimizer="adam(lr=0.004), schedule: cosine"),
    "chain": spec(CHAIN),
    "deep": spec(CHAIN, "gradient"),
    "sums": spec(CHAIN, "gradient", run=", accumulate: 2, clip: 0.5"),
    "offset": spec(CHAIN, optimizer="sgd(lr=0.1), correct: 'bp_offset(period=5, batch=0.5)'"),
}


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: lpc.build(text).data for name, text in SPECS.items()}


def passes(plan: Plan) -> bool:
    """Does a plan pass? One that cannot even be run does not."""
    try:
        return lpc.verify(lpc.Plan(plan)).ok
    except lpc.LpcError:
        return False


@pytest.mark.parametrize("name", SPECS)
def test_sound_plans_pass(plans: dict[str, Plan], name: str) -> None:
    assert passes(plans[name])


@pytest.mark.parametrize(("name", "what"), FAULTS)
def test_a_fault_is_found(plans: dict[str, Plan], name: str, what: str) -> None:
    assert not passes(FAULTS[name, what](plans[name]))


@pytest.mark.parametrize("fault", [dropped_detach, dropped_detach_everywhere])
def test_a_dropped_detach_is_found(plans: dict[str, Plan], fault: Callable[[Plan, Plan], Plan]) -> None:
    assert not passes(fault(plans["chain"], plans["deep"]))


def test_kernels_for_other_devices_are_looked_at_too(plans: dict[str, Plan]) -> None:
    native = plans["chain"].kernels["native"]
    both = replace(plans["chain"], kernels={"native": native, "portable": {"b2.local": native["b2.local"]}})
    assert passes(both)
    assert not passes(in_kernel(both, "b2.local", in_node("tanh_backward", SAME), "portable"))


def test_tables_that_differ_from_the_spec_are_told(plans: dict[str, Plan]) -> None:
    changed = FAULTS["conv", "learning rate"](plans["conv"])
    [problem] = lpc.verify(lpc.Plan(changed)).diagnostics
    assert (problem.code, problem.place) == ("0570", "optimizer b1")


def test_there_are_faults_enough() -> None:
    assert len(FAULTS) >= 45
