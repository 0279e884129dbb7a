"""Which losses reach which gradients? Reachability in the kernels' graphs, and through the step's data flow.

Every loss enters a kernel's backward part through a cotangent of its own (a `seed`), and what other blocks
send back through `cotangent` arguments. A path in the graph is influence, no path is proof of isolation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from lpc.specs.plan.instructions import (
    Accumulate,
    Begin,
    Call,
    Due,
    Every,
    Fetch,
    Free,
    Instruction,
    Parallel,
    Part,
    Reduce,
    ReduceScatter,
    Relax,
    Repeat,
    StepVariable,
    Store,
    Update,
)
from lpc.specs.plan.kernel import Bundle, Kernel, Port
from lpc.specs.plan.plan import Plan, factored_parameter
from lpc.specs.plan.wellformed import references

Names = frozenset[str]
Labelled = list[tuple[str, Names]]  # for each port of a value, its source and what reaches it
NOTHING: Names = frozenset()
THROUGH = "~"  # in front of a loss that reaches a value through an auxiliary variable, not by a gradient


def reachability(kernel: Kernel) -> dict[tuple[str, str], Names]:
    """Return which seeds and cotangents reach each result.

    Keys are (result bundle's name, port's source), such as `("gradients", "fc1.weight")`; values are names of
    argument bundles of role `seed` or `cotangent`. Takes time linear in the graph, times the number of seeds.
    """
    marked = ("seed", "cotangent")
    start = [[frozenset({b.name}) if b.role in marked else NOTHING] * len(b.ports) for b in kernel.arguments]
    return {
        (bundle.name, port.source): names
        for bundle, reached in zip(kernel.results, _flow(kernel, start), strict=True)
        for port, names in zip(bundle.ports, reached, strict=True)
    }


def influence(plan: Plan, target: str = "native") -> dict[str, Names]:
    """Return for every trainable parameter the losses (`block.loss`) whose gradients update it in any step.

    Follows seeds through the kernels and through every value that one call gives another. A parameter that no
    loss reaches has an empty set. `target` chooses the kernels; those that the target lacks are native.
    """
    found = _walked(plan, target).found
    return {
        name: frozenset(n for n in found.get(name, ()) if not n.startswith(THROUGH)) for name in _trainable(plan)
    }


def indirect_influence(plan: Plan, target: str = "native") -> dict[str, Names]:
    """Return for every trainable parameter the losses that reach it through auxiliary variables; see `influence`."""
    found = _walked(plan, target).found
    return {
        name: frozenset(n.removeprefix(THROUGH) for n in found.get(name, ()) if n.startswith(THROUGH))
        for name in _trainable(plan)
    }


def influence_by_targets(plan: Plan, target: str = "native") -> dict[str, Names]:
    """Return for every trainable parameter the losses of which the target of its block is made; see `influence`."""
    kernels = {**plan.kernels.get("native", {}), **plan.kernels.get(target, {})}
    aims = any(bundle.role == "target" for kernel in kernels.values() for bundle in kernel.results)
    aimed = _walked(plan, target).aimed if aims else {}
    return {name: frozenset(aimed.get(name, ())) for name in _trainable(plan)}


def _walked(plan: Plan, target: str) -> _Walk:
    walk = _Walk({**plan.kernels.get("native", {}), **plan.kernels.get(target, {})})
    for step in plan.program.steps:
        for _ in range(2 if plan.program.variables else 1):  # once more, for what is kept from step to step
            walk.run(step)
    return walk


def _trainable(plan: Plan) -> list[str]:
    return [e.name for e in plan.program.state.values() if e.kind == "parameter" and e.trainable]


def _flow(kernel: Kernel, start: list[list[Names]]) -> list[list[Names]]:
    """Carry names from the ports of the arguments through the nodes to the ports of the results."""
    reached: dict[str, Names] = {}
    for bundle, given in zip(kernel.arguments, start, strict=True):
        reached.update((port.value, names) for port, names in zip(bundle.ports, given, strict=True))
    for node in kernel.nodes:
        sources = frozenset([reached.get(name, NOTHING) for name in references([*node.args, *node.kwargs.values()])])
        reached[node.name] = _united(sources)
    return [[reached.get(port.value, NOTHING) for port in bundle.ports] for bundle in kernel.results]


@lru_cache(maxsize=1024)
def _united(sources: frozenset[Names]) -> Names:
    """Join what several values carry; operators one after another join the same."""
    return NOTHING.union(*sources)


def _aims(kernel: Kernel, port: Port) -> bool:
    """Is a gradient that of a parameter which a target teaches? A head has losses of its own."""
    return not port.source.startswith(f"heads.{kernel.block}.")


class _Walk:
    """Runs a section on sets of losses in place of tensors."""

    def __init__(self, kernels: Mapping[str, Kernel]) -> None:
        self.kernels = kernels
        self.values: dict[str, Labelled] = {}
        self.found: dict[str, set[str]] = {}
        self.aimed: dict[str, set[str]] = {}  # by the losses that made the target
        self.kept: dict[str, Names] = {}

    def run(self, body: Iterable[Instruction]) -> None:
        for instruction in body:
            match instruction:
                case Call():
                    self.call(instruction)
                case Accumulate(target=target, value=value):
                    self.values[target] = self.merge(self.values.get(target), self.values.get(value, []))
                case Reduce(target=target, value=value) | ReduceScatter(target=target, value=value):
                    self.values[target] = self.values.get(value, [])
                case Update(gradients=gradients):
                    for source, losses in (port for g in gradients for port in self.values.get(g, ())):
                        self.found.setdefault(factored_parameter(source), set()).update(losses)
                case Free(values=values):
                    for value in values:
                        self.values.pop(value, None)
                case Begin(values=values):
                    self.values.update({name: [(name, NOTHING)] for name in values})
                case Fetch(values=values):
                    self.values.update({name: [(name, self.kept.get(name, NOTHING))] for name in values})
                case Store(variables=variables, values=values):
                    for name, value in zip(variables, values, strict=False):
                        self.kept[name] = self.kept.get(name, NOTHING) | self.reaching(value)
                case StepVariable(variable=name, slopes=slopes):
                    passed = {THROUGH + n.removeprefix(THROUGH) for slope in slopes for n in self.reaching(slope)}
                    self.values[name] = [(name, self.reaching(name) | passed)]
                case Part(body=inner) | Relax(body=inner) | Parallel(body=inner) | Due(body=inner):
                    self.run(inner)
                case Repeat(body=inner) | Every(body=inner):
                    self.run(inner)
                    self.run(inner)  # once more, for what one iteration leaves to the next

    def call(self, call: Call) -> None:
        kernel = self.kernels.get(call.kernel)
        if kernel is None:
            return
        given = iter(call.arguments)
        start = [self.losses(kernel, bundle, given) for bundle in kernel.arguments]
        flow = list(zip(call.values, kernel.results, _flow(kernel, start), strict=False))
        own = self.aim(kernel, [(bundle, reached) for _, bundle, reached in flow])
        for value, bundle, reached in flow:
            aims = bool(own) and bundle.role == "gradients"
            pairs = zip(bundle.ports, reached, strict=True)
            self.values[value] = [(p.source, own if aims and _aims(kernel, p) else n) for p, n in pairs]

    def aim(self, kernel: Kernel, results: Iterable[tuple[Bundle, list[Names]]]) -> Names:
        """Return the local loss of a block whose kernel makes a target, and note of which losses that is made.

        The gradient that such a kernel returns is the first one of the local problem, but for the block's heads.
        """
        results = list(results)
        made = [bundle for bundle, _ in results if bundle.role == "target"]
        if not made:
            return NOTHING
        for bundle, reached in results:
            if bundle.role == "gradients":
                pairs = zip(bundle.ports, reached, strict=True)
                for port, names in ((p, n) for p, n in pairs if _aims(kernel, p)):
                    self.aimed.setdefault(port.source, set()).update(names)
        return frozenset({f"{kernel.block}.{made[0].ports[0].source}"})

    def losses(self, kernel: Kernel, bundle: Bundle, given: Iterator[str]) -> list[Names]:
        if bundle.role == "seed":
            return [frozenset({f"{kernel.block}.{port.source}"}) for port in bundle.ports]
        if bundle.role == "target":
            next(given, "")
            return [frozenset({f"{kernel.block}.{bundle.ports[0].source}"})] * len(bundle.ports)
        if bundle.role == "state":
            return [NOTHING] * len(bundle.ports)
        ports = self.values.get(next(iter(given), ""), [])
        found = [names for _, names in ports[: len(bundle.ports)]]
        return found + [NOTHING] * (len(bundle.ports) - len(found))

    def reaching(self, value: str) -> Names:
        return NOTHING.union(*(names for _, names in self.values.get(value, ())))

    @staticmethod
    def merge(total: Labelled | None, value: Labelled) -> Labelled:
        if total is None:
            return value
        return [(source, a | b) for (source, a), (_, b) in zip(total, value, strict=False)]
