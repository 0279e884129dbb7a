"""How does a whole run read as Python? `run.py` holds what a run has, `train.py` is its loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lpc.ejecting.imports import imports
from lpc.ejecting.refusal import refuse
from lpc.ejecting.writing import document
from lpc.specs.model import Spec
from lpc.specs.plan.plan import Program, StateEntry

LOOP = '''
import argparse
from pathlib import Path

from {package} import data, samples, sections, weights
from {package}.clock import Clock
from {package}.run import ALIASES, Run

PER_STEP = {per_step}  # batches
{phases}


def main():
    """Train as the plan says, then write the weights."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("trained.safetensors"), help="file for the weights")
    parser.add_argument("--data", type=Path, default=data.ROOT, help="where the data lie")
    arguments = parser.parse_args()
    run, splits = Run(), data.splits(arguments.data)
    train(run, splits["train"])
    for split in ("validation", "test"):
        if split in splits:
            print(split, evaluate(run, splits[split]))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    weights.save(arguments.out, run.weights, ALIASES)


def train(run, split):
    """Step through all phases."""
    per_epoch = split.batches // PER_STEP
    groups, done = samples.groups(split, PER_STEP), 0
    for section, epochs, steps in PHASES:
        start, total = done, epochs * per_epoch if steps is None else steps
        run.reset_offsets()
        while done < start + total:
            section(run, iter(next(groups)), Clock(done, start, total, per_epoch))
            done += 1
            if done % per_epoch == 0 or done == start + total:
                print(f"step {{done}}", run.meter.read())


def evaluate(run, split):
    """Return the metrics over a split."""
    run.meter.read()
    for batch in split.epoch():
        sections.evaluate(run, iter([batch]), Clock())
    return run.meter.read()


if __name__ == "__main__":
    main()
'''


def check(spec: Spec) -> None:
    """Refuse a run that ends when validation does not improve (0708)."""
    term = spec.run.early_stop
    if term is not None and term.name != "none":
        refuse("stopping early is not written as code", "run.early_stop", spec.origin("run", "early_stop"))


def loop(package: str, spec: Spec, program: Program, per_step: int) -> str:
    """Return `train.py`."""
    text = LOOP.format(package=package, per_step=per_step, phases="\n".join(_phases(spec, program)))
    return document(f"How does `{spec.name}` train? Step by step, as the plan it was made from does.", [text.strip()])


def _phases(spec: Spec, program: Program) -> Iterator[str]:
    """Yield the table of phases: the step's function, and epochs or steps."""
    whole = [("step", spec.run.epochs, spec.run.steps)]
    parts = [(f"step_{i + 1}", one.epochs, one.steps) for i, one in enumerate(spec.run.phases or ())]
    yield "PHASES = ["
    for name, epochs, steps in parts if program.phases else whole:
        yield f"    (sections.{name}, {epochs}, {steps}),  # epochs, steps"
    yield "]"


def holder(state: Mapping[str, StateEntry], metrics: Mapping[str, str], corrected: bool, cached: bool) -> str:
    """Return `run.py`: weights, learners, offsets, metrics and cache of a run."""
    parameters = {name: entry.trainable for name, entry in state.items() if entry.kind == "parameter"}
    aliases = {alias: name for name, entry in state.items() for alias in entry.aliases}
    body = HOLDER.format(
        parameters="\n".join(f'    "{name}": {trained},' for name, trained in parameters.items()),
        aliases="\n".join(f'    "{alias}": "{name}",' for alias, name in aliases.items()),
        metrics="\n".join(f'    "{name}": "{kind}",' for name, kind in metrics.items()),
        offsets="optimizers.offsets()" if corrected else "{}",
        cache=CACHE if cached else "",
    ).split("\n")
    text = "What does a run hold? Weights, the blocks' learners, and what they keep from step to step."
    return document(text, ["from pathlib import Path", "", *imports(body), *body])


CACHE = "\n        self.cache = SampleCache()  # variables of the samples"

HOLDER = '''
WEIGHTS = Path(__file__).with_name("weights.safetensors")
PARAMETERS = {{  # name: is it trained?
{parameters}
}}
ALIASES = {{  # further names of tied tensors
{aliases}
}}
METRICS = {{
{metrics}
}}


class Run:
    """A run at its beginning."""

    def __init__(self, file=WEIGHTS):
        self.weights = weights.load(file, PARAMETERS, ALIASES)
        self.learners = optimizers.learners(self.weights)
        self.offsets = {offsets}
        self.meter = Meter(METRICS){cache}

    def reset_offsets(self):
        """Forget the offsets: each phase begins without."""
        for offset in self.offsets.values():
            offset.reset()'''
