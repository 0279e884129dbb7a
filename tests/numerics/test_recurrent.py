"""Does a recurrent net, a block for each time step, learn as it is unrolled? Against loops written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc
from lpc.specs.diagnostics import LpcError

STEPS, HIDDEN, CLASSES, BATCH, RATE = 5, 4, 3, 6, 0.1
State = dict[str, Tensor]
CODES = "penalty=squared(weight=0.05, reduction=mean), optimizer=sgd(lr=0.02, momentum=0.9, nesterov=true), steps=3"


def spec(links: str, readout: str = "last", hidden: str = "none", shared: str = "sum") -> str:
    return f"""
network:
  zoo: elman
  args: {{image: [1, 3, 5], steps: {STEPS}, hidden: {HIDDEN}, readout: {readout}, classes: {CLASSES}}}
data: none
fields: {{y: {{shape: [], dtype: int64}}}}
loss: cross_entropy
decompose: {{blocks: unroll("cell"), shared: {shared}, links: {links}}}
learn: [{{blocks: "cell*", loss: {hidden}}}, {{blocks: "*", optimizer: sgd(lr={RATE})}}]
run: {{dtype: float64, epochs: 1, target: cpu}}
"""


def batch() -> State:
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(BATCH, 1, 3, 5, generator=generator, dtype=torch.float64)
    return {"image": image, "y": torch.randint(0, CLASSES, (BATCH,), generator=generator)}


def cell(state: State, frame: Tensor, code: Tensor | None) -> Tensor:
    made = F.linear(frame, state["cell.input.weight"], state["cell.input.bias"])
    return made if code is None else made + F.linear(torch.tanh(code), state["cell.recurrent.weight"])


def read(state: State, code: Tensor) -> Tensor:
    return F.linear(code, state["out.weight"], state["out.bias"])


def frames() -> tuple[Tensor, ...]:
    return batch()["image"].reshape(BATCH, STEPS, 3).unbind(1)


def leaves(run: lpc.Trainer) -> State:
    return {n: t.detach().clone().requires_grad_() for n, t in run.state_dict().items()}


def by_hand(state: State, readout: str, horizon: int) -> State:
    """Backpropagation through `horizon` boundaries at most from each place where the loss comes in."""
    if readout == "last":
        code: Tensor | None = None
        for t, frame in enumerate(frames()):
            code = cell(state, frame, code.detach() if code is not None and t <= STEPS - horizon else code)
        assert code is not None
        logits = read(state, torch.tanh(code))
    else:
        codes: list[Tensor] = []
        for frame in frames():
            codes.append(cell(state, frame, codes[-1].detach() if codes else None))
        logits = read(state, torch.tanh(torch.cat(codes, 1)).relu())
    loss = F.cross_entropy(logits, batch()["y"])
    return dict(zip(state, torch.autograd.grad(loss, list(state.values())), strict=True))


@pytest.mark.parametrize(
    ("links", "readout", "horizon"),
    [
        ("gradient", "last", STEPS),
        ("gradient(reach=3)", "last", 3),
        ('{"*": gradient, "cell*->cell*": stop}', "sequence", 0),
    ],
    ids=["whole", "truncated", "stopped"],
)
def test_gradient_links_are_backpropagation_through_time(links: str, readout: str, horizon: int) -> None:
    run = lpc.Trainer(lpc.build(spec(links, readout)), device="cpu")
    wanted = by_hand(leaves(run), readout, horizon)
    found = run.gradients(batch())
    before = leaves(run)
    run.step(batch())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-14)
        after = before[name].detach() - RATE * gradient
        torch.testing.assert_close(run.state_dict()[name], after, rtol=1e-12, atol=1e-14)
    memory = run.measure(batch())
    assert memory["predicted"] == memory["measured"]


def minimised(state: State, links: str) -> tuple[list[Tensor], State]:
    """Codes of all steps, the last first, and the pooled gradients of the weights (Choromanska et al. 2019)."""
    codes: list[Tensor] = []
    for frame in frames():
        codes.append(cell(state, frame, codes[-1] if codes else None).detach())
    forward = list(codes)
    for t in reversed(range(STEPS)):
        code, velocity = codes[t].clone().requires_grad_(), None
        for _ in range(3):
            if t == STEPS - 1:
                above = F.cross_entropy(read(state, torch.tanh(code)), batch()["y"])
            else:
                above = 0.05 * F.mse_loss(cell(state, frames()[t + 1], code), codes[t + 1])
            pull = 0.05 * F.mse_loss(code, forward[t]) if "anchor=false" not in links else 0.0
            (slope,) = torch.autograd.grad(above + pull, [code])
            velocity = slope if velocity is None else 0.9 * velocity + slope
            code = (code - 0.02 * (slope + 0.9 * velocity)).detach().requires_grad_()
        codes[t] = code.detach()
    loss = F.cross_entropy(read(state, torch.tanh(codes[-1])), batch()["y"])
    for t, frame in enumerate(frames()):
        loss = loss + 0.05 * F.mse_loss(cell(state, frame, codes[t - 1] if t else None), codes[t])
    return codes, dict(zip(state, torch.autograd.grad(loss, list(state.values())), strict=True))


@pytest.mark.parametrize("more", ["", ", anchor=false"])
def test_a_code_for_each_step_and_one_pooled_step_of_the_weights(more: str) -> None:
    links = f"variable({CODES}{more})"
    plan = lpc.build(spec(links, hidden="consistency"))
    run = lpc.Trainer(plan, device="cpu")
    state = leaves(run)
    codes, wanted = minimised(state, links)
    found = run.gradients(batch())
    run.step(batch())
    assert len(run.variables()) == STEPS
    for code, variable in zip(codes, run.variables().values(), strict=True):
        torch.testing.assert_close(variable, code, rtol=1e-11, atol=1e-13)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-14)
        after = state[name].detach() - RATE * gradient
        torch.testing.assert_close(run.state_dict()[name], after, rtol=1e-11, atol=1e-13)
    kernels = plan.data.kernels["native"]
    middle = [f"cell#{t}" for t in range(2, STEPS + 1)]
    for kind in ("forward", "slope", "local", "eval"):
        once = kernels[f"cell#2.{kind}"].nodes
        for block in middle:
            again = kernels[f"{block}.{kind}"].nodes
            assert all(a.op == b.op and a.args is b.args for a, b in zip(once, again, strict=True)), kind


def test_every_step_has_a_variable_that_the_readout_reads_too() -> None:
    """With `readout: sequence` each code is solved along the slopes of the next step and of the readout."""
    plan = lpc.build(spec("variable(optimizer=sgd(lr=0.1), steps=2)", "sequence", "consistency"))
    report = lpc.verify(plan)
    assert report.ok, report
    assert report.worst < 1e-12


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({"links": "gradient", "shared": "forbid"}, "0305", "cell.input.weight"),
        ({"links": f"variable({CODES})", "shared": "owner"}, "0423", "shared: owner"),
        ({"links": "variable(init=cache)"}, "0423", "every boundary"),
    ],
)
def test_what_steps_cannot_share_is_told(given: dict[str, str], code: str, told: str) -> None:
    with pytest.raises(LpcError) as caught:
        lpc.build(spec(**given))
    assert caught.value.diagnostics[0].code == code
    assert told in caught.value.diagnostics[0].message


def test_a_cell_that_nobody_calls_is_told() -> None:
    with pytest.raises(LpcError) as caught:
        lpc.build(spec("gradient").replace('unroll("cell")', 'unroll("sell")'))
    assert caught.value.diagnostics[0].code == "0301"
    assert "cell" in str(caught.value.diagnostics[0].help)


MIXED = spec("gradient", "sequence").replace('unroll("cell")', '{"*": unroll("cell"), head: out}')


def test_time_steps_stand_beside_named_blocks() -> None:
    plan = lpc.build(MIXED)
    run = lpc.Trainer(plan, device="cpu")
    assert list(plan.partition) == ["frames", "cell", *(f"cell#{t}" for t in range(2, STEPS + 1)), "head"]
    assert {d["link"] for *_, d in plan.partition.out_edges("frames", data=True)} == {"stop"}
    by_name = lpc.Trainer(lpc.build(spec("gradient", "sequence")), device="cpu").gradients(batch())
    found = run.gradients(batch())
    assert all(torch.equal(found[name], gradient) for name, gradient in by_name.items())


@pytest.mark.parametrize(
    ("blocks", "code", "told"),
    [
        ('{"*": unroll("sell"), head: out}', "0301", "`sell`"),
        ('{"*": unroll("cell"), head: [out, cell.input]}', "0302", "the time step `cell`"),
    ],
)
def test_time_steps_that_cannot_stand_so_are_told_where_they_are_written(blocks: str, code: str, told: str) -> None:
    with pytest.raises(LpcError) as caught:
        lpc.build(spec("gradient").replace('unroll("cell")', blocks))
    (problem,) = caught.value.diagnostics
    assert problem.code == code
    assert told in problem.message
    assert problem.span is not None


NETS = """
import torch
from torch import nn

class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Linear(3, 4), nn.Linear(4, 4, bias=False)

    def forward(self, x, h):
        return torch.tanh(self.u(x) + self.v(h))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = Cell(), nn.Linear(4, 3)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for i in range(len(x[0])):
            h = self.cell(x[:, i], h)
        return self.out(h)
"""


def test_a_net_that_resists_fx_is_unrolled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells with layers of their own: what torch.export says of a node's modules tells its call."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    given = """
network: {module: "nets:Net", inputs: {x: [3, 3]}}
data: none
fields: {y: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: {"*": unroll("cell"), head: out}, shared: sum, links: LINK}
learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]
run: {dtype: float64, epochs: 1}
"""
    plan = lpc.build(given.replace("LINK", "gradient"), allow=["nets.py"])
    assert plan.data.report["rung"] == "export"
    assert [block for block in plan.partition if block != "frames"] == ["cell", "cell#2", "cell#3", "head"]
    run = lpc.Trainer(plan, device="cpu")
    state, x, y = leaves(run), torch.randn(5, 3, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    h = torch.zeros(5, 4, dtype=torch.float64)
    for i in range(3):
        made = F.linear(x[:, i], state["cell.u.weight"], state["cell.u.bias"])
        h = torch.tanh(made + F.linear(h, state["cell.v.weight"]))
    loss = F.cross_entropy(F.linear(h, state["out.weight"], state["out.bias"]), y)
    found = run.gradients({"x": x, "y": y})
    for name, wanted in zip(state, torch.autograd.grad(loss, list(state.values())), strict=True):
        torch.testing.assert_close(found[name], wanted, rtol=1e-12, atol=1e-14)
    relaxed = lpc.build(given.replace("LINK", "variable(optimizer=sgd(lr=0.1))"), allow=["nets.py"])
    report = lpc.verify(relaxed, allow=["nets.py"])
    assert report.ok
    assert report.worst < 1e-12
