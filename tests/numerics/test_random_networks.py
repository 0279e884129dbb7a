"""Do plans of any network, cut anywhere, have autograd's gradients? Random layers, cuts, links, heads and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

import lpc

# Each try builds a plan: shrinking would take minutes.
QUICK: dict[str, Any] = {
    "deadline": None,
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
    "suppress_health_check": [HealthCheck.too_slow],
}
CLASSES = 3
BATCH = 5
Shape = tuple[int, ...]
Layer = dict[str, Any]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
}


# What a network is: layers as the spec has them, made for the shape that reaches them


@dataclass
class Writer:
    """Draws layers one after the other; `shapes` remembers what named layers give, for later skip edges."""

    draw: st.DrawFn
    shapes: dict[str, Shape] = field(default_factory=dict)
    count: int = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def weighted(self, shape: Shape, width: int) -> tuple[str, Shape]:
        if len(shape) == 1:
            return f"linear({width}, bias={self.flag()})", (width,)
        kernel = self.draw(st.sampled_from([1, 3]))
        return f"conv({width}, {kernel}, padding={kernel // 2}, bias={self.flag()})", (width, *shape[1:])

    def flag(self) -> str:
        return self.draw(st.sampled_from(["true", "false"]))

    def width(self) -> int:
        return self.draw(st.integers(CLASSES, 6))

    def norm(self, shape: Shape) -> str:
        words = ["batch_norm", "layer_norm", "rms_norm"] if len(shape) == 1 else ["batch_norm", "group_norm(1)"]
        return self.draw(st.sampled_from(words))

    def activation(self) -> str:
        return self.draw(st.sampled_from(list(ACTIVATIONS)))

    def simple(self, shape: Shape) -> tuple[list[Layer], Shape]:
        """A weighted layer, maybe a norm, maybe an activation, maybe pooling."""
        term, shape = self.weighted(shape, self.width())
        layers = [{self.name("w"): term}]
        if self.draw(st.booleans()):
            layers.append({self.name("n"): self.norm(shape)})
        if self.draw(st.booleans()):
            layers.append({self.name("a"): self.activation()})
        if len(shape) == 3 and shape[1] >= 4 and self.draw(st.booleans()):
            layers.append({self.name("p"): self.draw(st.sampled_from(["max_pool(2)", "avg_pool(2)"]))})
            shape = (shape[0], shape[1] // 2, shape[2] // 2)
        return layers, shape

    def residual(self, shape: Shape) -> tuple[list[Layer], Shape]:
        first, inner = self.weighted(shape, self.width())
        last, _ = self.weighted(inner, shape[0])
        body = [{self.name("n"): self.norm(shape)}, {self.name("w"): first}, {self.name("a"): self.activation()}]
        body.append({self.name("w"): last})
        return [{self.name("r"): {"residual": body[self.draw(st.integers(0, 1)) :]}}], shape

    def branch(self, shape: Shape) -> tuple[list[Layer], Shape]:
        widths = self.width(), self.width()
        merge = self.draw(st.sampled_from(["concat", "add", "multiply"]))
        widths = widths if merge == "concat" else (widths[0], widths[0])
        left, result = self.weighted(shape, widths[0])
        right, _ = self.weighted(shape, widths[1])
        bodies = {"left": [{"w": left}, {"a": self.activation()}], "right": [{"w": right}]}
        total = sum(widths) if merge == "concat" else widths[0]
        return [{self.name("b"): {f"branch(merge={merge})": bodies}}], (total, *result[1:])

    def skip(self, shape: Shape) -> tuple[list[Layer], Shape]:
        """Add an earlier layer's output to a new one's."""
        earlier = self.draw(st.sampled_from([n for n, s in self.shapes.items() if len(s) == len(shape)]))
        wanted = self.shapes[earlier]
        if wanted[1:] != shape[1:]:
            return self.simple(shape)
        term, shape = self.weighted(shape, wanted[0])
        name = self.name("w")
        return [{name: term}, {self.name("s"): f"add(from=[{name}, {earlier}])"}], shape

    def network(self) -> tuple[Shape, list[Layer]]:
        start = shape = self.draw(st.sampled_from([(4,), (2, 6, 6)]))
        layers, shape = self.simple(shape)
        self.shapes[_key(layers[-1])] = shape
        for _ in range(self.draw(st.integers(1, 3))):
            part = self.draw(st.sampled_from([self.simple, self.residual, self.branch, self.skip]))
            more, shape = part(shape)
            layers += more
            self.shapes[_key(more[-1])] = shape
        if len(shape) == 3:
            layers.append({self.name("f"): "flatten"})
        return start, [*layers, {"out": f"linear({CLASSES})"}]


def _key(layer: Layer) -> str:
    return next(iter(layer))


def leaves(layers: list[Layer], at: str = "") -> Iterator[tuple[str, str]]:
    """Path and term of every layer that is no structure, in order."""
    for layer in layers:
        for name, term in layer.items():
            path = f"{at}{name}"
            if isinstance(term, str):
                yield path, term
                continue
            for body in term.values():
                parts = {"": body} if isinstance(body, list) else {f"{n}.": inner for n, inner in body.items()}
                for part, inner in parts.items():
                    yield from leaves(inner, f"{path}.{part}")


# How it learns


@dataclass(frozen=True)
class Case:
    """A network, its cut and its learning, as a spec; and what the hand-written side needs to know of them."""

    shape: Shape
    layers: list[Layer]
    blocks: Any
    links: dict[str, str]
    head: str
    quiet: tuple[str, ...]
    memory: str

    def spec(self) -> dict[str, Any]:
        learn: list[dict[str, Any]] = [
            {"blocks": "*", "head": self.head, "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"}
        ]
        learn += [{"blocks": list(self.quiet), "loss": "none"}] if self.quiet else []
        learn += [{"blocks": "*", "memory": "recompute"}] if self.memory == "recompute" else []
        return {
            "network": {"inputs": {"x": list(self.shape)}, "layers": self.layers},
            "data": None,
            "fields": {"label": {"shape": [], "dtype": "int64"}},
            "loss": "cross_entropy",
            "decompose": {"blocks": self.blocks, "links": self.links},
            "learn": learn,
            "run": {"dtype": "float64", "target": "cpu"}
            | ({"memory": "summed"} if self.memory == "summed" else {}),
        }


@st.composite
def cases(draw: st.DrawFn, link: str | None = None) -> Case:
    shape, layers = Writer(draw).network()
    everywhere = link or draw(st.sampled_from(["stop", "gradient"]))
    links, quiet = {"*": everywhere}, ()
    style = draw(st.sampled_from(["explicit", "explicit", "per_layer", "balanced(2)", "balanced(2, by=memory)"]))
    blocks: Any = style
    if style == "explicit":
        blocks = draw(cuts([path for path, term in leaves(layers) if term.startswith(("linear", "conv"))], layers))
        links, quiet = draw(learning(list(blocks), everywhere, link is None))
    elif everywhere == "gradient" and draw(st.booleans()):
        quiet = ("*",)
    heads = ["linear", "linear(bias=false)", "linear(pool=mean)", "mlp(layers=1, width=4)", "cnn(layers=1, channels=2)"]
    memory = draw(st.sampled_from(["immediate", "summed", "recompute"]))
    return Case(shape, layers, blocks, links, draw(st.sampled_from(heads)), tuple(quiet), memory)


@st.composite
def cuts(draw: st.DrawFn, weighted: list[str], layers: list[Layer]) -> dict[str, list[str]]:
    """Two to four blocks of consecutive layers; a norm goes with the weighted layer before it."""
    count = draw(st.integers(2, min(4, len(weighted))))
    starts = sorted(draw(st.sets(st.integers(1, len(weighted) - 1), min_size=count - 1, max_size=count - 1)))
    blocks: dict[str, list[str]] = {f"block{i}": [] for i in range(count)}
    seen = 0
    for path, term in leaves(layers):
        seen += path in weighted
        if path in weighted or "norm" in term:
            blocks[f"block{sum(seen > s for s in starts)}"].append(path)
    return blocks


@st.composite
def learning(draw: st.DrawFn, blocks: list[str], everywhere: str, mixed: bool) -> tuple[dict[str, str], list[str]]:
    """Links between consecutive blocks, and blocks without a loss where a later one's gradient reaches them."""
    links, quiet = {"*": everywhere}, []
    for one, other in pairwise(blocks):
        if mixed:
            links[f"{one}->{other}"] = draw(st.sampled_from(["stop", "gradient"]))
        if links.get(f"{one}->{other}", everywhere) == "gradient" and draw(st.booleans()):
            quiet.append(one)
    return links, quiet


# The hand-written side


@dataclass
class Walk:
    """Runs the layers with torch.nn.functional; a value read by another block across `stop` is detached."""

    state: dict[str, Tensor]
    owner: dict[str, str]
    stops: Callable[[str, str], bool]
    values: dict[str, Tensor] = field(default_factory=dict)
    merges: dict[str, int] = field(default_factory=dict)
    last: str = ""

    def read(self, source: str, reader: str) -> Tensor:
        value = self.values[source]
        one, other = self.owner.get(source), self.owner[reader]
        return value.detach() if one is not None and one != other and self.stops(one, other) else value

    def put(self, node: str, value: Tensor) -> str:
        self.values[node] = value
        return node

    def run(self, layers: list[Layer], source: str, at: str = "") -> str:
        names: dict[str, str] = {}
        for layer in layers:
            for name, term in layer.items():
                path = f"{at}{name}"
                source = self.leaf(path, term, source, names) if isinstance(term, str) else self.inside(
                    path, term, source
                )
                names[name] = source
        return source

    def inside(self, path: str, term: dict[str, Any], source: str) -> str:
        word, body = next(iter(term.items()))
        if word == "residual":
            return self.merge("add", [source, self.run(body, source, f"{path}.")])
        ends = [self.run(inner, source, f"{path}.{name}.") for name, inner in body.items()]
        return self.merge(word.removeprefix("branch(merge=").rstrip(")"), ends)

    def merge(self, word: str, ends: list[str]) -> str:
        """fx names them `add`, `add_1`, ... in the order in which they are computed."""
        stem, function = MERGES[word]
        count = self.merges.get(stem, 0)
        self.merges[stem] = count + 1
        node = f"{stem}_{count}" if count else stem
        return self.put(node, function([self.read(end, node) for end in ends]))

    def leaf(self, path: str, term: str, source: str, names: dict[str, str]) -> str:
        node = path.replace(".", "_")
        if term.startswith("add(from="):
            ends = [names[n.strip()] for n in term.removeprefix("add(from=[").rstrip("])").split(",")]
            return self.put(node, self.read(ends[0], node) + self.read(ends[1], node))
        own = {n.removeprefix(f"{path}."): t for n, t in self.state.items() if n.startswith(f"{path}.")}
        return self.put(node, LEAVES[term.partition("(")[0]](self.read(source, node), own))


MERGES: dict[str, tuple[str, Callable[[list[Tensor]], Tensor]]] = {
    "add": ("add", lambda xs: xs[0] + xs[1]),
    "multiply": ("mul", lambda xs: xs[0] * xs[1]),
    "concat": ("cat", lambda xs: torch.cat(xs, 1)),
}


def normed(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    p["num_batches_tracked"] += 1
    return F.batch_norm(x, p["running_mean"], p["running_var"], p["weight"], p["bias"], training=True)


LEAVES: dict[str, Callable[[Tensor, dict[str, Tensor]], Tensor]] = {
    "linear": lambda x, p: F.linear(x, p["weight"], p.get("bias")),
    "conv": lambda x, p: F.conv2d(x, p["weight"], p.get("bias"), padding="same"),
    "batch_norm": normed,
    "layer_norm": lambda x, p: F.layer_norm(x, x.shape[-1:], p["weight"], p["bias"]),
    "rms_norm": lambda x, p: F.rms_norm(x, x.shape[-1:], p["weight"]),
    "group_norm": lambda x, p: F.group_norm(x, 1, p["weight"], p["bias"]),
    "max_pool": lambda x, p: F.max_pool2d(x, 2),
    "avg_pool": lambda x, p: F.avg_pool2d(x, 2),
    "flatten": lambda x, p: x.flatten(1),
    **{name: (lambda f: lambda x, p: f(x))(function) for name, function in ACTIVATIONS.items()},
}


def below(p: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    return {n.removeprefix(f"{index}."): t for n, t in p.items() if n.startswith(f"{index}.")}


def mlp_head(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    at = 1
    if x.dim() == 4:
        quarter = (-(-x.shape[2] // 4), -(-x.shape[3] // 4))
        last = (min(quarter[0], 2), min(quarter[1], 2))  # a map of a pixel is not made larger
        x, at = F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(x, quarter), last), 3
    x = F.relu(normed(LEAVES["linear"](x.flatten(1), below(p, at)), below(p, at + 1)))
    return LEAVES["linear"](x, below(p, at + 3))


def cnn_head(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    x = x if x.dim() == 4 else x[:, :, None, None]
    x = F.relu(normed(LEAVES["conv"](x, below(p, 1)), below(p, 2)))
    x = normed(F.adaptive_avg_pool2d(x, 2), below(p, 5))
    return LEAVES["linear"](x.flatten(1), below(p, 7))


HEADS: dict[str, Callable[[Tensor, dict[str, Tensor]], Tensor]] = {
    "linear": lambda x, p: LEAVES["linear"](x.flatten(1), p),
    "linear(bias=false)": lambda x, p: LEAVES["linear"](x.flatten(1), p),
    "linear(pool=mean)": lambda x, p: LEAVES["linear"](x.flatten(2).mean(2) if x.dim() == 4 else x, p),
    "mlp(layers=1, width=4)": mlp_head,
    "cnn(layers=1, channels=2)": cnn_head,
}


@dataclass
class Expected:
    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]


def by_hand(case: Case, plan: Any, state: dict[str, Tensor], batch: dict[str, Tensor]) -> Expected:
    """Forward with `detach`, the sum of all losses, one backward. Only the cut is read from the plan."""
    graph = plan.partition
    owner = {node: block for block, data in graph.nodes(data=True) for node in data["nodes"]["train"]}
    state = {n: t.detach().clone().requires_grad_(is_parameter(n)) for n, t in state.items()}
    walk = Walk(state, owner, lambda a, b: graph.edges[a, b]["link"] == "stop")
    walk.put("x", batch["x"])
    output = walk.run(case.layers, "x")
    assert set(walk.values) - {"x"} == set(owner)
    losses = {owner[output]: F.cross_entropy(walk.values[output], batch["label"])}
    order = list(walk.values)
    for block in graph:
        if block == owner[output] or block in case.quiet or case.quiet == ("*",):
            continue
        leaving = {t["name"] for _, _, data in graph.out_edges(block, data=True) for t in data["tensors"]}
        feature = walk.values[max(leaving, key=order.index)]
        prefix = f"heads.{block}."
        head = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        losses[block] = F.cross_entropy(HEADS[case.head](feature, head), batch["label"])
    sum(losses.values(), torch.zeros(())).backward()
    gradients = {n: t.grad for n, t in state.items() if t.grad is not None}
    return Expected({b: v.detach() for b, v in losses.items()}, gradients, {n: t.detach() for n, t in state.items()})


def is_parameter(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def build(case: Case, spec: dict[str, Any] | None = None) -> Any:
    """A network may be too short for the blocks that `balanced` is asked for; that is no case."""
    try:
        return lpc.build(spec or case.spec())
    except lpc.LpcError as error:
        if "LPC0306" in str(error) and "balanced" in str(case.blocks):
            reject()
        raise


def sample(case: Case, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, *case.shape, generator=generator, dtype=torch.float64)
    return {"x": x, "label": torch.randint(0, CLASSES, (BATCH,), generator=generator)}


def agree(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """To 1e-10 of a tensor's largest value; of a hundredth of the largest of all where that is more, since what
    stands before a batch norm may have no gradient but rounding."""
    assert set(found) == set(wanted)
    floor = 0.01 * max(float(t.abs().max()) for t in wanted.values())
    for name, tensor in wanted.items():
        scale = max(float(tensor.abs().max()), floor)
        assert float((found[name] - tensor).abs().max()) <= 1e-10 * scale, name


@given(cases(), st.integers(0, 1000))
@settings(max_examples=3, **QUICK)
def test_any_plan_has_the_gradients_of_autograd(case: Case, seed: int) -> None:
    plan = build(case)
    if isinstance(case.blocks, dict):
        placed = {p: b for b, data in plan.partition.nodes(data=True) for p in data["parameters"]}
        for block, selectors in case.blocks.items():
            assert all(placed[n] == block for n in placed if n.rpartition(".")[0] in selectors)
    report = lpc.verify(plan)
    assert report.ok, report
    trainer, batch = lpc.Trainer(plan, device="cpu"), sample(case, seed)
    wanted = by_hand(case, plan, trainer.state_dict(), batch)
    agree(trainer.gradients(batch), wanted.gradients)
    metrics = trainer.step(batch)
    agree({b: metrics[f"{b}.loss"] for b in wanted.losses}, wanted.losses)
    buffers = {n: t for n, t in wanted.state.items() if not is_parameter(n)}
    if buffers:
        agree({n: t for n, t in trainer.state_dict().items() if n in buffers}, buffers)


@st.composite
def estimators(draw: st.DrawFn, case: Case) -> list[dict[str, Any]]:
    """Entries of `learn`: the first blocks perturb, those behind them go back exactly or by other weights."""
    options = {"passes": draw(st.integers(1, 2)), "law": draw(st.sampled_from(["normal", "rademacher"]))}
    options |= {"site": draw(st.sampled_from(["output", "after_norm"])), "norm_gradient": draw(st.sampled_from(NORMS))}
    if draw(st.booleans()):
        options = {"perturb": "weight", "passes": options["passes"]}
    estimate: Any = draw(st.sampled_from([{"forward": options}, {"forward": options}, "feedback_alignment"]))
    names = list(case.blocks)[: draw(st.integers(1, len(case.blocks)))] if isinstance(case.blocks, dict) else ["*"]
    return [{"blocks": names, "estimator": estimate}]


NORMS = ("exact", "ignored")


@given(cases(), st.data())
@settings(max_examples=3, **QUICK)
def test_any_estimate_is_verified(case: Case, data: st.DataObject) -> None:
    spec = case.spec()
    plan = build(case, {**spec, "learn": [*spec["learn"], *data.draw(estimators(case))]})
    report = lpc.verify(plan)
    assert report.ok, report


@given(cases(link="stop"), st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=2, **QUICK)
def test_no_later_weight_moves_an_isolated_gradient(case: Case, seed: int, where: float) -> None:
    """Under `stop` links, other weights after a block change no bit of its gradients."""
    plan = build(case)
    names = list(plan.partition)
    kept = set(names[: 1 + int(where * (len(names) - 2))])
    trainer, batch = lpc.Trainer(plan, device="cpu"), sample(case, seed)
    before = trainer.gradients(batch)
    owner = {n: entry.block for n, entry in plan.data.program.state.items()}
    later = {n: t for n, t in trainer.state_dict().items() if owner[n] not in kept and is_parameter(n)}
    generator = torch.Generator().manual_seed(seed)
    changed = {n: t + torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in later.items()}
    trainer.load_state_dict(changed, strict=False)
    after = trainer.gradients(batch)
    assert all(torch.equal(after[n], g) for n, g in before.items() if owner[n] in kept)
    assert any(not torch.equal(after[n], g) for n, g in before.items() if owner[n] not in kept)
    assert not lpc.verify(plan).leaks


def test_later_weights_move_what_a_gradient_link_reaches() -> None:
    """The same change is seen where gradients do cross: the test above can fail."""
    layers = [{"w1": "linear(4)"}, {"a1": "tanh"}, {"out": "linear(3)"}]
    case = Case((4,), layers, "per_layer", {"*": "gradient"}, "linear", ("*",), "immediate")
    trainer, batch = lpc.Trainer(build(case), device="cpu"), sample(case, 0)
    before = trainer.gradients(batch)["w1.weight"]
    trainer.load_state_dict({"out.weight": 2 * trainer.state_dict()["out.weight"]}, strict=False)
    assert not torch.allclose(trainer.gradients(batch)["w1.weight"], before)


@pytest.mark.parametrize("memory", ["immediate", "summed", "recompute"])
def test_isolation_is_read_off_the_kernels(memory: str) -> None:
    layers = [{"w1": "linear(4)"}, {"w2": "linear(4)"}, {"out": "linear(3)"}]
    links = {"*": "stop", "w2->out": "gradient"}
    report = lpc.verify(build(Case((4,), layers, "per_layer", links, "linear", (), memory)))
    assert report.ok
    assert report.influence["w1.weight"] == {"w1.loss"}
    assert report.influence["w2.weight"] == {"w2.loss", "out.loss"}


@given(cases(), st.sampled_from(["sgd(lr=0.1)", "adam(lr=0.1)", "rmsprop(lr=0.1, weight_decay=0.1)"]), st.booleans())
@settings(max_examples=3, **QUICK)
def test_the_memory_of_any_plan_is_predicted(case: Case, optimizer: str, clipped: bool) -> None:
    """What tensors hold at the peak of a step, to the byte."""
    spec = case.spec()
    spec["learn"][0]["optimizer"] = optimizer
    spec["run"] |= {"clip": 1.0} if clipped else {}
    found = lpc.Trainer(build(case, spec), device="cpu").measure(sample(case, 0))
    assert found["predicted"] == found["measured"]
