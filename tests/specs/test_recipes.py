"""Does a recipe stand for what it says, does the spec win over it, and are its mistakes located?"""

from __future__ import annotations

from pathlib import Path

import pytest

from lpc.specs import LpcError, Spec, check, expand, load_spec
from lpc.specs.recipes.recipe import SHIPPED, shipped

SHORT = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(16), relu, fc2: linear(16), relu, out: linear(10)]
data: {source: digits}
run: {epochs: 1}
"""

WRITTEN_OUT = {
    "dtp": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: "target(rule=difference, step=27.97)"}
learn:
  - blocks: "*"
    loss: [distance, inverse(noise=0.5, head=back_map)]
    reduction: batchmean
    optimizer: rmsprop(lr=6.6e-4, alpha=0.95, momentum=0.9, eps=1e-3, centered=true)
  - {params: "heads.*", lr_factor: 0.656}
""",
    "altmin_mem": """\
loss: cross_entropy
decompose:
  blocks: per_layer
  at: preactivation
  links:
    "*":
      variable:
        penalty: squared(weight=0.003, reduction=mean)
        optimizer: sgd(lr=0.3, momentum=0.9, nesterov=true)
        steps: 5
        anchor: false
        divide_by_weight: true
        buffers: every
learn:
  - {blocks: "*", loss: consistency(weight=1.0), solver: memory(sweeps=1), optimizer: adam(lr=0.008)}
  - {blocks: out, solver: gradient}
""",
    "altmin_binary": """\
loss: cross_entropy
decompose:
  blocks: per_layer
  at: preactivation
  links:
    "*":
      variable:
        penalty: squared(weight=0.003, reduction=mean)
        optimizer: sgd(lr=0.3, momentum=0.9, nesterov=true)
        steps: 10
        anchor: false
        divide_by_weight: true
        buffers: every
learn: [{blocks: "*", loss: consistency(weight=1.0), optimizer: adam(lr=0.008)}]
""",
    "altmin_offline": """\
loss: cross_entropy
decompose:
  blocks: per_layer
  at: preactivation
  links:
    "*":
      variable:
        penalty: squared(weight=grow(start=0.003, factor=1.1, until=0.3), reduction=mean)
        optimizer: sgd(lr=0.3, momentum=0.9, nesterov=true)
        steps: 10
        divide_by_weight: true
        init: cache
learn:
  - {blocks: "*", loss: consistency(weight=1.0), solver: least_squares, optimizer: adam(lr=0.008)}
  - {blocks: out, solver: gradient, steps: 10}
""",
    "mac": """\
loss: cross_entropy
decompose:
  blocks: per_layer
  links:
    "*":
      variable:
        penalty: squared(weight=grow(start=0.5, factor=1.1, until=500.0))
        optimizer: sgd(lr=0.01)
        steps: 10
        sweep: jacobi
        init: cache
learn: [{blocks: "*", optimizer: adam(lr=0.003), steps: 10}]
""",
    "admm": """\
loss: hinge(reduction=sum)
decompose: {blocks: per_layer, links: "split(beta=1.0, gamma=10.0, warmup=2)"}
learn: []
""",
    "bcd": """\
loss: hinge(reduction=sum)
decompose:
  blocks: per_layer
  links: split(beta=1.0, gamma=1.0, hold=5.0, order=backward, multiplier=false, init=forward)
learn: []
""",
    "straight_through": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: gradient}
learn: [{blocks: "*", loss: none, optimizer: adam(lr=0.003)}]
""",
    "blockprop": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: "variable(penalty=squared(weight=1.0), optimizer=sgd(lr=0.01), steps=1)"}
learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]
""",
    "blockprop_cached": """\
loss: cross_entropy
decompose:
  blocks: per_layer
  links: variable(penalty=squared(weight=1.0), optimizer=sgd(lr=0.01), steps=1, init=cache, refresh=5)
learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]
""",
    "altmin": """\
loss: cross_entropy
decompose:
  blocks: per_layer
  at: preactivation
  links:
    "*":
      variable:
        penalty: squared(weight=0.003, reduction=mean)
        optimizer: sgd(lr=0.3, momentum=0.9, nesterov=true)
        steps: 5
        anchor: false
        divide_by_weight: true
        buffers: every
learn: [{blocks: "*", loss: consistency(weight=1.0), optimizer: adam(lr=0.008)}]
""",
    "greedy": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=1e-3)}]
""",
    "backprop": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: gradient}
learn: [{blocks: "*", loss: none, optimizer: adam(lr=1e-3)}]
""",
    "deep_supervision": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: gradient}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=1e-3)}]
""",
    "predsim": """\
loss: cross_entropy(weight=1.0)
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    loss: ["cross_entropy(weight=0.010000000000000009, head=pool_linear)", "sim(weight=0.99, head=square_map)"]
    optimizer: adam(lr=5e-4)
""",
    "dgl": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    head: mlp_sr
    loss: cross_entropy
    optimizer: sgd(lr=0.1, momentum=0.9, weight_decay=5e-4)
""",
    "auglocal": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    head: aug(depth=2, pyramid=0.5)
    loss: cross_entropy
    optimizer: sgd(lr=0.1, momentum=0.9, nesterov=true, weight_decay=1e-4)
""",
    "infopro": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    loss:
      - recon(weight=linear(5, 0), mean=0.0, std=1.0)
      - cross_entropy(weight=linear(0, 1), head=convs_fcs)
    optimizer: sgd(lr=0.8, momentum=0.9, nesterov=true, weight_decay=1e-4)
""",
    "gim": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    loss: infonce(head=nce_maps(5), negatives=16, skip=1, eps=1e-11)
    optimizer: adam(lr=2e-4)
""",
    "forward_forward": """\
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    loss: ["ff_bce(goodness=sum, threshold=width)", peer(weight=0.03)]
    optimizer: sgd(lr=1e-3, momentum=0.9, weight_decay=3e-4)
""",
    "loco": """\
loss: none
decompose: {blocks: per_layer, links: gradient(reach=1)}
learn: [{blocks: "*", head: simclr_mlp, loss: nt_xent, optimizer: adam(lr=1e-3)}]
""",
    "lookahead": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: "gradient(reach=1, only=furthest)"}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(lr=1e-3)}]
""",
    "bp_modified": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    head: linear
    loss: cross_entropy
    correct: bp_offset(period=10, batch=0.25, scale=1.0, memory=recompute)
    optimizer: adam(lr=1e-3)
""",
    "locoprop": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: "target(step=10, rule=gradient)"}
learn:
  - blocks: "*"
    loss: matching
    reduction: sum
    optimizer: rmsprop(lr=1e-5, decay=0.9, momentum=0.999, eps=1e-5, flavor=tensorflow)
    steps: 10
    schedule: {inner: linear(floor=0.25)}
""",
    "proxprop": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: target(step=1.0)}
learn: [{blocks: "*", loss: squared, reduction: sum, solver: exact, prox: 1.0, outer: adam(lr=1e-3)}]
""",
    "foof": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: target(step=1.0)}
learn: [{blocks: "*", loss: squared, reduction: sum, solver: exact, prox: 1.0, outer: sgd(lr=1.0)}]
""",
    "forward_gradient": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: gradient}
learn:
  - blocks: "*"
    estimator: forward(perturb=activity, site=output, law=normal, passes=1)
    optimizer: sgd(lr=0.1)
  - {blocks: out, estimator: backprop}
""",
    "local_forward_gradient": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop, units: {patches: auto, groups: 1}}
learn:
  - blocks: "*"
    head: linear
    loss: cross_entropy
    aggregate: replicated
    estimator: forward(perturb=activity, site=after_norm, law=normal, passes=1)
    optimizer: sgd(lr=0.1)
  - {blocks: out, estimator: backprop}
""",
    "feedback_alignment": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: gradient}
learn: [{blocks: "*", estimator: feedback_alignment(kind=random), optimizer: sgd(lr=0.1)}]
""",
    "local_feedback_alignment": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    head: linear
    loss: cross_entropy
    estimator: feedback_alignment(kind=random)
    optimizer: sgd(lr=0.1)
""",
    "direct_feedback": """\
loss: cross_entropy
decompose: {blocks: per_layer, links: feedback(over=elements)}
learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]
""",
}

OURS = """\
recipe: ours
about: greedy with a rate
parameters:
  rate: {about: the learning rate}
  head: {default: mlp(layers=1)}
template:
  loss: cross_entropy
  decompose: {blocks: per_layer, links: {"*": stop}}
  learn: [{blocks: "*", head: $head, loss: cross_entropy, optimizer: {sgd: {lr: $rate}}}]
"""


def checked(text: str | Path, *overrides: str) -> Spec:
    spec = load_spec(text, overrides)
    check(spec)
    return spec


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_is_its_long_form(name: str) -> None:
    spec = checked(SHORT + f"recipe: {name}\n")
    assert spec == checked(SHORT + WRITTEN_OUT[name])
    assert load_spec(expand(spec)) == spec


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_explain_every_parameter(name: str) -> None:
    recipe = shipped(name)
    assert recipe.name == name
    assert recipe.about
    assert all(parameter.about and parameter.default is not None for parameter in recipe.parameters)


def test_a_shipped_recipe_is_read_once() -> None:
    """And no spec that is made of it changes it."""
    recipe = shipped("greedy")
    before = repr(recipe)
    checked(SHORT + "recipe: greedy(optimizer=sgd(lr=0.1))\n")
    checked(SHORT + "recipe: greedy\nlearn: [{blocks: head, head: identity}]\n")
    assert shipped("greedy") is recipe
    assert repr(recipe) == before


def test_arguments_by_name_by_position_and_as_a_mapping() -> None:
    blocks = "{b1: [fc1, fc2], head: out}"
    by_name = checked(SHORT + f"recipe: greedy(blocks={blocks}, optimizer=sgd(lr=0.1))\n")
    assert by_name == checked(SHORT + f"recipe: greedy({blocks}, optimizer=sgd(lr=0.1))\n")
    assert by_name == checked(SHORT + f"recipe: {{greedy: {{blocks: {blocks}, optimizer: sgd(lr=0.1)}}}}\n")
    assert by_name.decompose.blocks == {"b1": ("fc1", "fc2"), "head": ("out",)}
    assert str(by_name.learn[0].optimizer) == "sgd(lr=0.1)"


def test_what_the_spec_says_wins() -> None:
    own = 'decompose: {links: {"fc1->fc2": gradient}}\nlearn: {blocks: fc1, head: mlp}\nloss: mse\n'
    spec = checked(SHORT + "recipe: greedy\n" + own)
    assert {key: link.name for key, link in spec.decompose.links.items()} == {"*": "stop", "fc1->fc2": "gradient"}
    assert [rule.blocks for rule in spec.learn] == [("*",), ("fc1",)]
    assert spec.learn[1].head is not None
    assert spec.learn[1].head.name == "mlp"
    assert [str(loss) for loss in (*spec.loss, *(spec.learn[0].loss or ()))] == ["mse", "mse"]


def test_overrides_reach_the_recipe_and_what_it_says() -> None:
    spec = checked(SHORT + "recipe: greedy\n", "learn[0].optimizer.lr=0.5", "recipe.head=mlp")
    assert str(spec.learn[0].optimizer) == "adam(lr=0.5)"
    assert str(spec.learn[0].head) == "mlp"
    assert checked(SHORT, "recipe=backprop") == checked(SHORT + "recipe: backprop\n")
    assert checked(SHORT + WRITTEN_OUT["greedy"] + "recipe: none\n") == checked(SHORT + WRITTEN_OUT["greedy"])


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(OURS)
    path = tmp_path / "spec.yaml"
    path.write_text(SHORT + "recipes: {mine: ours.yaml}\nrecipe: mine(0.25)\n")
    spec = checked(path)
    assert str(spec.learn[0].optimizer) == "sgd(lr=0.25)"
    assert str(spec.learn[0].head) == "mlp(layers=1)"
    (tmp_path / "over.yaml").write_text("extends: spec.yaml\nname: over\n")
    assert checked(tmp_path / "over.yaml").learn == spec.learn


BAD_CALLS = [
    ("recipe: greeedy", "0120", "recipe: g", "did you mean `greedy`?"),
    ("recipe: zzz", "0120", "recipe: z", "the recipes are greedy, backprop, deep_supervision, predsim"),
    ("recipe: greedy(hed=linear)", "0121", "recipe: greedy(h", "did you mean `head`?"),
    ("recipe: greedy(per_layer, blocks=per_layer)", "0124", "recipe: greedy(per_layer, b", "by position and by name"),
    ("recipe: greedy(a, b, c, d, 5)", "0124", "recipe: greedy(a, b, c, d, 5", "at most 4 arguments"),
    ("recipe: greedy(optimizer=adm)", "0120", "recipe: greedy(optimizer=a", "did you mean `adam`?"),
    ("recipe: greedy(", "0104", "recipe: greedy(", "no term"),
    ("recipe: [greedy]", "0113", "recipe: [", "expected a term"),
    ("recipes: ours.yaml", "0113", "recipes: o", "expected a mapping"),
    ("recipes: {a: 5}", "0113", "recipes: {a: 5", "expected a path"),
    ("recipes: {a: gone.yaml}\nrecipe: a", "0160", "recipes: {a: g", "there is no file"),
    ("reciep: greedy", "0110", "r", "did you mean `recipe`?"),
]


@pytest.mark.parametrize(("line", "code", "until", "says"), BAD_CALLS)
def test_a_mistaken_call_is_located(line: str, code: str, until: str, says: str) -> None:
    text = SHORT + line + "\n"
    base = "" if "recipe: " in line else WRITTEN_OUT["greedy"]
    with pytest.raises(LpcError) as caught:
        checked(text + base)
    problem = caught.value.diagnostics[0]
    assert problem.code == code
    assert problem.span is not None
    assert (problem.span.line, problem.span.column) == (SHORT.count("\n") + 1, len(until))
    assert says in problem.render()


BAD_FILES = [
    ("recipe: ours", "recipe: [ours]", "is a text"),
    ("recipe: ours", "recipe: a-b", "cannot name a recipe"),
    ("about:", "abuot:", "did you mean `about`?"),
    ("  rate: {about", "  rate: {abot", "did you mean `about`?"),
    ("lr: $rate", "lr: $rat", "did you mean `rate`?"),
    ("template:", "template: 5 #", "`template` is a mapping"),
    ("parameters:", "parameters: 5 #", "`parameters` is a mapping"),
    ("  loss: cross", "  extends: x\n  loss: cross", "a template cannot say `extends`"),
    ("  rate:", "  1rate:", "cannot name a parameter"),
    ("template:\n", "parameters2:\n", "no key `parameters2`"),
]


@pytest.mark.parametrize(("old", "new", "says"), BAD_FILES)
def test_a_mistaken_file_is_located(old: str, new: str, says: str, tmp_path: Path) -> None:
    changed = OURS.replace(old, new, 1)
    if new.endswith("#"):
        changed = "".join(line for line in changed.splitlines(True) if not line.startswith("  "))
    (tmp_path / "ours.yaml").write_text(changed)
    path = tmp_path / "spec.yaml"
    path.write_text(SHORT + "recipes: {mine: ours.yaml}\nrecipe: mine(0.25)\n")
    with pytest.raises(LpcError) as caught:
        checked(path)
    problem = caught.value.diagnostics[0]
    assert problem.code == "0160"
    assert problem.span is not None
    assert problem.span.source.name == str(tmp_path / "ours.yaml")
    assert says in problem.render()
    assert "this is in the recipe `mine`" in problem.render()


def test_a_mistake_inside_a_template_says_which_recipe(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(OURS.replace("sgd:", "sdg:"))
    path = tmp_path / "spec.yaml"
    path.write_text(SHORT + "recipes: {mine: ours.yaml}\nrecipe: mine(0.25)\n")
    with pytest.raises(LpcError, match=r"in the recipe `mine`, named at .*spec.yaml:6:17"):
        checked(path)


def test_missing_argument(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(OURS)
    path = tmp_path / "spec.yaml"
    path.write_text(SHORT + "recipes: {mine: ours.yaml}\nrecipe: mine\n")
    with pytest.raises(LpcError, match="`mine` needs `rate`: the learning rate") as caught:
        checked(path)
    assert caught.value.diagnostics[0].code == "0122"


def test_quoted_placeholders_are_text_and_arguments_are_not_filled_again(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(OURS.replace("  loss: cross", '  name: "$rate"\n  loss: cross', 1))
    path = tmp_path / "spec.yaml"
    path.write_text(SHORT + "recipes: {mine: ours.yaml}\nrecipe: {mine: {rate: 0.5, head: {linear: {bias: false}}}}\n")
    assert checked(path).name == "$rate"


def test_a_recipe_cannot_expand_without_bound(tmp_path: Path) -> None:
    many = ", ".join(["$rate"] * 2000)
    (tmp_path / "ours.yaml").write_text(OURS.replace("$rate", f"[{many}]"))
    path = tmp_path / "spec.yaml"
    values = ", ".join(["1"] * 2000)
    path.write_text(SHORT + f"recipes: {{mine: ours.yaml}}\nrecipe: {{mine: {{rate: [{values}]}}}}\n")
    with pytest.raises(LpcError, match="expands to more than"):
        checked(path)


def test_what_is_left_of_a_share() -> None:
    spec = checked(SHORT + "recipe: predsim(beta=0.75)\n")
    assert [loss.kwargs["weight"] for loss in spec.learn[0].loss or ()] == [0.25, 0.75]
    for wrong in ("2", "true", "much"):
        with pytest.raises(LpcError) as caught:
            load_spec(SHORT + f"recipe: predsim(beta={wrong})\n")
        assert [(d.code, d.span.column if d.span else 0) for d in caught.value.diagnostics] == [("0114", 22)]


def test_a_word_stands_for_one_of_several_parts() -> None:
    given = "recipe: infopro(variant=contrast, label=linear(0, 2))"
    written = """\
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn:
  - blocks: "*"
    loss:
      - recon(weight=linear(5, 0), mean=0.0, std=1.0)
      - supcon(weight=linear(0, 2), head=convs_fcs(features=128))
    optimizer: sgd(lr=0.8, momentum=0.9, nesterov=true, weight_decay=1e-4)
"""
    assert load_spec(SHORT + given) == load_spec(SHORT + written)
    with pytest.raises(LpcError, match="expected one of softmax, contrast") as caught:
        load_spec(SHORT + "recipe: infopro(variant=contrst)")
    (told,) = caught.value.diagnostics
    assert (told.code, told.help) == ("0123", "did you mean `contrast`?")


def test_choices_cannot_lead_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("recipe: ours\nparameters: {way: {default: a, choices: {a: $way}}}\ntemplate: {loss: $way}\n")
    with pytest.raises(LpcError, match=r"`\$way` is no parameter") as caught:
        load_spec(SHORT + f"recipes: {{ours: {path}}}\nrecipe: ours")
    assert caught.value.diagnostics[0].code == "0160"
