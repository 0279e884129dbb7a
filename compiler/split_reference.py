"""What should a step of a split network do? The same minimisers found otherwise: by stacked equations, and by trials.

Independent of capture, schedule and runtime. What is solved element by element is tried: of all points at which one of
its pieces is least, or where pieces meet, the best one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import networkx as nx
import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.eager import Walk
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.localize import LocalProblem
from lpc.compiler.reference import Reference
from lpc.compiler.splitting import SplitLayer

Values = dict[str, Tensor]


def split_reference(
    traced: Traced,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    state: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
) -> Reference:
    """Run the first step of a run; arguments as in `reference_step`."""
    values = Walk(traced, graph, problems, dict(state), noise).once(batch, {})
    first = next(layer for p in problems.values() if (layer := p.split) is not None)
    node = next(n for n in traced.train.graph.nodes if n.name == first.node)
    step = _Step(problems, dict(state), values[node.all_input_nodes[0].name], batch)
    step.begin(noise)
    step.run()
    return Reference({}, {}, step.state, values["output"], values, step.objectives)


class _Step:
    def __init__(
        self, problems: Mapping[str, LocalProblem], state: Values, rows: Tensor, batch: Mapping[str, Tensor]
    ) -> None:
        self.layers = [p.split for p in problems.values() if p.split is not None]
        self.loss, self.batch = problems[self.layers[-1].block].losses[0], batch
        self.state, self.rows, self.variables = state, rows, Values()
        self.split, self.objectives = self.layers[0].split, Values()

    def begin(self, noise: Mapping[str, Tensor]) -> None:
        for layer in self.layers:
            made = self.made(layer)
            self.variables[layer.z] = noise.get(layer.z, made)
            self.variables[layer.a] = noise.get(layer.a, F.leaky_relu(made, layer.slope))
        self.variables[self.layers[-1].multiplier] = torch.zeros_like(self.variables[self.layers[-1].z])

    def run(self) -> None:
        forward = self.split.order == "forward"
        for layer in self.layers if forward else self.layers[::-1]:
            turns = [self.weights, self.z] if layer.above is None else [self.weights, self.a, self.z]
            for turn in turns if forward else [*turns[1:], turns[0]]:
                turn(layer)
            self.objectives[f"{layer.block}.objective"] = self.objective(layer)

    def read(self, layer: SplitLayer) -> Tensor:
        place = self.layers.index(layer)
        return self.rows if place == 0 else self.variables[self.layers[place - 1].a]

    def parameters(self, layer: SplitLayer) -> list[Tensor]:
        return [self.state[n] for n in layer.parameters]

    def made(self, layer: SplitLayer) -> Tensor:
        return F.linear(self.read(layer), *self.parameters(layer))

    def weights(self, layer: SplitLayer) -> None:
        """Solve sqrt(beta) (W a + b - z) = 0 and sqrt(hold) (W - W0) = 0 as one system of least norm."""
        old, rows = self.parameters(layer), self.read(layer)
        before = torch.cat([old[0].t(), *(b[None] for b in old[1:])])
        rows = F.pad(rows, (0, len(old) - 1), value=1.0)
        held = self.split.hold**0.5 * torch.eye(rows.shape[1], dtype=rows.dtype)
        left = torch.cat([self.split.beta**0.5 * rows, held])
        right = torch.cat([self.split.beta**0.5 * self.variables[layer.z], held @ before])
        found = torch.linalg.pinv(left) @ right
        width = old[0].shape[1]
        self.state.update(zip(layer.parameters, [found[:width].t(), *found[width:]], strict=True))

    def a(self, layer: SplitLayer) -> None:
        above = self.layers[self.layers.index(layer) + 1]
        weight, *bias = self.parameters(above)
        one = torch.eye(weight.shape[1]).to(weight)
        terms = [
            (self.split.beta, weight, self.variables[above.z] - (bias[0] if bias else 0.0)),
            (self.split.gamma, one, F.leaky_relu(self.variables[layer.z], layer.slope)),
            (self.split.hold, one, self.variables[layer.a]),
        ]
        left = torch.cat([w**0.5 * matrix for w, matrix, _ in terms])
        right = torch.cat([w**0.5 * target for w, _, target in terms], 1)
        self.variables[layer.a] = torch.linalg.lstsq(left, right.t()).solution.t()

    def z(self, layer: SplitLayer) -> None:
        """Try the least point of each piece, moved into the piece, and take the best."""
        self.variables[layer.z] = _best(self.candidates(layer), lambda z: self.cost(layer, z))

    def cost(self, layer: SplitLayer, z: Tensor) -> Tensor:
        """What an element costs at z."""
        before = self.variables[layer.z]
        total = self.split.beta * (z - self.made(layer)) ** 2 + self.split.hold * (z - before) ** 2
        if layer.above is not None:
            return total + self.split.gamma * (self.variables[layer.a] - F.leaky_relu(z, layer.slope)) ** 2
        if layer.multiplier in layer.variables:
            total = total + self.variables[layer.multiplier] * z
        return total + self.share(z) * self.elements(z)

    def candidates(self, layer: SplitLayer) -> Sequence[Tensor]:
        """The zeros of the costs' slopes, were each piece everywhere: slopes are linear there, two points tell them."""
        zero = torch.zeros_like(self.variables[layer.z])
        found = [zero, zero + 1.0]
        for inside in (-1e3, 0.5, 1e3):  # a point of each piece
            point = (zero + inside).requires_grad_()
            (slope,) = torch.autograd.grad(self.cost(layer, point).sum(), [point], create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), [point])
            found.append((point - slope / bend).detach())
        return found

    def elements(self, z: Tensor) -> Tensor:
        truth = self.batch[self.loss.target["train"]]
        if self.layers[-1].loss == "hinge":
            own = torch.arange(z.shape[1]) == truth[:, None]
            return own * (1.0 - z).relu() + ~own * z.relu()
        return (z - truth.reshape(z.shape)) ** 2

    def share(self, z: Tensor) -> float:
        counted = {"sum": 1, "batchmean": len(z), "mean": z.numel()}[str(self.loss.options["reduction"])]
        return self.loss.weight / counted

    def objective(self, layer: SplitLayer) -> Tensor:
        z = self.variables[layer.z]
        return self.cost(layer, z).sum()


def _best(candidates: Sequence[Tensor], cost: Callable[[Tensor], Tensor]) -> Tensor:
    """Return, element by element, the candidate that costs least."""
    stacked = torch.stack(list(candidates))
    costs = torch.stack([cost(one) for one in candidates])
    return stacked.gather(0, costs.argmin(0, keepdim=True))[0]
