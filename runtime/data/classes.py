"""Are there as many classes as the data have, wherever a spec writes labels over images?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lpc.runtime.data.column import Column, Table
from lpc.runtime.data.field import renamed
from lpc.runtime.data.problem import located
from lpc.runtime.data.splits import layout
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.environment import filled
from lpc.specs.model import Path, Spec
from lpc.specs.plan.kernel import TensorType
from lpc.specs.signatures.data import CONTRASTS, OVERLAYS, PREDICTORS


@dataclass(frozen=True)
class _Asked:
    """The number of classes of the word `name` at `path`; `code` is told where `label`, a field, has more."""

    name: str
    classes: int
    path: Path
    code: str
    label: str | None


def ensure_classes(spec: Spec, fields: Mapping[str, TensorType]) -> None:
    """Refuse fewer classes than the labels of the data have (0616, or 0418 outside of `data`).

    `fields` are those of the data, `B` first. What is known only by reading all of the data is told when they are read.
    """
    asked = list(_asked(spec, fields))
    if spec.data is None or not asked:
        return
    with located(spec.origin):
        data = filled(spec.data)
        table = renamed(layout(data).tables["train"], data.columns)
        wrong = [found for one in asked if (found := _misfit(one, spec, table)) is not None]
    if wrong:
        raise LpcError(wrong)


def _asked(spec: Spec, fields: Mapping[str, TensorType]) -> Iterator[_Asked]:
    numbers = [n for n, t in fields.items() if t.dtype.startswith("int") and len(t.shape) == 1 and n != "index"]
    only = numbers[0] if len(numbers) == 1 else None
    term = spec.data.contrast if spec.data is not None else None
    if term is not None and term.name == "label_overlay":
        yield _Asked(term.name, int(CONTRASTS[term.name].bind(term)["classes"]), ("data", "contrast"), "0616", only)
    for name, readout in spec.readouts.items():
        label = signatures.LOSSES[readout.loss.name].bind(readout.loss).get("target") or only
        if readout.with_ is not None:
            classes = int(OVERLAYS[readout.with_.name].bind(readout.with_)["classes"])
            yield _Asked(readout.with_.name, classes, ("readouts", name, "with"), "0418", label)
    if spec.run.predict.name == "goodness":
        classes = int(PREDICTORS["goodness"].bind(spec.run.predict)["classes"])
        yield _Asked("goodness", classes, ("run", "predict"), "0418", only)


def _misfit(asked: _Asked, spec: Spec, table: Table) -> Diagnostic | None:
    column = table.get(asked.label or "")
    held = column.classes() if isinstance(column, Column) and column.classes is not None else None
    if held is None or asked.classes >= held:
        return None
    message = f"`{asked.name}` has {asked.classes} classes, and `{asked.label}` of the data has {held}"
    span = spec.key_origin(*asked.path, "classes")
    return Diagnostic(asked.code, message, span=span, help=f"write `classes={held}`")
