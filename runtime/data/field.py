"""How does a stored column become a batch field? Dtype, shape and transforms, checked against the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lpc.runtime.data.column import Column, Shape, Table, Text, delivered
from lpc.runtime.data.problem import problem
from lpc.runtime.data.transform import Transform
from lpc.runtime.data.transforms import chain
from lpc.specs.diagnostics import did_you_mean, one_of
from lpc.specs.model import Data
from lpc.specs.plan.kernel import TensorType
from lpc.specs.term import Term

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class Field:
    """The way of one field into a batch: read `column`, convert, transform, reshape to `shape`."""

    column: Column
    dtype: torch.dtype
    shape: Shape
    transforms: tuple[Transform, ...]

    @property
    def type(self) -> TensorType:
        """Dtype and shape of one sample."""
        return TensorType(str(self.dtype).removeprefix("torch."), self.shape)

    def load(self) -> Tensor:
        """Return all samples [N, ...]: images and what lies on disk as stored, the rest in the field's dtype."""
        if self.column.mapped:
            return torch.from_numpy(self.column.read())
        values = torch.from_numpy(self.column.read().copy(order="C"))
        return values if self.column.peak is not None else values.to(self.dtype)

    def deliver(self, stored: Tensor, draws: Mapping[int, Tensor]) -> Tensor:
        """Return a batch [B, *shape] of stored samples; in training, `draws[i]` [B, n] is transform i's."""
        x = stored.to(self.dtype)
        if self.column.peak is not None:
            x = x / self.column.peak
        for number, transform in enumerate(self.transforms):
            x = transform.apply(x, draws.get(number))
        return x.reshape(len(x), *self.shape)


def renamed(table: Table, columns: Mapping[str, str]) -> Table:
    """Return a table by batch fields: `columns` maps a field to a column, all others keep their names.

    Errors: 0605 for a column that is not there.
    """
    for field, name in columns.items():
        if name not in table:
            raise _missing(name, table, f"data.columns.{field}", "column")
    rest = {name: column for name, column in table.items() if name not in columns.values()}
    return rest | {field: table[name] for field, name in columns.items()}


def make_fields(table: Table, wanted: Mapping[str, TensorType], data: Data) -> dict[str, Field]:
    """Return the fields that a plan wants, `index` excepted.

    Errors: 0605 missing, 0606 another shape, 0607 another dtype, 0608 text instead of numbers.
    """
    transformed = transformed_fields(table, data.transforms)
    return {
        name: make_field(name, _numeric(name, table), type_, data.transforms if name in transformed else ())
        for name, type_ in wanted.items() if name != "index"
    }


def make_field(name: str, column: Column, wanted: TensorType | None, terms: tuple[Term, ...]) -> Field:
    """Return one field; without `wanted`, in the shape and dtype that the data suggest."""
    transforms = chain(terms, column.shape)
    shape = transforms[-1].shape if transforms else column.shape
    if wanted is None:
        return Field(column, DTYPES[delivered(column)], shape, transforms)
    final = _agreed(shape, wanted.shape[1:])
    if final is None:
        raise problem(
            "0606", f"field `{name}` has shape {list(shape)} per sample, expected {_shown(wanted.shape[1:])}",
            "data.source", notes=[f"read from {column.place}"],
            help=f"write `{name}: {_shown(shape)}` in `network.inputs` or `fields`, or add a transform")
    return Field(column, _dtype(name, column, wanted.dtype), final, transforms)


def transformed_fields(table: Table, terms: tuple[Term, ...]) -> set[str]:
    """Return the fields that transforms are for: the images, else the only field of real numbers.

    Errors: 0616 where there is no such field, or more than one.
    """
    if not terms:
        return set()
    columns = {name: column for name, column in table.items() if isinstance(column, Column)}
    images = {name for name, column in columns.items() if column.peak is not None}
    reals = {name for name, column in columns.items() if column.dtype.kind == "f"}
    if images:
        return images
    if len(reals) != 1:
        found = one_of(sorted(reals)) if reals else "none"
        raise problem("0616", "transforms need images, or exactly one field of real numbers",
                      "data.transforms.0", notes=[f"fields of real numbers: {found}"])
    return reals


def _agreed(found: Shape, wanted: tuple[int | str, ...]) -> Shape | None:
    """Return the shape to deliver; None where the data cannot mean what is wanted.

    Axes of length 1 and flattening keep the order of the numbers. Anything else with equal counts, such as
    channels last to channels first, would scramble them in silence.
    """
    pairs = list(zip(found, wanted, strict=False))
    if len(found) == len(wanted) and all(isinstance(w, str) or f == w for f, w in pairs):
        return found
    fixed = tuple(length for length in wanted if isinstance(length, int))
    if len(fixed) != len(wanted) or torch.Size(found).numel() != torch.Size(fixed).numel():
        return None
    core = [[length for length in shape if length != 1] for shape in (found, fixed)]
    return fixed if core[0] == core[1] or 1 in (len(core[0]), len(core[1])) else None


def _dtype(name: str, column: Column, wanted: str) -> torch.dtype:
    found = "image" if column.peak is not None else str(column.dtype)
    whole = column.peak is None and column.dtype.kind in "biu"
    if wanted not in DTYPES or (not DTYPES[wanted].is_floating_point and not whole):
        raise problem("0607", f"field `{name}` holds {found} values, expected {wanted}", "data.source",
                      notes=[f"read from {column.place}"])
    return DTYPES[wanted]


def _numeric(name: str, table: Table) -> Column:
    if name not in table:
        raise _missing(name, table, "data.columns", "field")
    column = table[name]
    if isinstance(column, Text):
        raise problem("0608", f"field `{name}` holds {column.found}, expected numbers", "data.source",
                      notes=[f"read from {column.place}"])
    return column


def _missing(name: str, table: Table, place: str, what: str) -> Exception:
    near = did_you_mean(name, table)
    return problem("0605", f"the data have no {what} `{name}`", place,
                   notes=[f"they have: {', '.join(table)}"], help=near)


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
