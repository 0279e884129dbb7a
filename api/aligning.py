"""How near is what each block learns from to its exact gradient? Angle and length, for estimators of any kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import safetensors.torch
import torch
from torch import Tensor

from lpc.compiler.build import Build, localize, network, partition, run_pipeline, trace
from lpc.expected import reference
from lpc.plan import Plan
from lpc.precise import promote, sample_batch, sample_noise
from lpc.runtime.trainer import Trainer
from lpc.specs import Spec, load_spec


@dataclass(frozen=True)
class Alignment:
    """The cosine of an estimate with the exact gradient of a block's parameters, and its norm over that one's.

    Both are 1 for an exact estimate, and NaN where the exact gradient is 0.
    """

    cosine: float
    ratio: float


def alignment(
    plan: Plan, state: Mapping[str, Tensor] | None = None, *, allow: Sequence[str] = (), seed: int = 0
) -> dict[str, Alignment]:
    """Compare every block's gradient with that of backpropagation through the same links, in float64.

    Exact gradients are those of the same losses with `estimator: backprop` everywhere, and with gradient links where
    the plan feeds errors back. `state` are weights, such as a trainer's `state_dict()`, by default those that the plan
    starts with; `seed` draws the batch and one draw of noise. Heads learn exactly and are left out.
    """
    held = safetensors.torch.load(bytes(plan.data.weights))
    held |= {n: t.detach().cpu().contiguous() for n, t in (state or {}).items() if n in held}
    precise = Trainer(promote(replace(plan.data, weights=safetensors.torch.save(held))), device="cpu")
    generator = torch.Generator().manual_seed(seed)
    batch, noise = sample_batch(precise.plan, generator), sample_noise(precise.plan, generator)
    estimates = precise.gradients(batch, noise)
    build = Build(_exact(load_spec(plan.data.spec)), tuple(allow), plan.data.program.fields)
    build = run_pipeline(build, (network, trace, partition, localize))
    wanted = reference(build, precise.plan, [batch], [noise]).gradients
    return {block: _compared(names, estimates, wanted) for block, names in _bodies(plan, estimates, wanted).items()}


def _exact(spec: Spec) -> Spec:
    """The spec with exact gradients."""
    exact: dict[str, object] = {
        f"learn[{i}].estimator": "backprop" for i, entry in enumerate(spec.learn) if entry.estimator is not None
    }
    links = spec.decompose.links
    terms = {name: "gradient" if term.name == "feedback" else str(term) for name, term in links.items()}
    return load_spec(spec, exact | {"decompose.links": terms})


def _bodies(plan: Plan, estimates: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The names of each block's own parameters."""
    found: dict[str, list[str]] = {}
    for name, entry in plan.data.program.state.items():
        if name in estimates and name in wanted and not name.startswith("heads."):
            found.setdefault(entry.block, []).append(name)
    return found


def _compared(names: Sequence[str], estimates: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Alignment:
    one, other = (torch.cat([table[n].double().flatten() for n in names]) for table in (estimates, wanted))
    return Alignment(float(one @ other / (one.norm() * other.norm())), float(one.norm() / other.norm()))
