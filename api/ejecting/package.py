"""Which files does ejected code consist of? Those that are generated, and the parts that they import."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from lpc.ejecting import data, kernels, optimizers, steps, training
from lpc.ejecting.imports import imported, imports
from lpc.ejecting.names import identifier
from lpc.ejecting.writing import document
from lpc.plan import Plan
from lpc.runtime.machine import count_loads
from lpc.specs.plan.instructions import Call, Due, Fetch, Instruction, Visit
from lpc.specs.plan.kernel import Kernel
from lpc.specs.ranks.makers import flat
from lpc.trainer import Trainer

PARTS = "lpc.ejecting.parts"
OWN = {
    "cache": "lpc.runtime.cache",
    "holdout": "lpc.runtime.data.holdout",
    "keys": "lpc.runtime.data.keys",
    "rmsprop": "lpc.runtime.rmsprop",
}  # of the runtime, which import nothing of lpc but each other
FOR_TRAINING = ("clock", "weights")  # what `train.py` needs besides
_IMPORT = re.compile(r"^from (lpc(?:\.\w+)*)\.(\w+) import ", re.MULTILINE)


def files(plan: Plan, device: str) -> dict[str, bytes]:
    """Return the content of each file by its path. Raises LpcError (0708) for what cannot be ejected."""
    if plan.spec.data is not None:
        data.check(plan.spec, plan.spec.data)
        training.check(plan.spec)
    trainer = Trainer(plan, device)
    package = f"{identifier(plan.spec.name)}_plan"
    program = plan.data.program
    inside = {
        "__init__.py": document(f"The plan `{plan.spec.name}`, as code.", []),
        "settings.py": _settings(plan, trainer),
        "sections.py": _sections(plan, trainer.machine.kernels),
        "optimizers.py": optimizers.module(trainer.machine.optimizers, program.corrections),
        "run.py": training.holder(program.state, program.metrics, bool(program.corrections), _caches(plan)),
        **_blocks(plan, trainer.machine.kernels),
    }
    outside = {"README.md": _readme(plan, package)}
    if plan.spec.data is not None:
        inside["data.py"] = data.module(plan.spec.data, trainer.splits)
        outside["train.py"] = training.loop(package, plan.spec, program, count_loads(program.steps[0]))
    inside |= _parts(inside)
    found = {**outside, **{f"{package}/{name}": text for name, text in inside.items()}}
    return {
        **{name: text.encode() for name, text in found.items()},
        f"{package}/weights.safetensors": bytes(plan.data.weights),
    }


def _settings(plan: Plan, trainer: Trainer) -> str:
    body = ["import torch", "", f"SEED = {plan.spec.run.seed}", f'DEVICE = torch.device("{trainer.device}")']
    return document("On which device does this run, and by which seed?", body)


def _sections(plan: Plan, known: Mapping[str, Kernel]) -> str:
    """Return `sections.py`: the steps, the evaluation and the prediction as functions."""
    program = plan.data.program
    several = len(program.steps) > 1
    bodies = [
        (f"step_{i + 1}" if several else "step", "Train on the next batches.", body)
        for i, body in enumerate(program.steps)
    ]
    bodies += [("evaluate", "Measure the next batch.", program.evaluate), ("predict", "Predict.", program.predict)]
    lines: list[str] = []
    for name, about, body in bodies:
        lines += ["", "", *steps.function(name, about, steps.Section(program, dict(known), body), body)]
    return document("What does a step do? The plan's instructions, in their order.", [*imports(lines), *lines])


def _caches(plan: Plan) -> bool:
    return any(isinstance(one, Due | Fetch | Visit) for body in plan.data.program.steps for one in flat(body))


def _blocks(plan: Plan, known: Mapping[str, Kernel]) -> dict[str, str]:
    """Return a module for each block, with the kernels that are called."""
    program = plan.data.program
    called: dict[str, dict[str, Kernel]] = {}
    for kernel in (known[name] for name in _called([*program.steps, program.evaluate, program.predict])):
        called.setdefault(kernel.block, {})[kernel.name] = kernel
    modules = {identifier(block): kernels.block_module(block, list(own.values())) for block, own in called.items()}
    imports = [f"from . import {', '.join(modules)}", "", f"__all__ = {list(modules)!r}"]
    found = {"blocks/__init__.py": document("The blocks of the network, a module each.", imports)}
    return found | {f"blocks/{name}.py": text for name, text in modules.items()}


def _called(bodies: Iterable[Iterable[Instruction]]) -> dict[str, None]:
    calls = (one for body in bodies for one in flat(tuple(body)) if isinstance(one, Call))
    return dict.fromkeys(one.kernel for one in calls)


def _parts(generated: Mapping[str, str]) -> dict[str, str]:
    """Return the modules, copied as they are, that generated ones import; their imports become the package's own."""
    found: dict[str, str] = {}
    waiting = [*FOR_TRAINING, *sorted(name for text in generated.values() for name in imported(text))]
    while waiting:
        name = waiting.pop()
        places = (f"{name}.py", f"{name}/__init__.py", f"blocks/{name}.py")
        if any(place in found or place in generated for place in places):
            continue
        spec = importlib.util.find_spec(OWN.get(name, f"{PARTS}.{name}"))
        assert spec is not None
        assert spec.origin is not None
        text = Path(spec.origin).read_text(encoding="utf-8")
        found[f"{name}.py"] = _IMPORT.sub(lambda match: f"from .{match[2]} import ", text)
        waiting += [module for _, module in _IMPORT.findall(text)]
    return dict(sorted(found.items()))


def _readme(plan: Plan, package: str) -> str:
    name = plan.spec.name
    lines = [
        f"# {name}",
        "",
        f"The plan `{plan.hash[:16]}` as code, to read and to change. It needs torch, numpy, safetensors"
        + (" and what its data come from." if plan.spec.data is not None else "."),
        "",
        *(["    python train.py --out trained.safetensors", ""] if plan.spec.data is not None else []),
        f"`{package}/sections.py` is the training step; `blocks/` what each block computes, differentiated when the "
        "plan was built; `optimizers.py` how each block learns. As it is written here it computes the very bits that "
        f"`lpc run` does (torch {plan.data.torch}, {plan.data.target}).",
    ]
    return "\n".join(lines) + "\n"
