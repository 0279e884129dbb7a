"""Do gradients pass from piece to piece between auxiliary variables? Autograd by hand, random cuts, refusals."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lpc

FEW = settings(deadline=None, max_examples=4, suppress_health_check=list(HealthCheck))
RATE, WIDTH = 0.5, 4


@dataclass(frozen=True)
class Chain:
    """Tanh layers with a link after each but the last: `G` a gradient, `V` a variable."""

    links: str
    weight: float
    rate: float
    steps: int
    sweeps: int

    def spec(self, joined: bool = False) -> str:
        """Return the spec, a block a layer; or with what gradients join in one block."""
        count = len(self.links) + 1
        layers = [f"f{i}: linear({WIDTH}), t{i}: tanh" for i in range(1, count)] + [f"f{count}: linear(3)"]
        blocks, link = [["f1", "t1"]], f"variable(penalty=squared(weight={self.weight}), optimizer=sgd(lr={self.rate})"
        link += f", steps={self.steps}, sweeps={self.sweeps})"
        lines = {}
        for index, kind in enumerate(self.links, 2):
            own = [f"f{index}", f"t{index}"][: 1 if index == count else 2]
            if joined and kind == "G":
                blocks[-1] += own
                continue
            blocks.append(own)
            lines[f"{blocks[-2][0]}->{blocks[-1][0]}"] = "gradient" if kind == "G" else link
        named = ", ".join(f"{own[0]}: [{', '.join(own)}]" for own in blocks)
        return (
            f"network: {{inputs: {{x: [5]}}, layers: [{', '.join(layers)}]}}\ndata: none\n"
            "fields: {y: {shape: [], dtype: int64}}\nloss: cross_entropy\n"
            f"decompose: {{blocks: {{{named}}}, links: {{{', '.join(f'{k!r}: {v!r}' for k, v in lines.items())}}}}}\n"
            f'learn: [{{blocks: "*", optimizer: sgd(lr={RATE})}}]\nrun: {{dtype: float64, epochs: 1}}\n'
        )


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    return {"x": x, "y": torch.randint(0, 3, (6,), generator=generator)}


class ByHand:
    """The objective written down: layers read variables where there are some, and all else is one function."""

    def __init__(self, chain: Chain, state: dict[str, Tensor]) -> None:
        self.chain = chain
        self.state = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
        self.where = [i for i, kind in enumerate(chain.links, 1) if kind == "V"]

    def run(self, x: Tensor, variables: dict[int, Tensor]) -> list[Tensor]:
        """Return what each layer computes."""
        made, count = [], len(self.chain.links) + 1
        for i in range(1, count + 1):
            given = x if i == 1 else variables.get(i - 1, made[-1])
            out = F.linear(given, self.state[f"f{i}.weight"], self.state[f"f{i}.bias"])
            made.append(out if i == count else out.tanh())
        return made

    def terms(self, batch: dict[str, Tensor], variables: dict[int, Tensor], own: int = 0) -> Tensor:
        """Return the sum over the batch of all terms; what pulls the variable `own` is no function of others."""
        made = self.run(batch["x"], variables)
        total = F.cross_entropy(made[-1], batch["y"], reduction="sum")
        for i, h in variables.items():
            computed = made[i - 1].detach() if i == own else made[i - 1]
            total = total + self.chain.weight * ((h - computed) ** 2).sum()
        return total

    def gradients(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
        with torch.no_grad():
            made = self.run(batch["x"], {})
        found = {i: made[i - 1] for i in self.where}
        for _ in range(self.chain.sweeps):
            for i in reversed(self.where):
                for _ in range(self.chain.steps):
                    h = found[i].clone().requires_grad_()
                    (slope,) = torch.autograd.grad(self.terms(batch, {**found, i: h}, own=i), h)
                    found[i] = h.detach() - self.chain.rate * slope
        objective = self.terms(batch, found) / len(batch["x"])
        gradients = torch.autograd.grad(objective, list(self.state.values()))
        return dict(zip(self.state, gradients, strict=True)), found


def agree(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-12, atol=1e-14)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    links = draw(st.text("GV", min_size=2, max_size=4).filter(lambda links: {*links} == {"G", "V"}))
    numbers = st.floats(0.2, 1.0).map(lambda x: round(x, 2))
    return Chain(links, draw(numbers), round(draw(numbers) / 3, 3), draw(st.integers(1, 2)), draw(st.integers(1, 2)))


@FEW
@given(chains())
def test_random_cuts_are_the_objective_by_hand_and_blocks_joined_by_gradients_are_one(chain: Chain) -> None:
    trainer, data = lpc.Trainer(lpc.build(chain.spec()), device="cpu"), batch()
    joined = lpc.Trainer(lpc.build(chain.spec(joined=True)), device="cpu")
    joined.load_state_dict(trainer.state_dict())
    wanted, _ = ByHand(chain, trainer.state_dict()).gradients(data)
    agree(trainer.gradients(data), wanted)
    agree(joined.gradients(data), wanted)
    for _ in range(2):
        trainer.step(data)
        joined.step(data)
    agree(trainer.state_dict(), joined.state_dict())


def test_variables_between_pieces_are_those_by_hand() -> None:
    chain = Chain("GVGV", 0.7, 0.2, 2, 2)
    trainer = lpc.Trainer(lpc.build(chain.spec()), device="cpu")
    _, variables = ByHand(chain, trainer.state_dict()).gradients(batch())
    trainer.step(batch())
    agree(trainer.variables(), {"f2->f3": variables[2], "f4->f5": variables[4]})


NET = """
network:
  inputs: {x: [6]}
  layers:
    - f1: linear(7)
    - n1: batch_norm
    - t1: tanh
    - dropout(0.3)
    - f2: linear(5)
    - t2: relu
    - f3: linear(5)
    - s3: add(from=[f3, t2])
    - t3: tanh
    - f4: linear(3)
    - t4: tanh
    - f5: linear(3)
data: none
fields: {y: {shape: [], dtype: int64}}
loss: cross_entropy
decompose: {blocks: per_layer, links: LINKS}
learn: [{blocks: "*", optimizer: sgd(lr=0.5)}LEARN]
run: {epochs: 1RUN}
"""
MEANS = (
    "penalty=squared(weight=0.03, reduction=mean), optimizer=sgd(lr=0.03, momentum=0.9), steps=3, anchor=false,"
    " divide_by_weight=true"
)
HEADS = (
    ", {blocks: f2, head: linear, loss: cross_entropy(weight=0.5)},"
    " {blocks: f3, head: linear, loss: [cross_entropy(reduction=sum), consistency(weight=2.0)]}"
)
LAWS = "penalty=squared(weight=grow(0.3, add=0.1)), scale=grow(2.0, factor=0.5), steps=2, divide_by_weight=true"


def mixed(links: str, variable: str, learn: str = "", run: str = "") -> str:
    words = {"G": "gradient", "V": f"variable({variable})", "S": "stop"}
    named = ", ".join(f'"f{i}->f{i + 1}": {words[kind]!r}' for i, kind in enumerate(links, 1))
    return NET.replace("LINKS", f"{{{named}}}").replace("LEARN", learn).replace("RUN", run)


SKIPPING = """
network:
  inputs: {x: [6]}
  layers:
    [f0: linear(4), t0: tanh, f1: linear(4), t1: tanh, f2: linear(4), t2: tanh, f3: linear(4), s3: add(from=[f3, t0]),
     t3: tanh, f4: linear(3)]
data: none
fields: {y: {shape: [], dtype: int64}}
loss: cross_entropy
decompose:
  blocks: per_layer
  links: {"*": gradient, "f0->*": variable(scale=SCALE), "f1->f2": variable(optimizer=sgd(lr=0.1), steps=2)}
learn: [{blocks: "*", optimizer: sgd(lr=0.5)}]
run: {epochs: 1}
"""

CASES = {
    "two variables into one group": SKIPPING.replace("SCALE", "1.0"),
    "means": mixed("VGVG", MEANS),
    "jacobi": mixed("VGVG", "sweep=jacobi, sweeps=2, steps=2, optimizer=sgd(lr=0.1)"),
    "remembered": mixed("VGVG", "sweeps=2, steps=2, optimizer=adam(lr=0.1), state=persistent"),
    "cached, with losses of pieces": mixed("VGVG", "init=cache, steps=2, optimizer=sgd(lr=0.1)", HEADS),
    "losses of pieces": mixed("VGVG", "steps=2, optimizer=sgd(lr=0.1)", HEADS),
    "laws and a common norm": mixed("GVGG", LAWS, run=", clip: 1.0"),
    "forward input": mixed("VGGV", "steps=2, weights_input=forward, optimizer=sgd(lr=0.1)"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_is_its_reference(case: str) -> None:
    report = lpc.verify(lpc.build(CASES[case]))
    assert report.ok, report
    assert report.worst < 1e-12
    if case == "losses of pieces":
        assert report.influence["f2.weight"] == {"f2.loss", "f3.cross_entropy0", "f3.consistency"}
        assert report.influence["f4.weight"] == {"f5.loss"}
        assert "f5.loss" in report.indirect["f2.weight"]


def test_the_memory_of_pieces_is_predicted() -> None:
    trainer = lpc.Trainer(lpc.build(CASES["losses of pieces"]), device="cpu")
    found = trainer.measure({"x": torch.randn(8, 6), "y": torch.randint(0, 3, (8,))})
    assert found["measured"] == found["predicted"]


PLAIN = "optimizer=sgd(lr=0.1)"
REFUSED = [
    (mixed("VGVG", PLAIN).replace("'gradient'", "'gradient(reach=1)'"), "no derivative of that sum"),
    (mixed("VGVG", PLAIN).replace("'gradient'", "feedback"), "the gradient of nothing"),
    (mixed("VGVG", PLAIN).replace("'gradient'", "target"), "that ends at variables"),
    (mixed("VGVG", f"{PLAIN}, buffers=every"), "does not say how often"),
    (mixed("VGVG", PLAIN, ", {blocks: f3, steps: 2}"), "`steps: 2` is for a block alone"),
    (mixed("VGVG", f"{PLAIN}, init=cache").replace("'gradient'", "stop", 1), "needs a variable, or a gradient"),
    (SKIPPING.replace("SCALE", "2.0"), "in ways of their own"),
]


@pytest.mark.parametrize(("spec", "reason"), REFUSED)
def test_what_is_not_defined_is_told_at_its_link(spec: str, reason: str) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec)
    (problem,) = caught.value.diagnostics
    assert problem.code == "0423"
    assert reason in problem.message
    assert problem.span is not None
