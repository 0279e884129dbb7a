"""Is every mistake told where it was made? One row per kind: a spec, its code, line and column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lpc.specs import LpcError, Spec, check, load_spec
from lpc.specs.validate import _EXPECTED

GOOD = """\
name: small
network:
  inputs: {image: [1, 8, 8]}
  layers:
    - flatten
    - fc1: linear(32)
    - relu
    - out: linear(10)
data: {source: digits, batch: 32}
loss: cross_entropy
decompose:
  blocks: {b1: fc1, head: out}
  links: stop
learn:
  - {blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}
run: {epochs: 1}
"""


@dataclass(frozen=True)
class Bad:
    """A change of the good spec, and the one problem that it makes."""

    name: str
    old: str
    new: str
    code: str
    line: int
    column: int
    says: str = ""

    @property
    def text(self) -> str:
        assert GOOD.count(self.old) == 1, self.old
        return GOOD.replace(self.old, self.new)


TABLE = (
    Bad("yaml_unclosed", "  links: stop", "  links: [stop", "0101", 14, 6),
    Bad("yaml_tab", "  links: stop", "\tlinks: stop", "0101", 13, 1),
    Bad("yaml_tag", "links: stop", "links: !!python/name:os.system x", "0101", 13, 10, "tag"),
    Bad("yaml_alias", "links: stop", "links: *nowhere", "0101", 13, 10, "nowhere"),
    Bad("yaml_merge", "  links: stop", "  <<: {links: stop}", "0101", 13, 3, "extends"),
    Bad("two_documents", "run: {", "---\nrun: {", "0101", 16, 1, "document"),
    Bad("not_a_character", "name: small", "name: sm\x07all", "0101", 1, 9),
    Bad("key_twice", "loss: cross_entropy\n", "name: again\n", "0102", 10, 1, "1:1"),
    Bad("argument_twice", "sgd(lr=0.1)", "sgd(lr=0.1, lr=0.2)", "0102", 15, 77, "lr"),
    Bad("too_deep", "name: small", "name: " + "[" * 80 + "]" * 80, "0103", 1, 71),
    Bad("too_many_layers", "- relu", "- repeat(5000): [relu, relu]", "0103", 5, 5),
    Bad("term_open", "linear(32)", "linear(32", "0104", 6, 20, "end of the text"),
    Bad("term_comma", "sgd(lr=0.1)", "sgd(lr=0.1,,)", "0104", 15, 76),
    Bad("term_order", "sgd(lr=0.1)", "sgd(lr=0.1, 3)", "0104", 15, 77),
    Bad("extends_missing", "name: small", "extends: nowhere.yaml", "0106", 1, 10, "nowhere.yaml"),
    Bad("extends_type", "name: small", "extends: [a]", "0106", 1, 10),
    Bad("unknown_top", "loss: cross_entropy\n", "losss: cross_entropy\n", "0110", 10, 1, "`loss`?"),
    Bad("unknown_key", "batch: 32", "btach: 32", "0110", 9, 24, "`batch`?"),
    Bad("unknown_in_rule", "head: linear", "heads: linear", "0110", 15, 19, "`head`?"),
    Bad("unknown_in_run", "epochs: 1", "epoch: 1, steps: 2", "0110", 16, 7, "`epochs`?"),
    Bad("adapter", "name: small", "adapters: lorra(targets=fc1)", "0120", 1, 11, "`lora`?"),
    Bad("adapter_without_targets", "name: small", "adapters: lora(rank=4)", "0122", 1, 11, "needs `targets`"),
    Bad("adapter_of_nothing", "name: small", 'adapters: lokr(targets="|")', "0114", 1, 24, "`targets` of `lokr` names"),
    Bad("adapter_by_position", "name: small", "adapters: lora([])", "0114", 1, 11, "names nothing"),
    Bad("adapter_rank", "name: small", "adapters: lora(fc1, rank=0)", "0123", 1, 26, "at least 1"),
    Bad("train_blocks", "head: linear", "train: true", "0143", 15, 19, "`train` belongs to an entry with `params`"),
    Bad("no_pieces", "epochs: 1", "microbatches: 0", "0114", 16, 21, "above 0"),
    Bad("other_replicas", "epochs: 1", "epochs: 1, replicas: 2, workers: 3, placement: {b1: 0, head: 0}",
        "0150", 16, 43, "2 replicas"),
    Bad("shards_of_one", "epochs: 1", "epochs: 1, shard: true", "0151", 16, 18, "there is one"),
    Bad("shards_of_no_block", "epochs: 1", "epochs: 1, replicas: 2, shard: [b1, haed]", "0132", 16, 43, "`head`?"),
    Bad("shards_that_overlap", "epochs: 1", "epochs: 1, replicas: 2, shard: b1, staleness: 1", "0151", 16, 31, "steps"),
    Bad("shards_by_number", "epochs: 1", "epochs: 1, replicas: 2, shard: 2", "0113", 16, 38, "text"),
    Bad("units_of_none", "links: stop", "units: {groups: 0}", "0114", 13, 19, "above 0"),
    Bad("no_readout", "epochs: 1", "epochs: 1, predict: readout(a)", "0145", 16, 27),
    Bad("readout_of_a_list", "epochs: 1", "epochs: 1, predict: 'readout([1])'", "0123", 16, 36, "a text"),
    Bad("readout_of_no_block", "name: small", "readouts: {a: {from: [b9], optimizer: sgd(lr=1)}}", "0132", 1, 23),
    Bad("missing_key", "data: {source: digits, batch: 32}", "fields: {label: {dtype: int64}}", "0112", 9, 10),
    Bad("wrong_type", "batch: 32", "batch: many", "0113", 9, 31, "whole number"),
    Bad("number_as_text", "batch: 32", 'batch: "32"', "0113", 9, 31, "whole number"),
    Bad("bool_as_number", "epochs: 1", "epochs: true", "0113", 16, 15, "whole number"),
    Bad("mapping_wanted", "epochs: 1}", "epochs: 1}\nfields: 7", "0113", 17, 9, "mapping"),
    Bad("term_wanted", "links: stop", "links: 3", "0113", 13, 10, "term"),
    Bad("shape_type", "[1, 8, 8]", "[1, 8, 2.5]", "0113", 3, 26, "whole number or a text"),
    Bad("choice", "epochs: 1", "epochs: 1, dtype: float23", "0114", 16, 25, "`float32`?"),
    Bad("out_of_range", "batch: 32", "batch: 0", "0114", 9, 31, "above 0"),
    Bad("too_many_views", "batch: 32", "batch: 32, views: 10", "0114", 9, 42, "at most 8"),
    Bad("size_of_no_tensor", "[1, 8, 8]", f"[1, 8, {10**21}]", "0114", 3, 26, "64 bits"),
    Bad("width_of_no_tensor", "linear(32)", f"linear({-(2**63)})", "0114", 6, 19, "64 bits"),
    Bad("rank_too_high", "epochs: 1", "epochs: 1, placement: {b1: 9999}", "0114", 16, 34, "below 4096"),
    Bad("weight_by_position", "loss: cross_entropy, ", "loss: cross_entropy(relu()), ", "0120", 15, 53, "loss weight"),
    Bad("clip_negative", "head: linear", "clip: -1.0", "0114", 15, 25, "above 0"),
    Bad("device", "epochs: 1", "epochs: 1, device: gpu", "0114", 16, 26, "cuda"),
    Bad("dtype", "[1, 8, 8]}", "{shape: [1], dtype: flaot32}}", "0114", 3, 39, "`float32`?"),
    Bad("length_zero", "[1, 8, 8]", "[1, 0, 8]", "0114", 3, 23, "length"),
    Bad("two_networks", "layers:\n", "zoo: lenet5\n  layers:\n", "0130", 4, 3, "`layers` and `zoo`"),
    Bad("args_of_another", "layers:\n", "args: {classes: 3}\n  layers:\n", "0130", 4, 3, "goes with `zoo`"),
    Bad("module_path", "layers:\n", "module: torch.nn.Linear\n  layers:\n", "0114", 4, 11, "package:Class"),
    Bad(
        "zoo_argument",
        "layers:\n",
        "args: {clases: 3}\n  zoo: lenet5\n  layers:\n",
        "0121",
        4,
        10,
        "`classes`?",
    ),
    Bad("unknown_op", "- relu", "- rleu", "0120", 7, 7, "`relu`?"),
    Bad("unknown_named_op", "fc1: linear(32)", "fc1: liner(32)", "0120", 6, 12, "`linear`?"),
    Bad("unknown_loss", "loss: cross_entropy\n", "loss: cross_entopy\n", "0120", 10, 7, "`cross_entropy`?"),
    Bad("unknown_optimizer", "sgd(lr=0.1)", "sdg(lr=0.1)", "0120", 15, 65, "`sgd`?"),
    Bad("unknown_head", "head: linear", "head: lineer", "0120", 15, 25, "`linear`?"),
    Bad("unknown_link", "links: stop", "links: stopp", "0120", 13, 10, "`stop`?"),
    Bad("unknown_source", "digits", "digit", "0120", 9, 16, "`digits`?"),
    Bad("unknown_metric", "epochs: 1", "epochs: 1, metrics: [acuracy]", "0120", 16, 28, "`accuracy`?"),
    Bad("unknown_argument", "sgd(lr=0.1)", "sgd(lr=0.1, momentun=0.9)", "0121", 15, 77, "`momentum`?"),
    Bad("argument_missing", "linear(32)", "linear(bias=false)", "0122", 6, 12, "`out`"),
    Bad("argument_type", "linear(32)", "linear(wide)", "0123", 6, 19, "whole number"),
    Bad("argument_choice", "- relu", "- gelu(approximate=tahn)", "0123", 7, 24, "`tanh`?"),
    Bad("arguments_surplus", "- relu", "- tanh(1)", "0124", 7, 12, "at most 0"),
    Bad("argument_both", "linear(32)", "linear(32, out=8)", "0124", 6, 23, "position"),
    Bad("no_network", "layers:\n    - flatten", "config:\n    - flatten", "0113", 5, 5, "mapping"),
    Bad("selector_twice", "head: out}", "head: [out, fc1]}", "0131", 12, 33, "`b1`"),
    Bad("no_such_block", 'blocks: "*"', "blocks: [b1, haed]", "0132", 15, 19, "`head`?"),
    Bad("no_optimizer", ", optimizer: sgd(lr=0.1)", "", "0133", 14, 1),
    Bad("block_without_optimizer", 'blocks: "*"', "blocks: head", "0133", 12, 12, "`b1`"),
    Bad("link_name", "links: stop", 'links: {"b1->haed": gradient}', "0137", 13, 11, "`head`?"),
    Bad("link_key", "links: stop", "links: {b1: gradient}", "0137", 13, 11, "boundary"),
    Bad("head_without_loss", "head: linear, loss: cross_entropy", "head: linear", "0136", 15, 25),
    Bad("fraction", "batch: 32", "batch: 32, validation: 1.5", "0138", 9, 47),
    Bad("no_length", "epochs: 1", "seed: 1", "0139", 16, 1),
    Bad("two_lengths", "epochs: 1", "epochs: 1, steps: 5", "0139", 16, 18),
    Bad("layer_keys", "- relu", "- {a: relu, b: relu}", "0140", 7, 7),
    Bad("layer_list", "- relu", "- [relu]", "0140", 7, 7),
    Bad("layer_twice", "- out: linear(10)", "- fc1: linear(10)", "0140", 8, 7, "two layers"),
    Bad("structure_empty", "- relu", "- residual", "0140", 7, 7, "holds no layers"),
    Bad("from_unknown", "- relu", "- relu(from=fc2)", "0140", 7, 17, "`fc1`?"),
    Bad("merge_alone", "- relu", "- add(from=fc1)", "0140", 7, 7, "two layers"),
    Bad("no_inputs", "inputs: {image: [1, 8, 8]}", "inputs: {}", "0141", 2, 1),
    Bad("no_fields", "data: {source: digits, batch: 32}\n", "", "0142", 1, 1),
    Bad("empty_entry", 'blocks: "*", ', "", "0143", 15, 5),
)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_the_mistake_is_told_at_its_place(bad: Bad) -> None:
    with pytest.raises(LpcError) as caught:
        check(load_spec(bad.text))
    found = [(d.code, d.span.line, d.span.column) for d in caught.value.diagnostics if d.span]
    assert (bad.code, bad.line, bad.column) in found, str(caught.value)
    told = next(d for d in caught.value.diagnostics if d.code == bad.code)
    assert bad.says in told.render()


def test_the_good_spec_is_good() -> None:
    check(load_spec(GOOD))


def test_names_are_unique() -> None:
    assert len({bad.name for bad in TABLE}) == len(TABLE)


def test_all_problems_are_told_at_once() -> None:
    text = GOOD.replace("batch: 32", "batch: many").replace("epochs: 1", "epoch: 1").replace("32)", "32,,)")
    with pytest.raises(LpcError) as caught:
        check(load_spec(text))
    assert [d.code for d in caught.value.diagnostics] == ["0104", "0113", "0110"]


def test_all_broken_rules_are_told_at_once() -> None:
    text = GOOD.replace("- relu", "- rleu").replace("sgd", "sdg").replace("epochs: 1", "seed: 1")
    with pytest.raises(LpcError) as caught:
        check(load_spec(text))
    assert [d.code for d in caught.value.diagnostics] == ["0120", "0120", "0139"]


@pytest.mark.parametrize(
    ("key", "old", "new", "says"),
    [
        ("replicas", "\nloss: cross_entropy", "\nloss: cross_entropy(reduction=sum)", "sum over a batch"),
        ("microbatches", "batch: 32", "batch: 32, views: 2", "belong together by views"),
        ("microbatches", "loss: cross_entropy, ", "loss: 'cross_entropy(1.0, label, sum)', ", "a sum over a batch"),
        ("microbatches", "head: linear, loss: cross_entropy", "loss: sim", "`microbatches` splits it into 2"),
    ],
)
def test_what_needs_a_whole_batch_is_not_cut(key: str, old: str, new: str, says: str) -> None:
    """0144, for what `accumulate` allows as well as for what it does not."""
    text = GOOD.replace(old, new).replace("epochs: 1", f"epochs: 1, {key}: 2")
    with pytest.raises(LpcError) as caught:
        check(load_spec(text))
    assert ("0144", True) in [(problem.code, says in problem.message) for problem in caught.value.diagnostics]


def test_alias_bomb() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    with pytest.raises(LpcError, match="expands to more than"):
        load_spec("\n".join(lines))


def test_blocks_without_signal() -> None:
    text = GOOD.replace("head: linear, loss: cross_entropy, ", "").replace("head: out", "b2: relu, head: out")
    with pytest.raises(LpcError) as caught:
        check(load_spec(text.replace("{b1: fc1, ", "{b0: flatten, b1: fc1, ")))
    assert [(d.code, d.message.split("`")[1]) for d in caught.value.diagnostics] == [
        ("0135", "b0"),
        ("0135", "b1"),
        ("0135", "b2"),
    ]


def test_no_loss_at_all() -> None:
    text = GOOD.replace("head: linear, loss: cross_entropy, ", "").replace(
        "loss: cross_entropy\n", "loss: none\n"
    )
    with pytest.raises(LpcError, match="no loss at all"):
        check(load_spec(text.replace("links: stop", "links: gradient")))


def test_every_limit_of_the_model_has_words() -> None:
    """A limit that validate.py does not know would be told in pydantic's words."""
    kinds = {"gt": "greater_than", "ge": "greater_than_equal", "lt": "less_than", "le": "less_than_equal"}
    limits = {"min_length", "max_length", "pattern", "multiple_of", *kinds}
    found = limits & set(words_of(Spec.__pydantic_core_schema__))
    assert {"gt", "lt"} <= found
    assert {kinds[word] for word in found} <= set(_EXPECTED)


def words_of(schema: object) -> Iterator[str]:
    """Yield all keys of a schema, at any depth."""
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    yield from (schema if isinstance(schema, dict) else ())
    for part in parts:
        yield from words_of(part)


def test_a_dict_has_places_too() -> None:
    with pytest.raises(LpcError) as caught:
        load_spec({"network": {"zoo": "mlp"}, "decompose": {"blocks": "per_layer"}, "learn": [{"clip": "x"}]})
    assert caught.value.diagnostics[0].place == "spec: learn[0].clip"
