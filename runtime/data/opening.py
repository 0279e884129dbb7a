"""How does the `data` section of a spec become splits? Open, check against the plan, read, cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lpc.runtime.data.column import Array, Column, Table
from lpc.runtime.data.contrast import POSITIVE, contrast
from lpc.runtime.data.field import Field, make_field, make_fields, renamed, transformed_fields
from lpc.runtime.data.holdout import cut
from lpc.runtime.data.problem import Origin, located, problem
from lpc.runtime.data.split import Split
from lpc.runtime.data.splits import HELD_OUT, label_column, layout
from lpc.specs.environment import filled
from lpc.specs.model import Data
from lpc.specs.plan.kernel import TensorType


@dataclass(frozen=True)
class Splits:
    """The samples to train on, and those held out where there are any."""

    train: Split
    validation: Split | None
    test: Split | None


def describe(data: Data, origin: Origin | None = None) -> dict[str, TensorType]:
    """Return the type of every field that batches of this data can have, `B` first, after transforms.

    Reads headers, schemas and at most one sample. Text columns are left out.
    Errors: LpcError 06xx; `origin` (`Spec.origin`) locates them in the spec.
    """
    with located(origin):
        data = filled(data)
        table = renamed(layout(data).tables["train"], data.columns)
        transformed = transformed_fields(table, data.transforms)
        fields = {
            name: make_field(name, column, None, data.transforms if name in transformed else ())
            for name, column in table.items() if isinstance(column, Column)
        }
        made = contrast(data.contrast, {name: field.type for name, field in fields.items()}, data.views)
    types = {name: TensorType(field.type.dtype, ("B", *field.shape)) for name, field in fields.items()}
    return types if made is None else types | {POSITIVE: TensorType("bool", ("B",))}


def check_fields(data: Data, fields: Mapping[str, TensorType], origin: Origin | None = None) -> None:
    """Tell whether `open_data` can give the training split's fields, from headers and schemas alone.

    Errors: LpcError 0605 to 0608 and others of 06xx.
    """
    with located(origin):
        data = filled(data)
        make_fields(renamed(layout(data).tables["train"], data.columns), _stored(fields, data), data)


def open_data(
    data: Data, fields: Mapping[str, TensorType], seed: int, origin: Origin | None = None
) -> Splits:
    """Read the splits into memory; `fields` is what batches must hold, `B` first, perhaps with `index`.

    `seed` keys the augmentation of batches taken without an epoch, by `split[indices]`.
    Errors: LpcError 06xx, before anything large is read where the fields do not fit.
    """
    with located(origin):
        data = filled(data)
        plan = layout(data)
        tables = {name: renamed(table, data.columns) for name, table in plan.tables.items()}
        wanted = _stored(fields, data)
        routes = {name: make_fields(table, wanted, data) for name, table in tables.items()}
        made = contrast(data.contrast, {n: replace(t, shape=t.shape[1:]) for n, t in wanted.items()}, data.views)
        splits = {
            name: replace(
                _load(name, tables[name], routes[name], "index" in fields), contrast=made, views=data.views
            )
            for name in tables
        }
        splits |= _cut(splits["train"], tables["train"], plan.fractions)
    ready = {name: split.at(seed, 0) for name, split in splits.items()}
    return Splits(train=ready["train"], **{name: ready.get(name) for name in HELD_OUT})


def _stored(fields: Mapping[str, TensorType], data: Data) -> dict[str, TensorType]:
    """Return the fields that the source must hold: all but those that the contrast makes."""
    return {name: kind for name, kind in fields.items() if data.contrast is None or name != POSITIVE}


def _load(name: str, table: Table, routes: Mapping[str, Field], indexed: bool) -> Split:
    stored = {field: route.load() for field, route in routes.items()}
    if not stored:
        stored = _first_column(table)
    counts = {field: len(values) for field, values in stored.items()}
    if len(set(counts.values())) > 1:
        raise problem("0604", f"the fields of split `{name}` differ in sample count", "data.source",
                      notes=[f"`{field}` has {count}" for field, count in counts.items()])
    if not max(counts.values()):
        raise problem("0612", f"the split `{name}` has no samples", "data.source")
    return Split(routes, stored, indexed, training=name == "train", draws={})


def _first_column(table: Table) -> dict[str, Tensor]:
    """A plan that reads nothing but `index` still needs to know how many samples there are."""
    column = next(column for column in table.values() if isinstance(column, Column))
    return {"": torch.from_numpy(column.read().copy())}


def _cut(train: Split, table: Table, fractions: Mapping[str, float]) -> dict[str, Split]:
    """Cut the held-out fractions from the training split."""
    if not fractions:
        return {}
    parts = cut(len(train), _labels(train, table), fractions)
    for name, rows in parts.items():
        if not len(rows):
            raise problem("0612", f"{len(train)} samples leave none for the split `{name}`", "data.source")
    return {name: train.subset(torch.from_numpy(rows), name == "train") for name, rows in parts.items()}


def _labels(train: Split, table: Table) -> Array | None:
    name = label_column(table)
    if name is None:
        return None
    column = table[name]
    return column.read() if isinstance(column, Column) else None
