"""What does an editor need to know of the YAML spelling? Its JSON Schema: keys, words, arguments, and what they mean.

A schema sees one file as plain YAML: it knows names and keys, and arguments in the form `{sgd: {lr: 0.1}}`; what is
inside a term such as `sgd(lr=0.1)`, and rules across keys, `check` looks at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from lpc.specs.check_network import DTYPES
from lpc.specs.keys import KEYS
from lpc.specs.model import Decompose, Readout, Rule, Run, Schedule, Units
from lpc.specs.recipes.recipe import SHIPPED, Recipe, shipped
from lpc.specs.signatures import FROM, REQUIRED, STRUCTURES, VOCABULARIES, Parameter, Signature
from lpc.specs.term import Term

Schema = dict[str, Any]

NONE: Schema = {"enum": ["none", None]}
TEXT: Schema = {"type": "string"}
NATURAL: Schema = {"type": "integer", "minimum": 0}
SIZE: Schema = {"type": "integer", "minimum": 1}
RATE: Schema = {"type": "number", "minimum": 0}
POSITIVE: Schema = {"type": "number", "exclusiveMinimum": 0}
ANY: Schema = {}

_TYPES: dict[str, Schema] = {
    "int": {"type": "integer"}, "natural": NATURAL, "size": SIZE, "float": {"type": "number"}, "rate": RATE,
    "positive": POSITIVE, "share": {"type": "number", "minimum": 0, "maximum": 1}, "bool": {"type": "boolean"},
    "str": TEXT, "dict": {"type": "object"}, "term": ANY, "any": ANY, "none": NONE,
}  # fmt: skip


def json_schema() -> Schema:
    """Return the JSON Schema (draft 7) of a spec in YAML."""
    top = _section("", _TOP)
    rules = {
        "anyOf": [{"required": ["extends"]}, {"required": ["recipe"]}, {"required": ["network", "decompose", "learn"]}],
        # Without recipes of one's own, a recipe is one of the library.
        "if": {"not": {"required": ["recipes"]}},
        "then": {"properties": {"recipe": _recipes()}},
    }
    definitions = {_slug(name): _words(table.values()) for name, table in VOCABULARIES.items()} | _shared()
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "lpc spec"}
    return head | top | rules | {"definitions": definitions}


def _slug(vocabulary: str) -> str:
    return vocabulary.replace(" ", "_")


def _term(vocabulary: str) -> Schema:
    return {"$ref": f"#/definitions/{_slug(vocabulary)}"}


def _either(*schemas: Schema) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _many(schema: Schema) -> Schema:
    return _either(schema, {"type": "array", "items": schema})


def _table(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _choice(model: Any, key: str) -> Schema:
    """Return the words that a model's key takes."""
    annotation = model.model_fields[key].annotation
    words = [word for part in (annotation, *get_args(annotation)) for word in get_args(part)]
    return {"enum": [word for word in words or get_args(annotation) if isinstance(word, str)]}


def _section(name: str, properties: Mapping[str, Schema]) -> Schema:
    """Return a mapping with these keys only, each with its line of meaning."""
    described = {key: {"description": KEYS[name][key], **_alone(schema)} for key, schema in properties.items()}
    return {"type": "object", "properties": described, "additionalProperties": False}


def _alone(schema: Schema) -> Schema:
    """Draft 7 ignores what stands beside a reference, so one with a description is wrapped."""
    return {"allOf": [schema]} if "$ref" in schema else schema


def _argument(parameter: Parameter) -> Schema:
    default = parameter.default
    schema = _either(*map(_type, parameter.alternatives))
    known = {} if default is REQUIRED or isinstance(default, Term) else {"default": default}
    return {"description": parameter.doc, **known, **schema} if parameter.doc else {**known, **schema}


def _type(alternative: str) -> Schema:
    if alternative.startswith("'"):
        return {"const": alternative[1:-1]}
    if alternative.startswith("["):
        return {"type": "array", "items": _type(alternative[1:-1])}
    return _TYPES[alternative]


def _required(word: Signature) -> list[str]:
    return [parameter.name for parameter in word.parameters if parameter.default is REQUIRED]


def _arguments(word: Signature, extra: tuple[Parameter, ...] = ()) -> Schema:
    """Return the mapping of a word's arguments, as in `{sgd: {lr: 0.1}}`."""
    properties = {parameter.name: _argument(parameter) for parameter in (*word.parameters, *extra)}
    return {
        "type": "object", "description": word.doc, "properties": properties, "required": _required(word),
        "additionalProperties": word.open,
    }  # fmt: skip


def _written(words: Iterable[Signature]) -> list[Schema]:
    """Return the texts that name a word: alone where no argument is needed, or with parentheses."""
    words = list(words)
    alone: list[Schema] = [{"const": word.name, "description": word.doc} for word in words if not _required(word)]
    called = {"type": "string", "pattern": rf"^\s*({'|'.join(re.escape(w.name) for w in words)})\s*\([\s\S]*\)\s*$"}
    return [*alone, called | {"defaultSnippets": [_snippet(word) for word in words if _required(word)]}]


def _snippet(word: Signature) -> Schema:
    """Return what an editor offers for a word that needs arguments."""
    holes = ", ".join(f"${{{i}:{name}}}" for i, name in enumerate(_required(word), 1))
    return {"label": word.name, "description": word.doc, "body": f"{word.name}({holes})"}


def _words(words: Iterable[Signature]) -> Schema:
    words = list(words)
    table = {word.name: _arguments(word) for word in words}
    mapping = {"type": "object", "properties": table, "additionalProperties": False}
    return {"anyOf": [*_written(words), _one_key(mapping)]}


def _recipes() -> Schema:
    return _words(map(_as_word, map(shipped, SHIPPED)))


def _as_word(recipe: Recipe) -> Signature:
    parameters = tuple(Parameter(p.name, "any", None, p.about) for p in recipe.parameters)
    return Signature(recipe.name, parameters, recipe.about)


def _shared() -> Schema:
    """Return the definitions that refer to themselves or are used twice."""
    structures = rf"^({'|'.join(STRUCTURES)})\s*(\([\s\S]*\))?$"
    inner = _either({"$ref": "#/definitions/layers"}, _table({"$ref": "#/definitions/layers"}))
    around = {"type": "object", "patternProperties": {structures: inner}, "additionalProperties": False}
    named = _either(*_written(VOCABULARIES["layer"].values()), _one_key(around),
                    _mapping_layer())  # fmt: skip
    entry = {
        "type": "object", "minProperties": 1, "maxProperties": 1,
        "properties": {word.name: _either(_arguments(word, (FROM,)), {"$ref": "#/definitions/named"})
                       for word in VOCABULARIES["layer"].values()},
        "patternProperties": {structures: inner},
        "additionalProperties": {"$ref": "#/definitions/named"},
    }  # fmt: skip
    shape = {"type": "array", "items": _either(SIZE, TEXT)}
    return {
        "named": named,
        "layers": _many(_either(*_written(VOCABULARIES["layer"].values()), entry)),
        "tensor": _either(shape, _section("tensor", {"shape": shape, "dtype": {"enum": list(DTYPES)}})),
    }


def _mapping_layer() -> Schema:
    table = {word.name: _arguments(word, (FROM,)) for word in VOCABULARIES["layer"].values()}
    return _one_key({"type": "object", "properties": table, "additionalProperties": False})


def _one_key(schema: Schema) -> Schema:
    return schema | {"minProperties": 1, "maxProperties": 1}


_TENSORS = _table({"$ref": "#/definitions/tensor"})
_LOSSES = _either(NONE, _many(_term("loss")))

_NETWORK = _section(
    "network",
    {
        "inputs": _TENSORS,
        "layers": _either(NONE, {"$ref": "#/definitions/layers"}),
        "module": _either(NONE, {"type": "string", "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"}),
        "config": {"type": "object"},
        "zoo": _either(*({"const": w.name, "description": w.doc} for w in VOCABULARIES["network"].values()), NONE),
        "args": {"type": "object"},
        "output": _either(TEXT, _TYPES["int"]),
        "weights": TEXT,
        "init": _table(_term("init law")),
    },
)

_DATA = _section(
    "data",
    {
        "source": _term("data source"),
        "root": TEXT,
        "batch": SIZE,
        "transforms": _either(NONE, _many(_term("transform"))),
        "views": SIZE,
        "contrast": _either(NONE, _term("contrast")),
        "columns": _table(TEXT),
        "test": _either(TEXT, _TYPES["share"], NONE),
        "validation": _either(TEXT, _TYPES["share"], NONE),
    },
)

_DECOMPOSE = _section(
    "decompose",
    {
        "blocks": _either(_term("block rule"), _table(_many(_either(TEXT, _term("block rule"))))),
        "at": _choice(Decompose, "at"),
        "links": _either(_term("link"), _table(_term("link"))),
        "units": _either(NONE, _section("units", {"patches": _choice(Units, "patches"), "groups": SIZE})),
        "shared": _choice(Decompose, "shared"),
    },
)

_SCHEDULE = _section(
    "schedule",
    {
        "warmup": NATURAL,
        "then": _term("schedule law"),
        "unit": _choice(Schedule, "unit"),
        "inner": _term("schedule law"),
    },
)

_RULE = _section(
    "learn",
    {
        "blocks": _many(TEXT),
        "params": _many(TEXT),
        "head": _term("head"),
        "loss": _LOSSES,
        "aggregate": _choice(Rule, "aggregate"),
        "estimator": _term("estimator"),
        "correct": _term("correction"),
        "optimizer": _term("optimizer"),
        "schedule": _either(NONE, _term("schedule law"), _SCHEDULE),
        "clip": _either(POSITIVE, NONE),
        "memory": _choice(Rule, "memory"),
        "reduction": _choice(Rule, "reduction"),
        "solver": _term("solver"),
        "steps": SIZE,
        "state": _choice(Rule, "state"),
        "prox": _either(POSITIVE, NONE),
        "outer": _either(_term("optimizer"), NONE),
        "train": _TYPES["bool"],
        "weight_decay": RATE,
        "lr_factor": RATE,
    },
)

_PHASE = _section("phases", {"train": _many(TEXT), "epochs": _either(SIZE, NONE), "steps": _either(SIZE, NONE)})

_RUN = _section(
    "run",
    {
        "epochs": _either(NATURAL, NONE),
        "steps": _either(NATURAL, NONE),
        "phases": _either(NONE, _many(_PHASE)),
        "seed": NATURAL,
        "device": {"type": "string", "pattern": r"^(auto|cpu|cuda(:\d+)?)$"},
        "target": _choice(Run, "target"),
        "dtype": _choice(Run, "dtype"),
        "precision": _choice(Run, "precision"),
        "accumulate": SIZE,
        "microbatches": SIZE,
        "replicas": SIZE,
        "memory": _either(_choice(Run, "memory"), NONE),
        "clip": _either(POSITIVE, NONE),
        "log": _term("period"),
        "checkpoint": _term("period"),
        "validate": _term("period"),
        "early_stop": _either(_term("early stop"), NONE),
        "metrics": _either(NONE, _many({"enum": sorted(VOCABULARIES["metric"])})),
        "predict": _term("predictor"),
        "workers": _either(SIZE, NONE),
        "placement": _table({"type": "integer", "minimum": 0, "exclusiveMaximum": 4096}),
        "shard": _either(_TYPES["bool"], NONE, _many(TEXT)),
        "staleness": {"type": "integer", "minimum": 0, "maximum": 64},
    },
)

_READOUT = _section(
    "readouts",
    {
        "from": _many(TEXT),
        "with": _either(NONE, _term("overlay")),
        "normalize": _choice(Readout, "normalize"),
        "classes": _either(NONE, SIZE),
        "head": _term("head"),
        "loss": _term("loss"),
        "optimizer": _term("optimizer"),
        "schedule": _either(NONE, _term("schedule law"), _SCHEDULE),
        "clip": _either(POSITIVE, NONE),
    },
)

_TOP: dict[str, Schema] = {
    "lpc": {"const": 1},
    "name": TEXT,
    "extends": TEXT,
    "recipe": ANY,
    "recipes": _table(TEXT),
    "network": _NETWORK,
    "adapters": _either(NONE, _many(_term("adapter"))),
    "data": _either(NONE, _DATA),
    "fields": _TENSORS,
    "decompose": _DECOMPOSE,
    "learn": _either(NONE, _many(_RULE)),
    "loss": _LOSSES,
    "readouts": _table(_READOUT),
    "run": _RUN,
}
