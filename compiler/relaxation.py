"""In what order does a step with auxiliary variables run? A forward pass, sweeps over the variables, then the weights.

The weights' steps read variables alone, so that no block waits for another one. With a cache the forward pass is that
of samples which were never seen, and the sweeps are due at some visits of a sample only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from lpc.compiler.inner import inner_steps
from lpc.compiler.localize import LocalProblem
from lpc.compiler.variables import Variable, Variables
from lpc.specs.plan.flow import values_made, values_read
from lpc.specs.plan.frees import with_frees
from lpc.specs.plan.instructions import (
    Begin,
    Call,
    Clip,
    Due,
    Fetch,
    Instruction,
    Load,
    Parallel,
    Random,
    Record,
    Relax,
    Repeat,
    Return,
    StepVariable,
    Store,
    Update,
    Visit,
    Weight,
    Write,
)
from lpc.specs.plan.kernel import Bundle, Kernel

INDEX = "index"  # the batch field with the samples' numbers
AGE = "variables.age"  # the metric: visits since a sample's variables were solved
FIRST = 0  # the period of what is due at a sample's first visit


@dataclass(frozen=True)
class Twice:
    """The kernels of an evaluation: the first one in a step tells losses and moves buffers, later ones may not."""

    first: Kernel
    again: Kernel


@dataclass(frozen=True)
class RelaxKernels:
    """What the step calls of a block: its outputs; slopes and anchors by the variables that it reads; its weights'.

    `pull` is what a piece of a group sends back over gradient links while variables are solved.
    """

    forward: Twice | None
    slopes: Mapping[str, Twice]
    anchors: Mapping[str, Kernel]
    local: Kernel | None
    solve: Kernel | None = None  # the weights' gradients alone, for further steps on the batch
    pull: Twice | None = None

    @property
    def every(self) -> tuple[Kernel, ...]:
        """The kernels that exist, each once."""
        pairs = [pair for pair in (self.forward, *self.slopes.values(), self.pull) if pair is not None]
        found = [k for pair in pairs for k in (pair.first, pair.again)]
        found += [*self.anchors.values(), *(k for k in (self.local, self.solve) if k is not None)]
        return tuple({k.name: k for k in found}.values())


def relaxed_step(
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    kernels: Mapping[str, RelaxKernels],
    variables: Variables,
    clip: float | None,
) -> tuple[Instruction, ...]:
    """Return the instructions of a training step."""
    writer = _Writer(graph, problems, kernels, variables)
    body = writer.cached() if variables.cached else writer.plain()
    body += writer.weights(clip)
    body += [Return(boundary, v.name) for v in variables.every.values() for boundary in v.boundaries]
    if variables.cached:
        body.append(Visit(INDEX, variables.refresh, (AGE,)))
    body = [*writer.drawn, *(Weight(name, name) for v in variables.every.values() for name in v.laws), *body]
    made = values_made(body)
    fields = tuple(name for name in values_read(body) if name not in made)
    return tuple(with_frees([Load(fields, fields), *body]))


@dataclass(frozen=True)
class _Fit:
    """The step of a block's weights: what finds their gradients, and their update."""

    calls: Sequence[Instruction]
    update: tuple[Instruction, ...]  # none where other blocks' gradients belong to it
    gradients: tuple[str, ...] = ()
    parameters: frozenset[str] = frozenset()
    waits: bool = False  # for other pieces of its group


@dataclass
class _Writer:
    graph: nx.DiGraph[str]
    problems: Mapping[str, LocalProblem]
    kernels: Mapping[str, RelaxKernels]
    variables: Variables
    drawn: list[Instruction] = field(default_factory=list)
    now: dict[str, str] = field(default_factory=dict)  # what is read in place of a node's value
    called: set[str] = field(default_factory=set)  # kernels that need not tell anything any more
    count: int = 0  # of values computed again
    outputs: dict[str, str] = field(default_factory=dict)  # what the last of these are called

    # The forward pass and the variables

    def plain(self) -> list[Instruction]:
        body = self.forward_pass()
        for sweep in range(self.variables.sweeps):
            body += self.sweep(fresh=sweep == 0)
        return body

    def forward_pass(self) -> list[Instruction]:
        """Run every block that others read."""
        body: list[Instruction] = []
        for block in self.graph.nodes:
            pair = self.kernels[block].forward
            if pair is not None:
                body += self.call(pair.first, {})
                self.called.add(block)
        return body

    def cached(self) -> list[Instruction]:
        """Forward values where a sample is new; sweeps where they are due, from what is kept and to it."""
        every = list(self.variables.every.values())
        names = tuple(v.name for v in every)
        first = [*self.forward_pass(), Store(names, INDEX, tuple(v.value for v in every))]
        self.now = {v.value: v.name for v in every}
        solved = [i for _ in range(self.variables.sweeps) for i in self.sweep(fresh=False)]
        due: list[Instruction] = [Fetch(names, INDEX), *solved, Store(names, INDEX, names)]
        return [
            Due(INDEX, FIRST, _closed(first)), Due(INDEX, self.variables.refresh, _closed(due)), Fetch(names, INDEX),
        ]  # fmt: skip

    def sweep(self, fresh: bool) -> list[Instruction]:
        """Solve all variables: one after another, last first, or all at once; `fresh` ones begin at forward values."""
        backward = list(self.variables.every.values())[::-1]
        if self.variables.sweep == "jacobi":
            return self.at_once(backward, fresh)
        return [i for variable in backward for i in self.one(variable, fresh)]

    def one(self, variable: Variable, fresh: bool) -> list[Instruction]:
        """Solve a variable while all others stay."""
        body: list[Instruction] = []
        made = variable.value
        if fresh:
            body.append(Begin((variable.name,), (variable.value,)))
            self.now[variable.value] = variable.name
        elif variable.anchor:
            recomputed, made = self.recomputed(variable)
            body += recomputed
        still = fresh and not variable.l1  # at what the block before computes: nothing pulls
        turns = self.turns([variable], {variable.value: made}, still)
        return [*body, Relax((variable.name,), _closed(turns))]

    def turns(self, variables: Sequence[Variable], made: Mapping[str, str], still: bool) -> list[Instruction]:
        """Return the optimizer's steps of variables: the first, which may tell and be pulled less, and the others."""
        steps = variables[0].steps
        first = self.turn(variables, made, pulled=not still)
        if steps == 1:
            return first
        rest = self.turn(variables, made, pulled=True)
        if first == rest:
            return [Repeat(steps, _closed(rest))]
        return [*first, Repeat(steps - 1, _closed(rest))]

    def turn(self, variables: Sequence[Variable], made: Mapping[str, str], pulled: bool) -> list[Instruction]:
        """Return one step of each variable, after the slopes of all."""
        body: list[Instruction] = []
        steps: list[Instruction] = []
        for variable in variables:
            slopes: list[str] = []
            for block in variable.consumers:
                pair = self.kernels[block].slopes.get(variable.value)
                if pair is None:
                    continue
                back, read = self.pulled(block)
                body += [*back, *self.evaluation(block, pair, read)]
                slopes.append(f"{block}.slope_{variable.value}")
            anchor = self.kernels[variable.consumers[0]].anchors.get(variable.value) if pulled else None
            if anchor is not None:
                body += self.call(anchor, {**self.now, f"{variable.value}.made": made[variable.value]})
                slopes.append(f"{variable.consumers[0]}.anchor_{variable.value}")
            if slopes:
                steps.append(StepVariable(variable.name, tuple(slopes)))
        return [*body, *steps]

    def at_once(self, backward: Sequence[Variable], fresh: bool) -> list[Instruction]:
        """Solve all variables together: what blocks compute moves with every step."""
        body: list[Instruction] = []
        names = tuple(v.name for v in backward)
        if fresh:
            body.append(Begin(names, tuple(v.value for v in backward)))
            self.now |= {v.value: v.name for v in backward}
        first = self.together(backward, fresh)
        turns = first
        if backward[0].steps > 1:
            rest = self.together(backward, False)
            turns = [*first, Repeat(backward[0].steps - 1, _closed(rest))]
        return [*body, Relax(names, _closed(turns))]

    def together(self, variables: Sequence[Variable], fresh: bool) -> list[Instruction]:
        """One step of all variables; what the blocks before them compute is known where they are `fresh`."""
        made = {v.value: v.value for v in variables}
        body: list[Instruction] = []
        known: dict[str, dict[str, str]] = {}
        for variable in variables if not fresh else ():
            if variable.anchor and variable.producer not in known:
                recomputed, _ = self.recomputed(variable)
                body += recomputed
                known[variable.producer] = self.outputs
            made[variable.value] = known.get(variable.producer, {}).get(variable.value, variable.value)
        still = fresh and not any(v.l1 for v in variables)
        return [*body, *self.turn(variables, made, pulled=not still)]

    def recomputed(self, variable: Variable) -> tuple[list[Instruction], str]:
        """Return what the block before a variable computes of its inputs as they are now."""
        pair = self.kernels[variable.producer].forward
        assert pair is not None, "what a variable stands for leaves its block"
        body, inner = self.moved(variable.producer)
        calls, self.outputs = self.anew(variable.producer, inner)
        return [*body, *calls], self.outputs[variable.value]

    def anew(self, block: str, inner: Mapping[str, str]) -> tuple[list[Instruction], dict[str, str]]:
        """Compute a block's outputs of what it reads now, under other names; return these by the values' own."""
        pair = self.kernels[block].forward
        assert pair is not None, "others read what it computes"
        self.count += 1
        made = {b.name: f"{_value(block, b)}.{self.count}" for b in pair.again.results}
        return self.call(pair.again, self.reading(block, inner), made), made

    def evaluation(self, block: str, pair: Twice, read: Mapping[str, str]) -> list[Instruction]:
        """Call what evaluates a block; the first time in a step it tells."""
        kernel = pair.again if block in self.called else pair.first
        self.called.add(block)
        return self.call(kernel, read)

    # Pieces that gradient links join

    def reading(self, block: str, inner: Mapping[str, str]) -> dict[str, str]:
        """Return what a block reads now: variables, and in a group what its other pieces have computed anew."""
        group = self.problems[block].group
        crossing = group.crossing(block) if group is not None else ()
        plain = {value: name for value, name in self.now.items() if value not in crossing}
        return plain | {value: inner[value] for value in crossing if value in inner}

    def moved(self, *blocks: str) -> tuple[list[Instruction], dict[str, str]]:
        """Compute anew what blocks of one group get over gradient links, where variables move it."""
        group = self.problems[blocks[0]].group
        body: list[Instruction] = []
        inner: dict[str, str] = {}
        wanted = {b for block in blocks for b in group.moving(block)} if group is not None else set()
        for block in group.blocks if group is not None else ():
            if block in wanted:
                calls, made = self.anew(block, inner)
                body += calls
                inner |= made
        return body, inner

    def pulled(self, block: str) -> tuple[list[Instruction], dict[str, str]]:
        """Let the pieces after a block send back what variables are solved for; return what the block then reads."""
        group = self.problems[block].group
        if group is None:
            return [], self.now
        after = group.after(block)
        body, inner = self.moved(block, *after)
        sent: dict[str, str] = {}
        for piece in reversed(after):
            pair = self.kernels[piece].pull
            if pair is not None:
                self.count += 1
                body += self.renamed(piece, pair, {**self.reading(piece, inner), **sent}, sent)
        return body, {**self.reading(block, inner), **sent}

    def renamed(
        self, piece: str, pair: Twice, read: Mapping[str, str], sent: dict[str, str]
    ) -> list[Instruction]:
        """Call what sends cotangents back, each under a name of its own, which is noted in `sent`."""
        kernel = pair.again if piece in self.called else pair.first
        self.called.add(piece)
        given = {b.name: f"{_value(piece, b)}.{self.count}" for b in kernel.results if b.role == "cotangent"}
        body = self.call(kernel, read, given)
        sent |= given
        return body

    # The weights

    def weights(self, clip: float | None) -> list[Instruction]:
        """Return the steps of all blocks' weights, which wait for nothing but the variables, or for a common norm.

        Parameters that blocks share have one step, along the sum of these blocks' gradients; so they stay on one rank.
        """
        steps = list(self.each("" if clip is None else ".fit"))
        pooled = self.pooled(steps)
        if clip is None:
            chained = [i for step in steps if step.waits for i in (*step.calls, *step.update)]
            body = [*(i for step in steps if not step.waits for i in (*step.calls, *step.update)), *pooled]
            return [*chained, *([Parallel(_closed(body))] if body else [])]
        updates = [*(i for step in steps for i in step.update), *pooled]
        bundles = tuple(dict.fromkeys(g for step in steps for g in step.gradients))
        return [*(i for step in steps for i in step.calls), Clip(bundles, clip), *updates]

    def pooled(self, steps: Sequence[_Fit]) -> list[Update]:
        """Return the updates of blocks whose parameters others use too."""
        owners: dict[str, list[str]] = {}
        for step in steps:
            for block in self.owners(step) if not step.update else ():
                owners.setdefault(block, []).extend(step.gradients)
        return [Update(block, tuple(bundles)) for block, bundles in owners.items()]

    def owners(self, step: _Fit) -> list[str]:
        """Return the blocks that own what a block's gradients are of."""
        nodes = self.graph.nodes
        return [b for b in nodes if not step.parameters.isdisjoint((*nodes[b]["parameters"], *self.heads(b)))]

    def heads(self, block: str) -> Iterator[str]:
        return (f"heads.{block}.{name}" for name in self.problems[block].heads.own())

    def each(self, mark: str) -> Iterator[_Fit]:
        """Yield the step of each block's weights; values are marked that another evaluation may have made.

        Pieces of a group come last to first, as cotangents go, after what they get from each other is computed anew.
        """
        done: set[str] = set()
        for block in self.graph.nodes:
            group = self.problems[block].group
            if group is None:
                yield from self.fit(block, {} if self.variables.forward_input else self.now, mark)
            if group is None or block in done:
                continue
            done.update(group.blocks)
            body, inner = ([], {}) if self.variables.forward_input else self.moved(*group.blocks)
            sent: dict[str, str] = {}
            for piece in reversed(group.blocks):
                read = {} if self.variables.forward_input else self.reading(piece, inner)
                for fit in self.fit(piece, read | sent, mark, sent):
                    yield replace(fit, calls=[*body, *fit.calls], waits=True)
                    body = []

    def fit(
        self, block: str, read: Mapping[str, str], mark: str, sent: dict[str, str] | None = None
    ) -> Iterator[_Fit]:
        """Yield the step of a block's weights, if it has one; what it sends back is noted in `sent`."""
        kernel = self.kernels[block].local
        if kernel is None:
            return
        own = {v.name: v.name for v in self.variables.every.values()}
        lent = {name for _, attributes in self.graph.nodes(data=True) for name in attributes["borrowed"]}
        values = {b.name: f"{_value(block, b)}{mark}" for b in kernel.results}
        if sent is not None:
            sent |= {b.name: values[b.name] for b in kernel.results if b.role == "cotangent"}
        bundles = [b for b in kernel.results if b.role == "gradients"]
        gradients = tuple(values[b.name] for b in bundles)
        parameters = frozenset(port.source for b in bundles for port in b.ports)
        update: list[Instruction] = []
        if gradients and lent.isdisjoint(parameters):
            update = [Update(block, gradients), *self.further(block, {**read, **own})]
        yield _Fit(self.call(kernel, {**read, **own}, values), tuple(update), gradients, parameters)

    def further(self, block: str, read: Mapping[str, str]) -> list[Instruction]:
        """Return a block's further steps on the batch."""
        solve, optimizer = self.kernels[block].solve, self.problems[block].optimizer
        if solve is None or optimizer is None:
            return []
        return inner_steps(optimizer, solve, self.arguments(solve, read))

    # Calls

    def call(
        self, kernel: Kernel, read: Mapping[str, str], renamed: Mapping[str, str] | None = None
    ) -> list[Instruction]:
        """Call a kernel on what is read in place of its inputs, and follow up on what it tells."""
        values = [(renamed or {}).get(b.name, _value(kernel.block, b)) for b in kernel.results]
        body: list[Instruction] = [Call(tuple(values), kernel.name, self.arguments(kernel, read))]
        for bundle, value in zip(kernel.results, values, strict=True):
            if bundle.role == "buffers":
                body.append(Write(value))
            elif bundle.role in ("loss", "metric"):
                body += self.record(kernel.block, bundle.ports[0].source, value)
        return body

    def arguments(self, kernel: Kernel, read: Mapping[str, str]) -> tuple[str, ...]:
        listed = [b for b in kernel.arguments if b.role not in ("state", "seed")]
        return tuple(self.argument(kernel.block, bundle, read) for bundle in listed)

    def argument(self, block: str, bundle: Bundle, read: Mapping[str, str]) -> str:
        if bundle.role == "random":
            return self.noise(bundle)
        return _value(block, bundle) if bundle.role == "residuals" else read.get(bundle.name, bundle.name)

    def record(self, block: str, name: str, value: str) -> Iterator[Instruction]:
        yield Record(f"{block}.{name}", value)

    def noise(self, bundle: Bundle) -> str:
        """Return the value of a random site, drawn once in the step: all evaluations share it."""
        site = bundle.ports[0].source
        drawn = Random(f"random.{site}", site)
        if drawn not in self.drawn:
            self.drawn.append(drawn)
        return drawn.value


def _value(block: str, bundle: Bundle) -> str:
    return bundle.name if bundle.role == "output" else f"{block}.{bundle.name}"


def _closed(body: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """Free in a body what it makes; what is around outlives it."""
    made = values_made(body)
    return tuple(with_frees(body, keep=[name for name in values_read(body) if name not in made]))
