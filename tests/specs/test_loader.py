"""Does a spec come in whole? Sources, `extends`, overrides, variables, short forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpc.specs import LpcError, Spec, Term, check, load_spec
from lpc.specs.environment import filled

SMALL = """\
network: {zoo: mlp, args: {widths: [4, 3], dropout: none}}
decompose: {blocks: per_layer}
learn: {blocks: "*", loss: mse, optimizer: sgd(0.1)}
"""


def codes(error: pytest.ExceptionInfo[LpcError]) -> list[str]:
    return [d.code for d in error.value.diagnostics]


def test_samples_load_and_check(sample: Path) -> None:
    spec = load_spec(sample)
    check(spec)
    assert spec.name == sample.stem


def test_path_text_and_dict_are_one() -> None:
    given = {
        "network": {"zoo": "mlp", "args": {"widths": [4, 3], "dropout": None}},
        "decompose": {"blocks": Term("per_layer")},
        "learn": [{"blocks": ["*"], "loss": [Term("mse")], "optimizer": "sgd(0.1)"}],
    }
    assert load_spec(SMALL) == load_spec(given)
    spec = load_spec(SMALL)
    assert load_spec(spec) is spec


DSL = """\
# said the other way
network zoo mlp, args {widths: [4, 3], dropout: none}
decompose blocks per_layer
learn *: loss mse, optimizer sgd(0.1)
"""


@pytest.mark.parametrize("lead", ["", "\n\n", "  \n# network: a comment\n", "spec unnamed\n", "lpc 1\n"])
def test_text_is_read_in_the_spelling_it_begins_in(lead: str) -> None:
    assert load_spec(f"{lead}{DSL}") == load_spec(SMALL)
    assert load_spec(f"{lead}{DSL}", {"name": "other"}).name == "other"


@pytest.mark.parametrize("lead", ["", "\n# network zoo\n", "name : unnamed\n", "---\n", '"name": unnamed\n'])
def test_yaml_stays_yaml(lead: str) -> None:
    assert load_spec(lead + SMALL) == load_spec(SMALL)
    assert load_spec("{name: spec, network: {zoo: mlp}, decompose: {blocks: per_layer}, learn: []}").name == "spec"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("learn *: head\n", "0108"),
        ("network\n  zoo: mlp\n", "0108"),
        ("network: zoo\n  mlp: 1\n", "0101"),
        ("specs: all\n", "0110"),
        ("#" * 5000 + " ", "0100"),
        ("#" * 5000 + "\n", "0112"),
    ],
)
def test_a_mistake_in_a_text_is_told_in_its_spelling(text: str, code: str) -> None:
    with pytest.raises(LpcError) as error:
        load_spec(text)
    assert code in codes(error)


def test_short_forms() -> None:
    spec = load_spec(SMALL + "loss: [a(weight=2.0), b]\nfields: {y: [3]}\n")
    (rule,) = spec.learn
    assert (rule.blocks, rule.loss, rule.optimizer) == (("*",), (Term("mse"),), Term("sgd", (0.1,)))
    assert spec.loss == (Term("a", (), {"weight": 2.0}), Term("b"))
    assert spec.fields["y"].shape == (3,)
    assert spec.decompose.links == {"*": Term("stop")}
    assert spec.network.args == {"widths": [4, 3], "dropout": None}


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("loss: none", "loss", ()),
        ("clip: none", "clip", float("inf")),
        ("clip: 2", "clip", 2.0),
        ("head: {mlp: {layers: 2}}", "head", Term("mlp", (), {"layers": 2})),
        ('params: "*.bias"', "params", ("*.bias",)),
    ],
)
def test_short_forms_of_a_rule(text: str, field: str, value: object) -> None:
    spec = load_spec(SMALL.replace("loss: mse", text))
    assert getattr(spec.learn[0], field) == value


def test_schedules() -> None:
    spec = load_spec(SMALL.replace("loss: mse", "schedule: cosine(floor=0.1)"))
    schedule = spec.learn[0].schedule
    assert schedule is not None
    assert (schedule.then, schedule.warmup, schedule.unit) == (Term("cosine", (), {"floor": 0.1}), 0, "step")


def test_links_by_boundary() -> None:
    spec = load_spec(SMALL.replace("per_layer", 'per_layer, links: {"a->b": gradient, "*": {stop: {}}}'))
    assert spec.decompose.links == {"a->b": Term("gradient"), "*": Term("stop")}


@pytest.mark.parametrize("optimizer", ['"sgd(lr=0.1, momentum=0.9)"', "{sgd: {lr: 0.1, momentum: 0.9}}"])
def test_terms_inside_of_terms(optimizer: str) -> None:
    """In a mapping they are written as anywhere else: with quotes, where there is a comma, or as mappings."""
    scaled = "{squared: {weight: {grow: {start: 0.5}}}}"
    link = f"per_layer, links: {{variable: {{optimizer: {optimizer}, penalty: {scaled}, steps: 2}}}}"
    (found,) = load_spec(SMALL.replace("per_layer", link)).decompose.links.values()
    inner = Term("sgd", (), {"lr": 0.1, "momentum": 0.9})
    penalty = Term("squared", (), {"weight": Term("grow", (), {"start": 0.5})})
    assert found == Term("variable", (), {"optimizer": inner, "penalty": penalty, "steps": 2})


def test_a_word_in_quotes_is_a_word_and_a_broken_term_is_told_where_it_breaks() -> None:
    link = 'per_layer, links: {variable: {optimizer: "OPTIMIZER"}}'
    spec = load_spec(SMALL.replace("per_layer", link.replace("OPTIMIZER", "sgd")))
    assert spec.decompose.links["*"].kwargs == {"optimizer": "sgd"}
    with pytest.raises(LpcError, match=r"LPC0104[^|]*:2:72") as caught:
        load_spec(SMALL.replace("per_layer", link.replace("OPTIMIZER", "sgd(lr=0.1")))
    assert codes(caught) == ["0104"]


def test_a_block_rule_as_mapping() -> None:
    spec = load_spec(SMALL.replace("per_layer", "{balanced: {count: 4, by: flops}}"))
    assert spec.decompose.blocks == Term("balanced", (), {"count": 4, "by": "flops"})


def test_layers_of_every_form() -> None:
    text = """\
network:
  layers:
    - relu
    - fc: {linear: {out: 3}}
    - linear: {out: 4}
    - residual: relu
    - deep: {repeat(2): [{inner: {residual: [tanh]}}]}
    - branch: {a: relu, b: [tanh]}
decompose: {blocks: per_layer}
learn: []
"""
    layers = load_spec(text).network.layers
    assert layers is not None
    relu, fc, linear, residual, deep, branch = layers
    assert (relu.name, relu.op) == (None, Term("relu"))
    assert (fc.name, fc.op) == ("fc", Term("linear", (), {"out": 3}))
    assert (linear.name, linear.op) == (None, Term("linear", (), {"out": 4}))
    assert [inner.op for inner in residual.body] == [Term("relu")]
    assert (deep.name, deep.op, deep.body[0].name) == ("deep", Term("repeat", (2,)), "inner")
    assert deep.body[0].body[0].op == Term("tanh")
    assert {name: body[0].op.name for name, body in branch.branches.items()} == {"a": "relu", "b": "tanh"}


def test_extends_merges_deep(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(SMALL + "run: {epochs: 3, seed: 1}\n")
    (tmp_path / "mid.yaml").write_text("extends: base.yaml\nrun: {epochs: 4}\n")
    (tmp_path / "top.yaml").write_text("extends: mid.yaml\nrun: {seed: 2}\nlearn: []\n")
    spec = load_spec(tmp_path / "top.yaml")
    assert (spec.run.epochs, spec.run.seed, spec.learn) == (4, 2, ())
    epochs = spec.origin("run", "epochs")
    assert epochs is not None
    assert Path(epochs.source.name).name == "mid.yaml"


def test_extends_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(LpcError, match="extends itself") as caught:
        load_spec(tmp_path / "a.yaml")
    assert codes(caught) == ["0106"]


def test_extends_without_end(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i}.yaml").write_text(f"extends: {i + 1}.yaml\n")
    with pytest.raises(LpcError, match="more than 16 specs"):
        load_spec(tmp_path / "0.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SMALL)
    with pytest.raises(LpcError, match=r"did you mean `spec\.yaml`") as caught:
        load_spec(tmp_path / "spce.yaml")
    assert codes(caught) == ["0100"]
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(LpcError, match="byte 9"):
        load_spec(tmp_path / "latin.yaml")
    with pytest.raises(LpcError, match="cannot read"):
        load_spec(tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load_spec(tmp_path / "spec.yaml") == load_spec(SMALL)


def test_overrides_reach_into_terms(digits: Path) -> None:
    overrides = [
        "learn[0].optimizer.lr=0.5",
        "run.seed=7",
        "network.layers[1].fc1[0]=64",
        "decompose.links=gradient",
    ]
    spec = load_spec(digits, overrides)
    assert spec.learn[0].optimizer == Term("adam", (), {"lr": 0.5})
    assert spec.run.seed == 7
    assert spec.network.layers is not None
    assert spec.network.layers[1].op == Term("linear", (64,))
    assert spec.decompose.links == {"*": Term("gradient")}
    span = spec.origin("learn", 0, "optimizer", "lr")
    assert str(span) == "--set:1:23"


def test_overrides_make_what_is_missing(digits: Path) -> None:
    spec = load_spec(
        digits, ['network.init."*.bias"=zeros', "learn[0].schedule.warmup=3", "fields.y.shape=[2]"]
    )
    assert spec.network.init == {"*.bias": Term("zeros")}
    assert spec.learn[0].schedule is not None
    assert spec.learn[0].schedule.warmup == 3
    assert spec.fields["y"].shape == (2,)


def test_overrides_through_python(digits: Path) -> None:
    spec = load_spec(
        digits, {"run.seed": 3, "learn[0].optimizer": Term("sgd", (0.2,)), "run.early_stop": None}
    )
    assert (spec.run.seed, spec.learn[0].optimizer) == (3, Term("sgd", (0.2,)))
    assert load_spec(spec, {"run.seed": 4}).run.seed == 4
    with pytest.raises(LpcError) as caught:
        load_spec(digits, {"run.seed": "x"})
    assert str(caught.value.diagnostics[0].span) == "override:1:1"


@pytest.mark.parametrize(
    ("override", "column"),
    [
        ("run.seed", 9),
        ("=3", 1),
        ("run.seed.x=1", 1),
        ("learn[5].clip=1", 1),
        ("run.sede=1", 1),
        ("run.seed= [", 12),
    ],
)
def test_overrides_that_cannot_be(digits: Path, override: str, column: int) -> None:
    with pytest.raises(LpcError) as caught:
        load_spec(digits, [override])
    span = caught.value.diagnostics[0].span
    assert span is not None
    assert (span.source.name, span.line, span.column) == ("--set", 1, column)


def test_variables_stand_under_data_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPC_TEST_ROOT", "/somewhere")
    text = (
        SMALL
        + 'name: "${LPC_TEST_ROOT}"\ndata: {source: npz("${LPC_TEST_ROOT}/a"), root: "${LPC_TEST_ROOT}"}\n'
    )
    spec = load_spec(text)
    assert spec.data is not None
    assert spec.data.root == "${LPC_TEST_ROOT}"
    opened = filled(spec.data)
    assert (opened.source.args, opened.root) == (("/somewhere/a",), "/somewhere")
    assert spec.name == "${LPC_TEST_ROOT}"


def test_specs_compare_by_what_they_say() -> None:
    assert load_spec(SMALL) == load_spec("# a comment moves every place\n" + SMALL)
    assert load_spec(SMALL) != load_spec(SMALL + "name: other\n")
    assert load_spec(SMALL).__eq__(3) is NotImplemented


def test_origin_falls_back_to_the_value_around() -> None:
    spec = load_spec(SMALL)
    assert isinstance(spec, Spec)
    assert str(spec.origin("learn", 0, "optimizer", "lr")) == "<spec>:3:44"
    assert str(spec.key_origin("learn", 0, "optimizer")) == "<spec>:3:33"


def test_batches_from_python_need_no_length_of_run() -> None:
    check(load_spec(SMALL.replace("none", "0.1") + "fields: {y: [3]}\nloss: mse\n"))
    with pytest.raises(LpcError) as caught:
        check(load_spec(SMALL.replace("none", "0.1") + "data: {source: digits}\nloss: mse\n"))
    assert codes(caught) == ["0139"]
